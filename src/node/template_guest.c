/* SPDX-License-Identifier: Apache-2.0 */
/*
 * template_guest.c - a guest that was booted becomes what a template is made of
 *
 * It is ready when it says so, or when its shell answers. Then it has as much of its memory free as it can, and the host gets it
 * back: pages that the guest does not use are zero in the snapshot, whatever they had been.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "base/clock.h"
#include "base/err.h"
#include "base/procfs.h"
#include "node/answer.h"
#include "node/template_build_private.h"

#define PROBE_MS     5000u /* for a shell that nobody has asked for */
#define DROP         "sync; echo 3 >/proc/sys/vm/drop_caches"
#define DROP_MS      30000u
#define HINT_MS      10000u
#define SETTLED_NS   (2500 * NS_PER_MS) /* a guest reports two seconds after it has freed something */
#define SETTLE_MAX_S 20u
#define FALL_BYTES   (1 * MIB) /* less is no fall */

/* ---- ready ---------------------------------------------------------------------------------------------------- */

static int wait_ready(struct build *b)
{
    const struct console_wait wait = build_wait(b, b->timeout_ms);
    const struct console_wait probe = build_wait(b, (unsigned)min_u64(PROBE_MS, b->timeout_ms));
    int r = 0;

    if (b->t.ready)
        r = console_wait_text(b->vm, b->t.ready, &wait);
    if (r == 0 && b->t.ready_vsock > 0)
        r = answer_wait_port(b->vm, b->t.ready_vsock, &wait);
    if (r < 0 || !b->t.has_shell)
        return r;
    if ((!b->t.ready && b->t.ready_vsock == 0) || b->t.start_cmd)
        return console_wait_shell(b->vm, &wait);
    r = console_wait_shell(b->vm, &probe);
    b->t.has_shell = r == 0;
    return r == -ETIMEDOUT ? 0 : r;
}

/* last_line() - of a command's output, for a message */
static const char *last_line(char *output)
{
    size_t len = strlen(output);
    char *line;

    while (len > 0 && output[len - 1] == '\n')
        output[--len] = '\0';
    line = strrchr(output, '\n');
    return line ? line + 1 : output;
}

static int run_start_command(struct build *b)
{
    const struct console_wait wait = build_wait(b, b->timeout_ms);
    struct console_result done;
    const char *said;
    int r = console_run(b->vm, b->t.start_cmd, CONSOLE_SHELL_CHILD, &wait, NULL, NULL, &done);

    if (r < 0)
        return r;
    said = last_line(done.output);
    if (done.status != 0)
        r = err_origin(-EIO, "the start command ended with status %d%s%.200s", done.status,
                       said[0] != '\0' ? ": " : "", said);
    console_result_deinit(&done);
    return r;
}

/* ---- memory --------------------------------------------------------------------------------------------------- */

/* drop_caches() - as far as the guest lets us: one that has no such file has no such cache */
static int drop_caches(struct build *b)
{
    const struct console_wait wait = build_wait(b, DROP_MS);
    struct console_result done;
    int r = console_run(b->vm, DROP, CONSOLE_SHELL_ITSELF, &wait, NULL, NULL, &done);

    if (r == 0)
        console_result_deinit(&done);
    return r;
}

/* host_bytes() - what the VMM has of the host's memory; 0 if it cannot be told */
static uint64_t host_bytes(const struct build *b)
{
    char path[64];
    uint64_t rss_kib = 0;
    uint64_t huge_kib = 0;

    (void)snprintf(path, sizeof(path), "/proc/%d/status", vmm_id(b->vm).pid);
    if (procfs_field_u64(path, "VmRSS", 10, &rss_kib) < 0)
        return 0;
    (void)procfs_field_u64(path, "HugetlbPages", 10, &huge_kib);
    return (rss_kib + huge_kib) * KIB;
}

/* wait_settled() - until the guest has reported what it has freed: the host's memory does not fall any more */
static int wait_settled(struct build *b)
{
    uint64_t begin_ns = clock_now_ns();
    uint64_t fell_ns = begin_ns;
    uint64_t lowest = host_bytes(b);
    int r = 0;

    for (;;) {
        uint64_t now = host_bytes(b);
        uint64_t now_ns = clock_now_ns();

        if (now + FALL_BYTES < lowest) {
            lowest = now;
            fell_ns = now_ns;
        }
        if (now == 0 || now_ns - fell_ns > SETTLED_NS ||
            now_ns - begin_ns > SETTLE_MAX_S * NS_PER_S)
            return 0;
        r = build_nap(b);
        if (r < 0)
            return r;
    }
}

static int reclaim(struct build *b)
{
    int r = build_step(b, "taking memory back");

    if (r == 0 && b->t.has_shell)
        r = drop_caches(b);
    if (r == 0 && b->t.free_page_hinting.on) {
        r = vmm_hint(b->vm, HINT_MS);
        r = r > 0 ? 0 : r; /* a guest without a driver for it does not answer */
    }
    if (r == 0 && b->t.free_page_reporting.on)
        r = wait_settled(b);
    return r;
}

int build_guest(struct build *b)
{
    int r = build_step(b, "waiting for the guest");

    if (r == 0)
        r = wait_ready(b);
    if (r == 0 && b->t.start_cmd)
        r = build_step(b, "running the start command");
    if (r == 0 && b->t.start_cmd)
        r = run_start_command(b);
    return r == 0 ? reclaim(b) : r;
}
