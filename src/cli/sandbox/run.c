/* SPDX-License-Identifier: Apache-2.0 */
/* run.c - `thaw run`: sandboxes of a template. Options of a jail are called as Firecracker's jailer has them */
#include <errno.h>
#include <string.h>

#include "base/clock.h"
#include "base/err.h"
#include "cli/cli.h"
#include "cli/sandbox/sandbox.h"

#define VERB "run"

static const char help[] =
    "usage: thaw run TEMPLATE [OPTIONS]\n"
    "\n"
    "Makes a sandbox of a template: a VM that goes on where the template "
    "was written down. Prints its\n"
    "name when its guest runs.\n"
    "\n"
    "      --name NAME     its name; without it one is invented\n"
    "      --count N       so many, called NAME-1, NAME-2, ...\n"
    "      --wait          until its guest answers: its shell, its vsock port\n"
    "      --timeout SECONDS  for each step of the start (60)\n"
    "      --state DIR     where its pagers have their state files; as thaw "
    "serve has it\n"
    "      --jail UID[:GID]  its VMM runs as this user, in a jail that "
    "Firecracker's jailer makes\n"
    "      --jailer PROGRAM  the jailer; without it the one on PATH\n"
    "      --netns PATH    a network namespace for the jail; {name} in it is "
    "the sandbox's name\n"
    "      --cgroup KEY=VALUE  a setting of the jail's cgroup; may be given "
    "several times\n"
    "      --cgroup-version 1|2  of the cgroups; what is mounted at "
    "/sys/fs/cgroup\n" SANDBOX_HELP;

/* struct wishes - what is wanted */
struct wishes {
    struct sandbox_many many;
    struct sandbox_jail jail;
    const char *needs_jail; /* an option that means nothing without --jail; NULL: there was none */
};

/* take_version() - of cgroups */
static int take_version(struct wishes *w, const char *value)
{
    if (strcmp(value, "1") != 0 && strcmp(value, "2") != 0)
        return err_origin(-EINVAL, "%.80s: expected 1 or 2", value);
    w->jail.cgroup_version = (unsigned)(value[0] - '0');
    return 0;
}

static int take(void *ctx, int option, const char *value)
{
    struct wishes *w = ctx;
    const char *name;
    int r;

    switch (option) {
    case 'j':
        name = "--jail";
        r = sandbox_jail_set_user(&w->jail, value);
        break;
    case 'J':
        name = "--jailer";
        r = sandbox_jail_set_jailer(&w->jail, value);
        break;
    case 'N':
        name = "--netns";
        r = sandbox_jail_set_netns(&w->jail, value);
        break;
    case 'C':
        name = "--cgroup";
        r = sandbox_jail_add_cgroup(&w->jail, value);
        break;
    case 'V':
        name = "--cgroup-version";
        r = take_version(w, value);
        break;
    default:
        return sandbox_many_take(&w->many, option, value);
    }
    if (option != 'j')
        w->needs_jail = name;
    return r < 0 ? cli_usage_error(VERB, "%s %s", name, err_text()) : CLI_OK;
}

static int check(const struct wishes *w)
{
    if (w->needs_jail && !w->jail.given)
        return cli_usage_error(VERB, "%s is about a jail, and --jail is missing", w->needs_jail);
    return sandbox_many_check(&w->many);
}

static int run_all(const char *store, const char *template_name, struct sandbox_many *m)
{
    int status = CLI_OK;

    for (unsigned i = 0; i < m->count; i++) {
        _cleanup_(sandbox_closep) struct sandbox *s = NULL;
        char name[SANDBOX_NAME_MAX + 1];
        uint64_t since_ns = clock_now_ns();

        m->wishes.name = sandbox_many_name(m, i, name);
        if (sandbox_run(&s, store, template_name, &m->wishes) < 0 ||
            sandbox_tell_running(TAKE(s), since_ns, m->wait ? m->wishes.deadline_ms : 0) < 0)
            status = cli_error(VERB, "%s", err_text());
    }
    return cli_flush(VERB, status);
}

/* run() - the options were taken */
static int run(struct wishes *w, const char *store, int argc, char **argv)
{
    int status;

    if (optind + 1 != argc)
        return cli_usage_error(VERB, "expected the name of one template");
    status = check(w);
    return status == CLI_OK ? run_all(store, argv[optind], &w->many) : status;
}

int cli_run(int argc, char **argv)
{
    static const struct option options[] = {
        {"jail", required_argument, NULL, 'j'},
        {"jailer", required_argument, NULL, 'J'},
        {"netns", required_argument, NULL, 'N'},
        {"cgroup", required_argument, NULL, 'C'},
        {"cgroup-version", required_argument, NULL, 'V'},
        SANDBOX_MANY_OPTIONS,
        SANDBOX_OPTIONS,
    };
    struct wishes w = {.many = {.verb = VERB, .count = 1, .wishes = SANDBOX_WISHES_DEFAULT}};
    struct sandbox_verb v = {
        .name = VERB, .help = help, .shorts = "h", .options = options, .take = take, .ctx = &w};
    int status;

    w.many.wishes.jail = &w.jail;
    if (sandbox_parse(&v, argc, argv, &status))
        status = run(&w, v.store, argc, argv);
    sandbox_jail_deinit(&w.jail);
    return status;
}
