/* SPDX-License-Identifier: Apache-2.0 */
#include "cli/progress.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "cli/map/size_text.h"

#define LINE_CELLS 78

const char *progress_bar(uint64_t done, uint64_t all, char buf[PROGRESS_BAR_BYTES])
{
    double share = all > 0 ? (double)min_u64(done, all) / (double)all : 1.0;
    unsigned cells = (unsigned)(share * PROGRESS_CELLS);

    memset(buf, '.', PROGRESS_CELLS + 1);
    memset(buf + 1, '#', cells);
    buf[0] = '[';
    (void)snprintf(buf + 1 + PROGRESS_CELLS, PROGRESS_BAR_BYTES - 1 - PROGRESS_CELLS, "] %3u %%",
                   (unsigned)(share * 100));
    return buf;
}

void progress_show(struct progress *p, const char *what, uint64_t done, uint64_t all)
{
    char bar[PROGRESS_BAR_BYTES];
    char line[LINE_CELLS + 1];
    uint64_t now_ns = clock_now_ns();
    double seconds;
    double rate;
    int n;

    if (!isatty(STDERR_FILENO))
        return;
    if (!p->what || strcmp(p->what, what) != 0) {
        p->what = what;
        p->since_ns = now_ns;
    }
    seconds = (double)(now_ns - p->since_ns) / 1e9;
    rate = seconds > 0 ? (double)done / seconds : 0;
    n = snprintf(line, sizeof(line), "%s %s", progress_bar(done, all, bar), what);
    if (rate > 0 && done <= all && n > 0 && n < (int)sizeof(line)) {
        uint64_t left_s = (uint64_t)((double)(all - done) / rate + 0.5);

        (void)snprintf(line + n, sizeof(line) - (size_t)n, ", %s/s, %" PRIu64 ":%02u left",
                       size_text((uint64_t)rate), left_s / 60, (unsigned)(left_s % 60));
    }
    (void)fprintf(stderr, "\r%-*s", LINE_CELLS, line);
    p->drawn = true;
}

void progress_clear(struct progress *p)
{
    if (p->drawn)
        (void)fprintf(stderr, "\r%*s\r", LINE_CELLS, "");
    p->drawn = false;
}
