/* SPDX-License-Identifier: Apache-2.0 */
#include "node/console.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/err.h"
#include "base/fd.h"
#include "node/tree.h"

#define NAP_NS       (5 * NS_PER_MS)
#define PIECE_BYTES  (16 * KIB)
#define ASK_AGAIN_MS 1500u /* a shell that has not answered by then may not have been there */
#define WRITE_MS     5000u
#define NO_ANSWER    "no shell in the guest answered"

/* struct reader - of the log of a VM, from some place on */
struct reader {
    struct vmm *vm;
    const struct console_wait *wait;
    uint64_t deadline_ns;
    char path[PATH_MAX];
    int fd;
    off_t at;
};

static int reader_init(struct reader *rd, struct vmm *vm, const struct console_wait *wait,
                       bool from_end)
{
    *rd = (struct reader){.vm = vm,
                          .wait = wait,
                          .deadline_ns = clock_now_ns() + wait->timeout_ms * NS_PER_MS,
                          .fd = -1};
    if (tree_path(rd->path, sizeof(rd->path), vmm_folder(vm), VMM_FILE_CONSOLE) < 0)
        return -ENAMETOOLONG;
    rd->fd = open(rd->path, O_RDONLY | O_CLOEXEC);
    if (rd->fd >= 0 && from_end)
        rd->at = lseek(rd->fd, 0, SEEK_END);
    return rd->at < 0 ? err_origin_errno(-errno, "cannot read %s", rd->path) : 0;
}

static void reader_deinit(struct reader *rd)
{
    rd->fd = fd_close(rd->fd);
}

/* more() - what has come since. Return: how many bytes, 0 if there are none, or a negative errno with a text */
static ssize_t more(struct reader *rd, char buf[PIECE_BYTES])
{
    ssize_t n;

    if (rd->fd < 0)
        rd->fd = open(rd->path, O_RDONLY | O_CLOEXEC);
    if (rd->fd < 0)
        return errno == ENOENT ? 0 : err_origin_errno(-errno, "cannot read %s", rd->path);
    n = pread(rd->fd, buf, PIECE_BYTES, rd->at);
    if (n < 0)
        return err_origin_errno(-errno, "cannot read %s", rd->path);
    rd->at += n;
    return n;
}

/* too_late() - with what the guest said last. Return: -ETIMEDOUT */
static int too_late(const char *path, const char *what, unsigned timeout_ms)
{
    char text[256];

    log_last_line(path, text, sizeof(text));
    return err_origin(-ETIMEDOUT, "%s within %u ms; its last words: %s", what, timeout_ms,
                      text[0] != '\0' ? text : "none");
}

int console_nap(const struct vmm *vm, const struct console_wait *wait, uint64_t deadline_ns,
                const char *what)
{
    int r = wait->stopped ? wait->stopped(wait->ctx) : 0;
    char text[256];

    if (r < 0)
        return r;
    if (clock_now_ns() >= deadline_ns)
        return -ETIMEDOUT;
    if (vmm_has_ended(vm)) {
        vmm_end_text(vm, text, sizeof(text));
        return err_origin(-ESRCH, "%s: the VMM %s", what, text);
    }
    clock_sleep_ns(wait->nap_ns > 0 ? wait->nap_ns : NAP_NS);
    return 0;
}

/* nap() - nothing has come. Return: 0: look again; or a negative errno with a text */
static int nap(struct reader *rd, const char *what)
{
    int r = console_nap(rd->vm, rd->wait, rd->deadline_ns, what);

    return r == -ETIMEDOUT ? too_late(rd->path, what, rd->wait->timeout_ms) : r;
}

/* ---- what it says --------------------------------------------------------------------------------------------- */

int console_wait_text(struct vmm *vm, const char *text, const struct console_wait *wait)
{
    _cleanup_(reader_deinit) struct reader rd;
    size_t n_text = strlen(text);
    size_t kept = 0; /* of what came before: @text may begin in it */
    char *window = malloc(PIECE_BYTES + n_text);
    char what[128];
    bool found = false;
    int r = reader_init(&rd, vm, wait, false);

    assert(n_text > 0);
    if (!window)
        return err_origin_errno(-ENOMEM, "cannot wait for the guest");
    (void)snprintf(what, sizeof(what), "the guest did not write '%.80s'", text);
    while (r == 0 && !found) {
        ssize_t n = more(&rd, window + kept);
        size_t len = kept + (n > 0 ? (size_t)n : 0);

        found = memmem(window, len, text, n_text) != NULL;
        kept = min_u64(len, n_text - 1);
        memmove(window, window + len - kept, kept);
        if (n <= 0 && !found)
            r = n < 0 ? (int)n : nap(&rd, what);
    }
    free(window);
    return r;
}

/* ---- its shell ------------------------------------------------------------------------------------------------ */

/* struct run - of a command */
struct run {
    int (*sink)(void *ctx, const char *bytes, size_t len);
    void *ctx;
    struct console_result *out;
};

static int keep(void *ctx, const char *bytes, size_t len)
{
    struct console_result *out = ctx;
    char *grown;

    if (out->len + len > CONSOLE_OUTPUT_MAX)
        return err_origin(-EFBIG, "the guest has written more than %llu bytes", CONSOLE_OUTPUT_MAX);
    grown = realloc(out->output, out->len + len + 1);
    if (!grown)
        return err_origin_errno(-ENOMEM, "cannot keep what the guest has written");
    out->output = grown;
    memcpy(grown + out->len, bytes, len);
    out->len += len;
    grown[out->len] = '\0';
    return 0;
}

/* hand_on() - what is there of the output */
static int hand_on(struct console_answer *a, const struct run *run)
{
    char *bytes;
    size_t len;
    int r = console_answer_take(a, &bytes, &len);

    if (r == 0 && len > 0)
        r = run->sink(run->ctx, bytes, len);
    free(bytes);
    return r;
}

static int listen_to(struct reader *rd, struct console_answer *a, const struct run *run)
{
    char *buf = malloc(PIECE_BYTES);
    int r = buf ? 0 : err_origin_errno(-ENOMEM, "cannot listen to the guest");

    while (r == 0 && !a->ended) {
        ssize_t n = more(rd, buf);

        if (n > 0)
            r = console_answer_add(a, buf, (size_t)n);
        if (n > 0 && r == 0)
            r = hand_on(a, run);
        if (n <= 0)
            r = n < 0 ? (int)n
                      : nap(rd, a->begun ? "the command in the guest did not end" : NO_ANSWER);
    }
    free(buf);
    run->out->status = a->status;
    return r;
}

int console_run(struct vmm *vm, const char *command, enum console_shell shell,
                const struct console_wait *wait,
                int (*sink)(void *ctx, const char *bytes, size_t len), void *ctx,
                struct console_result *out)
{
    static unsigned n_commands;
    _cleanup_(console_answer_deinit) struct console_answer answer = {0};
    struct run run = {.sink = sink ? sink : keep, .ctx = sink ? ctx : out, .out = out};
    struct reader rd;
    char tag[64];
    char *line;
    int r;

    *out = (struct console_result){0};
    /* Nothing else that was ever typed at this console has the same one. */
    (void)snprintf(tag, sizeof(tag), "%d-%u-%jx", (int)getpid(), n_commands++,
                   (uintmax_t)clock_now_ns());
    answer.tag = tag;
    r = console_line(command, shell, tag, &line);
    if (r < 0)
        return r;
    r = reader_init(&rd, vm, wait, true);
    if (r == 0)
        r = vmm_console_write(vm, line, strlen(line), WRITE_MS);
    free(line);
    if (r == 0)
        r = listen_to(&rd, &answer, &run);
    if (r == 0 && !sink && !out->output)
        r = keep(out, "", 0);
    reader_deinit(&rd);
    if (r < 0)
        console_result_deinit(out);
    return r;
}

int console_wait_shell(struct vmm *vm, const struct console_wait *wait)
{
    uint64_t deadline_ns = clock_now_ns() + wait->timeout_ms * NS_PER_MS;
    char path[PATH_MAX];
    int r = tree_path(path, sizeof(path), vmm_folder(vm), VMM_FILE_CONSOLE);

    if (r < 0)
        return r;
    do {
        struct console_result done;
        uint64_t now_ns = clock_now_ns();
        uint64_t left_ms = now_ns < deadline_ns ? (deadline_ns - now_ns) / NS_PER_MS : 0;
        struct console_wait once = *wait;

        once.timeout_ms = (unsigned)min_u64(left_ms, ASK_AGAIN_MS);
        r = console_run(vm, "true", CONSOLE_SHELL_ITSELF, &once, NULL, NULL, &done);
        console_result_deinit(&done);
    } while (r == -ETIMEDOUT && clock_now_ns() < deadline_ns);
    return r == -ETIMEDOUT ? too_late(path, NO_ANSWER, wait->timeout_ms) : r;
}

void console_result_deinit(struct console_result *r)
{
    free(r->output);
    *r = (struct console_result){0};
}
