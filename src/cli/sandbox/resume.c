/* SPDX-License-Identifier: Apache-2.0 */
/* resume.c - `thaw resume`: sandboxes go on where they were paused */
#include "base/clock.h"
#include "base/err.h"
#include "cli/cli.h"
#include "cli/sandbox/sandbox.h"

#define VERB "resume"

static const char help[] =
    "usage: thaw resume NAME... [OPTIONS]\n"
    "\n"
    "Lets sandboxes go on where they were paused. One that has died goes back to its last pause, "
    "if\n"
    "it has one. When that fails it is still paused.\n"
    "\n"
    "      --wait          until their guests answer: their shells, their vsock ports\n"
    "      --timeout SECONDS  for each step of the start (60)\n" SANDBOX_HELP;

/* struct wish - how it is done */
struct wish {
    const char *store;
    unsigned deadline_ms;
    bool wait;
};

static int take(void *ctx, int option, const char *value)
{
    struct wish *w = ctx;

    if (option == 't')
        return sandbox_parse_seconds(VERB, "--timeout", value, &w->deadline_ms);
    w->wait = true;
    return CLI_OK;
}

static int resume_one(const struct wish *w, const char *name)
{
    _cleanup_(sandbox_closep) struct sandbox *s = NULL;
    uint64_t since_ns = clock_now_ns();
    int r = sandbox_open(&s, w->store, name, SANDBOX_RECONCILED, SANDBOX_LOCK_MS);

    if (r == 0)
        r = sandbox_resume(s, w->deadline_ms);
    return r == 0 ? sandbox_tell_running(TAKE(s), since_ns, w->wait ? w->deadline_ms : 0) : r;
}

int cli_resume(int argc, char **argv)
{
    static const struct option options[] = {
        {"timeout", required_argument, NULL, 't'},
        {"wait", no_argument, NULL, 'w'},
        SANDBOX_OPTIONS,
    };
    struct wish w = {.deadline_ms = SANDBOX_DEADLINE_MS};
    struct sandbox_verb v = {
        .name = VERB, .help = help, .shorts = "h", .options = options, .take = take, .ctx = &w};
    int status;

    if (!sandbox_parse(&v, argc, argv, &status))
        return status;
    if (optind == argc)
        return cli_usage_error(VERB, "expected the name of a sandbox");
    w.store = v.store;
    for (int i = optind; i < argc; i++) {
        if (resume_one(&w, argv[i]) < 0)
            status = cli_error(VERB, "%s", err_text());
    }
    return cli_flush(VERB, status);
}
