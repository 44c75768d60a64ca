/* SPDX-License-Identifier: Apache-2.0 */
#ifndef FUZZ_FUZZ_H
#define FUZZ_FUZZ_H

/*
 * fuzz.h - what a fuzz target is: this one function. libFuzzer calls it with bytes of its own making; replay.c, in the
 * plain build, with the files of corpus/ and crashes/. It ends the process when something is wrong.
 */

#include "base/base.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#endif
