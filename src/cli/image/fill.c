/* SPDX-License-Identifier: Apache-2.0 */
/*
 * fill.c - `thaw image fill`: decompress for all pagers of an image; started by the first of them, for nobody else to call
 *
 *     thaw image fill STORE ID BYTES     descriptor 3: the socket
 *
 * Once the packs are open the process gives away what it does not need: capabilities, files by name (Landlock), and all system
 * calls but those that are listed (seccomp). It goes on only if that can be done, as far as this kernel can: pagers do without
 * a filler.
 */
#include <linux/capability.h>
#include <limits.h>
#include <malloc.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/err.h"
#include "base/thread.h"
#include "cli/cli.h"
#include "cli/image/image.h"
#include "pager/landlock.h"
#include "pager/syscall_filter.h"
#include "source/filler.h"

#define VERB   "image fill"
#define SOCKET 3

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#    define SANITIZED 1
#elif defined(__has_feature)
#    if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#        define SANITIZED 1
#    endif
#endif
#ifndef SANITIZED
#    define SANITIZED 0 /* 1: the sanitizer reads /proc */
#endif

static void *nothing(void *arg)
{
    return arg;
}

/* start_first_thread() - for which the C library sets up more than for others. Return: 0 or a negative errno with a text */
/* #syscalls:start clone3 clone */
static int start_first_thread(void)
{
    pthread_t thread;
    int r = thread_start(&thread, PTHREAD_STACK_MIN, nothing, NULL);

    if (r < 0)
        return err_origin_errno(r, "cannot start a thread");
    (void)pthread_join(thread, NULL);
    return 0;
}

/* give_away() - where the kernel does not know of a right it cannot be given away. Return: 0 or a negative errno with a text */
/* #syscalls:start prctl capset */
static int give_away(void)
{
    struct __user_cap_header_struct head = {.version = _LINUX_CAPABILITY_VERSION_3};
    const struct __user_cap_data_struct none[2] = {0};
    const char *const nowhere[2] = {NULL, NULL};
    int version = landlock_version();
    int r = 0;

    (void)prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
    (void)syscall(SYS_capset, &head, none);
    if (SANITIZED)
        return 0;
    if (version >= 0)
        r = landlock_restrict(version, NULL, nowhere, -1);
    (void)prctl(PR_SET_DUMPABLE, 0, 0, 0, 0);
    if (r == 0)
        r = syscall_filter_load_for_filler();
    return r < 0 ? r : 0;
}

/* #syscalls:start rt_sigaction */
int image_fill(int argc, char **argv)
{
    _cleanup_(store_closep) struct store *store = NULL;
    _cleanup_(image_closep) struct image *image = NULL;
    struct filler *filler = NULL;
    uint64_t bytes = 0;
    int r;

    if (argc != 4 || cli_parse_u64(argv[3], UINT64_MAX, &bytes) < 0)
        return cli_usage_error(VERB, "it is for thaw serve to call");
    (void)signal(SIGPIPE, SIG_IGN);
    (void)mallopt(M_ARENA_MAX,
                  1); /* for more the C library would ask how many processors there are */
    r = store_open(&store, argv[1], false);
    if (r == 0)
        r = image_open(&image, store, argv[2]);
    if (r == 0)
        r = filler_new(&filler, image, bytes);
    if (r < 0)
        return cli_error(VERB, "%s", err_text());
    if (start_first_thread() < 0 || give_away() < 0)
        return cli_error(VERB, "%s", err_text());
    filler_run(filler, SOCKET);
    _exit(CLI_OK); /* the threads of connections that have just ended may still be there */
}
