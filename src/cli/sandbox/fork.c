/* SPDX-License-Identifier: Apache-2.0 */
/* fork.c - `thaw fork`: more sandboxes of one that is paused */
#include <stdio.h>

#include "base/clock.h"
#include "base/err.h"
#include "cli/cli.h"
#include "cli/sandbox/sandbox.h"

#define VERB "fork"

static const char help[] =
    "usage: thaw fork NAME [OPTIONS]\n"
    "\n"
    "Makes sandboxes that go on where the sandbox NAME is paused; it stays "
    "as it is. Prints their names.\n"
    "\n"
    "      --name FORK     the name; without it one is invented\n"
    "      --count N       so many, called FORK-1, FORK-2, ...\n"
    "      --paused        leave them paused\n"
    "      --wait          until their guests answer: their shells, their vsock ports\n"
    "      --timeout SECONDS  for each step of the start (60)\n"
    "      --state DIR     where their pagers have their state files; as "
    "NAME has it\n" SANDBOX_HELP;

/* struct forks - what is wanted */
struct forks {
    struct sandbox_many many;
    bool paused;
};

static int take(void *ctx, int option, const char *value)
{
    struct forks *f = ctx;

    if (option != 'p')
        return sandbox_many_take(&f->many, option, value);
    f->paused = true;
    return CLI_OK;
}

static int fork_one(struct sandbox *s, struct forks *f, unsigned i)
{
    _cleanup_(sandbox_closep) struct sandbox *fork = NULL;
    char name[SANDBOX_NAME_MAX + 1];
    uint64_t since_ns = clock_now_ns();
    int r;

    f->many.wishes.name = sandbox_many_name(&f->many, i, name);
    r = sandbox_fork(&fork, s, &f->many.wishes);
    if (r == 0 && !f->paused)
        r = sandbox_resume(fork, f->many.wishes.deadline_ms);
    if (r < 0)
        return r;
    if (f->paused) {
        (void)printf("%s\n", fork->record.name);
        return 0;
    }
    return sandbox_tell_running(TAKE(fork), since_ns,
                                f->many.wait ? f->many.wishes.deadline_ms : 0);
}

/* fork_all() - a failure is told at once; the others are made all the same */
static int fork_all(void *ctx, struct sandbox *s)
{
    struct forks *f = ctx;
    unsigned count =
        s->record.state == SANDBOX_PAUSED ? f->many.count : 1; /* one refusal will do */
    int r = 0;

    for (unsigned i = 0; i < count; i++) {
        if (r < 0)
            (void)cli_error(VERB, "%s", err_text());
        if (fork_one(s, f, i) < 0)
            r = -1;
    }
    return r;
}

int cli_fork(int argc, char **argv)
{
    static const struct option options[] = {
        {"paused", no_argument, NULL, 'p'},
        SANDBOX_MANY_OPTIONS,
        SANDBOX_OPTIONS,
    };
    struct forks f = {.many = {.verb = VERB, .count = 1, .wishes = SANDBOX_WISHES_DEFAULT}};
    struct sandbox_verb v = {
        .name = VERB, .help = help, .shorts = "h", .options = options, .take = take, .ctx = &f};
    int status;

    if (!sandbox_parse(&v, argc, argv, &status))
        return status;
    if (optind + 1 != argc)
        return cli_usage_error(VERB, "expected the name of one sandbox");
    status = sandbox_many_check(&f.many);
    if (status == CLI_OK)
        status = sandbox_each(&v, argv + optind, SANDBOX_RECONCILED, fork_all, &f);
    return cli_flush(VERB, status);
}
