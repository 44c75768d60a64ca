/* SPDX-License-Identifier: Apache-2.0 */
/*
 * ps.c - `thaw ps`: the sandboxes of a store
 *
 * A sandbox that cannot be looked at gets its line all the same, and a line on stderr that says why.
 */
#include <ctype.h>
#include <errno.h>
#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <string.h>

#include "base/clock.h"
#include "base/err.h"
#include "cli/cli.h"
#include "cli/image/image.h"
#include "cli/map/size_text.h"
#include "cli/sandbox/sandbox.h"
#include "node/sandbox_look.h"

#define VERB      "ps"
#define ANSWER_MS 500u /* for a VMM that is asked for its balloon */

static const char help[] = "usage: thaw ps [NAME...] [--json] [--store DIR]\n"
                           "\n"
                           "Lists sandboxes: their state, how often they were paused, the process "
                           "id of the VMM, what memory it\n"
                           "holds, and what its balloon reports.\n"
                           "\n"
                           "      --json          one JSON object a sandbox, a line each, with all "
                           "that is known\n" SANDBOX_HELP;

/* ---- a table -------------------------------------------------------------------------------------------------- */

static const char *age_text(uint64_t since_ms, char *buf, size_t len)
{
    uint64_t now_ms = clock_wall_ns() / NS_PER_MS;
    uint64_t s = now_ms > since_ms ? (now_ms - since_ms) / 1000 : 0;

    if (s < 120)
        (void)snprintf(buf, len, "%" PRIu64 " s", s);
    else if (s < 7200)
        (void)snprintf(buf, len, "%" PRIu64 " min", s / 60);
    else if (s < 172800)
        (void)snprintf(buf, len, "%" PRIu64 " h", s / 3600);
    else
        (void)snprintf(buf, len, "%" PRIu64 " days", s / 86400);
    return buf;
}

/* balloon_text() - what the guest has left, and what it was asked for: VMMs know one of the two, or both */
static const char *balloon_text(const struct sandbox_view *v, char *buf, size_t len)
{
    const struct vmm_balloon *b = &v->balloon;

    if (v->answer == SANDBOX_NOT_ASKED)
        return "-";
    if (v->answer == SANDBOX_NO_ANSWER)
        return "no answer";
    if (b->actual_mib == UINT64_MAX || b->target_mib == UINT64_MAX)
        (void)snprintf(buf, len, "%" PRIu64 " MiB",
                       b->actual_mib == UINT64_MAX ? b->target_mib : b->actual_mib);
    else
        (void)snprintf(buf, len, "%" PRIu64 "/%" PRIu64 " MiB", b->actual_mib, b->target_mib);
    return buf;
}

static const char *reporting_text(const struct sandbox_view *v)
{
    if (v->answer != SANDBOX_ANSWERED)
        return "-";
    return v->balloon.free_page_reporting ? "on" : "off";
}

static void print_head(void)
{
    (void)printf("%-24s %-20s %-9s %6s %8s %12s %12s %-9s %8s\n", "NAME", "TEMPLATE", "STATE",
                 "PAUSES", "PID", "MEMORY", "BALLOON", "REPORTING", "AGE");
}

static void print_line(const struct sandbox_view *v)
{
    const struct sandbox_record *r = &v->record;
    char pid[16] = "-";
    char balloon[48];
    char age[24];

    if (!v->has_record) {
        (void)printf("%-24s %-20s %-9s\n", v->name, "-", "broken");
        return;
    }
    if (v->vmm_pid > 0)
        (void)snprintf(pid, sizeof(pid), "%d", v->vmm_pid);
    (void)printf("%-24s %-20s %-9s %6u %8s %12s %12s %-9s %8s%s%s\n", v->name, r->template_name,
                 sandbox_state_name(r->state), r->generation, pid,
                 v->host_bytes == SANDBOX_UNKNOWN ? "-" : size_text(v->host_bytes),
                 balloon_text(v, balloon, sizeof(balloon)), reporting_text(v),
                 age_text(r->created_ms, age, sizeof(age)), r->end ? "  " : "",
                 r->end ? r->end : "");
}

/* ---- JSON ----------------------------------------------------------------------------------------------------- */

static void set_number(json_t *top, const char *key, uint64_t n)
{
    (void)json_object_set_new(top, key,
                              n == SANDBOX_UNKNOWN ? json_null() : json_integer((json_int_t)n));
}

static json_t *pages_json(const struct sandbox_view *v)
{
    json_t *pages = json_object();

    for (unsigned i = 0; i < N_PAGE_STATES; i++) {
        char name[24]; /* in small letters, as thaw serve has them in its statistics */

        (void)snprintf(name, sizeof(name), "%s", page_state_names[i]);
        for (char *c = name; *c != '\0'; c++)
            *c = (char)tolower((unsigned char)*c);
        (void)json_object_set_new(pages, name, json_integer((json_int_t)v->pages[i]));
    }
    return pages;
}

static json_t *balloon_json(const struct sandbox_view *v)
{
    json_t *b = json_object();

    set_number(b, "target_mib", v->balloon.target_mib);
    set_number(b, "actual_mib", v->balloon.actual_mib);
    (void)json_object_set_new(b, "free_page_reporting",
                              json_boolean(v->balloon.free_page_reporting));
    (void)json_object_set_new(b, "free_page_hinting", json_boolean(v->balloon.free_page_hinting));
    return b;
}

/* add_running() - what is known of its processes */
static void add_running(json_t *top, const struct sandbox_view *v)
{
    set_number(top, "vmm_pid", (uint64_t)v->vmm_pid);
    set_number(top, "pager_pid", (uint64_t)v->pager_pid);
    set_number(top, "host_bytes", v->host_bytes);
    if (v->page_bytes > 0) {
        set_number(top, "page_bytes", v->page_bytes);
        (void)json_object_set_new(top, "pages", pages_json(v));
    }
    if (v->vsock[0] != '\0')
        (void)json_object_set_new(top, "vsock", json_string(v->vsock));
    if (v->answer == SANDBOX_ANSWERED)
        (void)json_object_set_new(top, "balloon", balloon_json(v));
    else if (v->answer == SANDBOX_NO_ANSWER)
        (void)json_object_set_new(top, "balloon", json_null());
}

static int print_json(const struct sandbox_view *v)
{
    json_t *top = v->has_record ? sandbox_record_json(&v->record) : json_object();
    int r;

    if (!v->has_record) {
        (void)json_object_set_new(top, "name", json_string(v->name));
        (void)json_object_set_new(top, "state", json_string("broken"));
    }
    set_number(top, "memory_mib", v->memory_mib > 0 ? v->memory_mib : SANDBOX_UNKNOWN);
    if (v->vmm_pid > 0)
        add_running(top, v);
    if (v->trouble[0] != '\0')
        (void)json_object_set_new(top, "trouble", json_string(v->trouble));
    r = top ? json_dumpf(top, stdout, JSON_COMPACT) : -1;
    (void)putchar('\n');
    json_decref(top);
    return r < 0 ? cli_error(VERB, "cannot write JSON") : CLI_OK;
}

/* ---- all of them ---------------------------------------------------------------------------------------------- */

/* show() - @named: by the user: then one that is not there is an error */
static int show(const char *store, const char *name, bool named, bool json)
{
    struct sandbox_view v;
    int status = CLI_OK;
    int r = sandbox_look(&v, store, name, ANSWER_MS);

    if (r == -ENOENT && !named)
        return CLI_OK;
    if (r < 0)
        return cli_error(VERB, "%s", err_text());
    if (json)
        status = print_json(&v);
    else
        print_line(&v);
    if (v.trouble[0] != '\0') {
        (void)fflush(stdout);
        status = cli_error(VERB, "%s: %s", v.name, v.trouble);
    }
    sandbox_view_deinit(&v);
    return status;
}

static int show_all(const char *store, bool json)
{
    struct folder_list names;
    int status = image_store_named(VERB, store);

    if (status != CLI_OK)
        return status;
    if (sandbox_list(store, &names) < 0)
        return cli_error(VERB, "%s", err_text());
    if (!json && names.n > 0)
        print_head();
    for (size_t i = 0; i < names.n; i++)
        status |= show(store, names.names[i], false, json);
    folder_list_deinit(&names);
    return status;
}

static int take(void *ctx, int option, const char *value)
{
    bool *json = ctx;

    (void)option;
    (void)value;
    *json = true;
    return CLI_OK;
}

int cli_ps(int argc, char **argv)
{
    static const struct option options[] = {
        {"json", no_argument, NULL, 'j'},
        SANDBOX_OPTIONS,
    };
    bool json = false;
    struct sandbox_verb v = {
        .name = VERB, .help = help, .shorts = "h", .options = options, .take = take, .ctx = &json};
    int status;

    if (!sandbox_parse(&v, argc, argv, &status))
        return status;
    if (optind == argc)
        return cli_flush(VERB, show_all(v.store, json));
    if (!json)
        print_head();
    for (int i = optind; i < argc; i++)
        status |= show(v.store, argv[i], true, json);
    return cli_flush(VERB, status);
}
