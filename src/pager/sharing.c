/* SPDX-License-Identifier: Apache-2.0 */
/*
 * sharing.c - the first pager of an image starts the filler
 *
 * Of several that try at the same time one gets the socket's name; the others find it. The filler is the child of a child
 * that ends at once, so it is nobody's: it outlives this pager for as long as others are there. It has no descriptor of ours
 * but the socket, and no terminal.
 */
#include "pager/sharing.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/err.h"
#include "base/fd.h"
#include "source/filler.h"

#define TRIES    50u
#define PAUSE_NS (2 * NS_PER_MS)
#define SOCKET   3 /* what the filler finds it as */

/* be_filler() - in a process that has nothing else to do */
/* #syscalls:start dup2 dup3 close_range rt_sigprocmask execve setsid openat open chdir */
static __attribute__((noreturn)) void be_filler(const char *program, char *const *argv,
                                                int listener)
{
    int nowhere = open("/dev/null", O_RDWR);
    sigset_t none;

    (void)!chdir("/"); /* no file system is kept busy */
    sigemptyset(&none);
    (void)sigprocmask(SIG_SETMASK, &none, NULL);
    for (int fd = STDIN_FILENO; fd <= STDERR_FILENO; fd++)
        (void)dup2(nowhere, fd);
    if (listener != SOCKET && dup2(listener, SOCKET) < 0)
        _exit(1);
    (void)fcntl(SOCKET, F_SETFD, 0);
    (void)close_range(SOCKET + 1, ~0u, 0);
    (void)execv(program, argv);
    _exit(1);
}

/* start_filler() - Return: 0 or a negative errno with a text */
/* #syscalls:start clone fork wait4 fcntl */
static int start_filler(const struct sharing *what, int listener)
{
    char id[IMAGE_ID_TEXT];
    char bytes[32];
    const char *const argv[] = {"thaw", "image", "fill", what->store, id, bytes, NULL};
    pid_t child;

    (void)image_id_text(what->manifest->id, id);
    (void)snprintf(bytes, sizeof(bytes), "%" PRIu64, what->bytes);
    child = fork();
    if (child < 0)
        return err_origin_errno(-errno, "cannot start a filler of the image");
    if (child == 0) {
        if (setsid() < 0 || fork() != 0)
            _exit(0);
        be_filler(what->program, (char *const *)argv, listener);
    }
    while (waitpid(child, NULL, 0) < 0 && errno == EINTR)
        continue;
    return 0;
}

/* #syscalls:start clock_nanosleep */
int sharing_join(struct share **out, const struct sharing *what)
{
    const struct timespec pause = timespec_from_ns(PAUSE_NS);
    bool started = false;

    for (unsigned i = 0; i < TRIES; i++) {
        int r = share_join(out, what->manifest);
        _cleanup_fd_ int listener = -1;

        if (r <= 0 || started)
            return r <= 0 ? r : err_origin(-ECHILD, "the filler of the image has ended at once");
        listener = filler_listen(what->manifest);
        if (listener < 0 && listener != -EADDRINUSE)
            return listener;
        if (listener >= 0) {
            r = start_filler(what, listener);
            if (r < 0)
                return r;
            started = true;
        } else { /* somebody is just beginning, or has just ended */
            (void)clock_nanosleep(CLOCK_MONOTONIC, 0, &pause, NULL);
        }
    }
    return err_origin(-EAGAIN, "the filler of the image does not take connections");
}
