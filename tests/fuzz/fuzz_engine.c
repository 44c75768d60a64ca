/* SPDX-License-Identifier: Apache-2.0 */

/* fuzz_engine.c - one string of bytes is one schedule of guest, kernel, pager and source: see sim.h */

#include <stdio.h>
#include <stdlib.h>

#include "fuzz.h"
#include "sim.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const char *wrong = sim_run(data, size, NULL);

    if (wrong) {
        (void)fprintf(stderr, "the oracle: %s\n", wrong);
        abort();
    }
    return 0;
}
