/* SPDX-License-Identifier: Apache-2.0 */
/* run.c - `thaw run`: sandboxes of a template */
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
    "serve has it\n" SANDBOX_HELP;

static int take(void *ctx, int option, const char *value)
{
    return sandbox_many_take(ctx, option, value);
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

int cli_run(int argc, char **argv)
{
    static const struct option options[] = {
        SANDBOX_MANY_OPTIONS,
        SANDBOX_OPTIONS,
    };
    struct sandbox_many m = {.verb = VERB, .count = 1, .wishes = SANDBOX_WISHES_DEFAULT};
    struct sandbox_verb v = {
        .name = VERB, .help = help, .shorts = "h", .options = options, .take = take, .ctx = &m};
    int status;

    if (!sandbox_parse(&v, argc, argv, &status))
        return status;
    if (optind + 1 != argc)
        return cli_usage_error(VERB, "expected the name of one template");
    status = sandbox_many_check(&m);
    return status == CLI_OK ? run_all(v.store, argv[optind], &m) : status;
}
