/* SPDX-License-Identifier: Apache-2.0 */
#include "cli/sandbox/sandbox.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/err.h"
#include "cli/cli.h"
#include "cli/image/image.h"
#include "node/answer.h"

#define SECONDS_MAX 3600u

static int take(struct sandbox_verb *v, int option, const char *value)
{
    if (option == 's') {
        v->store = value;
        return CLI_OK;
    }
    return v->take && option != '?' ? v->take(v->ctx, option, value) : CLI_USAGE;
}

bool sandbox_parse(struct sandbox_verb *v, int argc, char **argv, int *status)
{
    char program[32];
    int c;

    (void)snprintf(program, sizeof(program), "thaw %s", v->name);
    argv[0] = program; /* getopt says what is wrong, in its name */
    optind = 1;
    *status = CLI_OK;
    while (*status == CLI_OK && (c = getopt_long(argc, argv, v->shorts, v->options, NULL)) != -1) {
        if (c == 'h') {
            (void)fputs(v->help, stdout);
            return false;
        }
        *status = take(v, c, optarg);
    }
    v->store = image_store_path(v->store);
    return *status == CLI_OK;
}

int sandbox_each(const struct sandbox_verb *v, char *const *names, enum sandbox_how how,
                 int (*act)(void *ctx, struct sandbox *s), void *ctx)
{
    int status = CLI_OK;

    if (!*names)
        return cli_usage_error(v->name, "expected the name of a sandbox");
    for (; *names; names++) {
        _cleanup_(sandbox_closep) struct sandbox *s = NULL;
        int r = sandbox_open(&s, v->store, *names, how, SANDBOX_LOCK_MS);

        if (r == 0)
            r = act(ctx, s);
        if (r < 0)
            status = cli_error(v->name, "%s", err_text());
    }
    return status;
}

int sandbox_parse_seconds(const char *verb, const char *option, const char *text, unsigned *ms)
{
    uint64_t n;

    if (cli_parse_u64(text, SECONDS_MAX, &n) < 0 || n == 0)
        return cli_usage_error(verb, "%s %s: expected a number of seconds from 1 to %u", option,
                               text, SECONDS_MAX);
    *ms = (unsigned)n * 1000;
    return CLI_OK;
}

int sandbox_many_take(struct sandbox_many *m, int option, const char *value)
{
    uint64_t n;

    switch (option) {
    case 'n':
        m->name = value;
        return CLI_OK;
    case 'w':
        m->wait = true;
        return CLI_OK;
    case 'S':
        m->wishes.state_dir = value;
        return CLI_OK;
    case 't':
        return sandbox_parse_seconds(m->verb, "--timeout", value, &m->wishes.deadline_ms);
    default:
        if (cli_parse_u64(value, SANDBOX_COUNT_MAX, &n) < 0 || n == 0)
            return cli_usage_error(m->verb, "--count %s: expected a number from 1 to %u", value,
                                   SANDBOX_COUNT_MAX);
        m->count = (unsigned)n;
        return CLI_OK;
    }
}

const char *sandbox_many_name(const struct sandbox_many *m, unsigned i,
                              char buf[SANDBOX_NAME_MAX + 1])
{
    if (!m->name)
        return NULL;
    if (m->count == 1)
        (void)snprintf(buf, SANDBOX_NAME_MAX + 1, "%s", m->name);
    else
        (void)snprintf(buf, SANDBOX_NAME_MAX + 1, "%s-%u", m->name, i + 1);
    return buf;
}

int sandbox_many_check(const struct sandbox_many *m)
{
    if (m->name && sandbox_name_check(m->name) < 0)
        return cli_usage_error(m->verb, "%s", err_text());
    if (m->name && m->count > 1 && strlen(m->name) + 5 > SANDBOX_NAME_MAX) /* "-1000" */
        return cli_usage_error(m->verb, "--name %s is too long for names such as %s-1", m->name,
                               m->name);
    return CLI_OK;
}

/* wait_answer() - @s: (take): whoever wants to do something with it meanwhile can */
static int wait_answer(struct sandbox *s, unsigned wait_ms)
{
    const struct console_wait wait = {.timeout_ms = wait_ms};
    const struct answer_ways ways = answer_ways(&s->origin);
    _cleanup_(vmm_freep) struct vmm *vmm = NULL;
    int r = 0;

    if (!answer_can(ways))
        r = err_origin(-EINVAL,
                       "the sandbox %s runs, but has neither a shell nor a vsock port that could "
                       "answer",
                       s->record.name);
    if (r == 0)
        r = sandbox_vm(s, &vmm);
    (void)sandbox_close(s);
    return r == 0 ? answer_wait(ways, vmm, &wait) : r;
}

int sandbox_tell_running(struct sandbox *s, uint64_t since_ns, unsigned wait_ms)
{
    char name[SANDBOX_NAME_MAX + 1];
    int r = 0;

    (void)snprintf(name, sizeof(name), "%s", s->record.name);
    if (wait_ms > 0)
        r = wait_answer(s, wait_ms);
    else
        (void)sandbox_close(s);
    (void)printf("%s\n", name); /* also when it does not answer: it is there */
    (void)fflush(stdout);
    if (r == 0 && isatty(STDERR_FILENO))
        (void)fprintf(stderr, "%s %s after %.0f ms\n", name, wait_ms > 0 ? "answers" : "runs",
                      (double)(clock_now_ns() - since_ns) / (double)NS_PER_MS);
    return r;
}
