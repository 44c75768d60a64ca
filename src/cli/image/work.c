/* SPDX-License-Identifier: Apache-2.0 */
/* work.c - long work on an image: threads, a bar, signals */
#include <errno.h>
#include <signal.h>
#include <sys/resource.h>

#include "base/err.h"
#include "cli/image/image.h"

static volatile sig_atomic_t stopped_by; /* 0, or the signal */

static void on_signal(int signal)
{
    stopped_by = signal;
}

int image_work_stopped(void)
{
    return stopped_by != 0 ? err_origin(-EINTR, "stopped by a signal") : 0;
}

static int watch(void *ctx, const char *what, uint64_t done, uint64_t all)
{
    struct image_work *w = ctx;

    int r = image_work_stopped();

    if (r == 0)
        progress_show(&w->progress, what, done, all);
    return r;
}

/* set_signals() - without SA_RESTART: who waits for a lock is told, too */
static void set_signals(void)
{
    struct sigaction act = {.sa_handler = on_signal};
    struct sigaction before;

    sigemptyset(&act.sa_mask);
    (void)sigaction(SIGINT, &act, NULL);
    (void)sigaction(SIGTERM, &act, NULL);
    if (sigaction(SIGHUP, NULL, &before) == 0 && before.sa_handler != SIG_IGN) /* nohup(1) */
        (void)sigaction(SIGHUP, &act, NULL);
    act.sa_handler = SIG_IGN;
    (void)sigaction(SIGXFSZ, &act, NULL);
}

void image_work_begin(struct image_work *w, unsigned n_threads)
{
    struct rlimit files;

    *w = (struct image_work){
        .job = {.n_threads = n_threads > 0 ? n_threads : parallel_default_threads(),
                .watch = watch,
                .ctx = w},
    };
    set_signals();
    if (getrlimit(RLIMIT_NOFILE, &files) == 0) {
        files.rlim_cur = files.rlim_max; /* an image may have many packs */
        (void)setrlimit(RLIMIT_NOFILE, &files);
    }
}

void image_work_end(struct image_work *w)
{
    progress_clear(&w->progress);
}
