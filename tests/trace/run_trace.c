/* SPDX-License-Identifier: Apache-2.0 */

/*
 * run_trace.c - the engine's rules as stories: events in, effects out, on a virtual clock
 *
 *     run_trace FOLDER|FILE...           each trace must hold; TAP on stdout, one test a file
 *     run_trace --wrong FOLDER|FILE...   each must fail with what its first line says: "# fails with: TEXT"
 *
 * A trace begins with what there is, then tells what happens, a line at a time:
 *
 *     pages N | regions FROM..TO[@IMAGE] ...    guest memory; pages of the address space and of the image, TO excluded
 *     page 4K|2M, around N, track               page size, fault-around window in pages, write tracking
 *     plan P..P ..., slice N                    what is installed ahead, in this order; up to N pages at once
 *
 *     @US EVENT [> EFFECT]        at this time (microseconds) this happens, and the engine wants that (nothing without >)
 *       fault P, write P, wpfault P             a message about a missing or write-protected page was read
 *       remove P, remove P..P, remove 0xOFF+0xLEN
 *       located zero|memory|elsewhere|slow|failed [P..P]     answers the LOCATE before it; all that was asked about;
 *                                               slow: elsewhere, but it can be copied from there
 *       done [N], again [N], exists [N], unsure [N], unmapped [N], nomem [N], source [N], gone, refused     outcome, N pages done
 *       fetched P..P ok|failed
 *       tick
 *       ahead                                   nothing else is to be done; a fetch for the plan needs no answer
 *     EFFECT: locate|copy|zero|fetch P..P for P, unprotect P, wake P, each with the flags that it carries of
 *             write, arm, unprotect, ahead; or stop REASON
 *
 *     state P..P STATE, waiting P yes|no, deadline US|now|never, counter NAME N      what must hold here
 *     passed N                                  how many pages of the plan are behind the walk
 *     restart                                   another pager takes over the block, and the plan from its beginning
 *
 * P is a page number such as p7, through all regions without gaps; P..P includes both ends. # begins a comment. Between
 * events, engine_check.h must hold; an effect without its answer is a mistake in the trace.
 */

#include <dirent.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "../unit/engine_check.h"
#include "../unit/engine_rig.h"

#define LINE_BYTES 512
#define MAX_WORDS  24
#define MAX_TRACES 1000
#define MAX_RUNS   16
#define WATCHDOG_S 20u
#define FAILS_WITH "# fails with: "

struct trace {
    const char *path;
    unsigned line;
    struct rig_spec spec;
    struct prefetch_run plan[MAX_RUNS];
    unsigned n_runs;
    struct rig rig;
    bool built;
    uint64_t now_us;
    bool asked; /* fx is an effect that wants an answer */
    struct effect fx;
    char expected_failure[LINE_BYTES];
};

/* ---- failure ------------------------------------------------------------------------------------------------------ */

/* fail() - the trace does not hold: say so and end this process. Does not return */
static void fail(const struct trace *t, const char *fmt, ...) PRINTF_LIKE(2, 3)
    __attribute__((noreturn));

static void fail(const struct trace *t, const char *fmt, ...)
{
    char text[2 * LINE_BYTES];
    va_list args;
    bool as_it_should;

    va_start(args, fmt);
    (void)vsnprintf(text, sizeof(text), fmt, args);
    va_end(args);
    as_it_should = t->expected_failure[0] != '\0' && strstr(text, t->expected_failure);
    printf("# %s:%u: %s\n", t->path, t->line, text);
    exit(as_it_should ? 0 : 1);
}

/* ---- words -------------------------------------------------------------------------------------------------------- */

static uint64_t number(const struct trace *t, const char *word)
{
    char *end = NULL;
    uint64_t v = strtoull(word, &end, 0);

    if (end == word || *end != '\0')
        fail(t, "'%s' is no number", word);
    return v;
}

/* parse_pages() - p7 or p0..p15 (inclusive) as [first, end) of @n_pages */
static void parse_pages(const struct trace *t, const char *word, pgno_t n_pages, pgno_t *first,
                        pgno_t *end)
{
    int n = 0;
    uint64_t last;

    if (sscanf(word, "p%" SCNu64 "..p%" SCNu64 "%n", first, &last, &n) != 2) {
        n = 0;
        if (sscanf(word, "p%" SCNu64 "%n", first, &n) != 1)
            fail(t, "'%s' is no page", word);
        last = *first;
    }
    if (word[n] != '\0' || last < *first || last >= n_pages)
        fail(t, "'%s' is no page of this guest", word);
    *end = last + 1;
}

static void parse_run(const struct trace *t, const char *word, pgno_t *first, pgno_t *end)
{
    parse_pages(t, word, t->rig.block.pages.n_pages, first, end);
}

static const char *run_text(pgno_t first, pgno_t end)
{
    static char text[64];

    if (end - first == 1)
        (void)snprintf(text, sizeof(text), "p%" PRIu64, first);
    else
        (void)snprintf(text, sizeof(text), "p%" PRIu64 "..p%" PRIu64, first, end - 1);
    return text;
}

static const char *effect_text(const struct effect *fx)
{
    static const char *const names[] = {
        [EFFECT_LOCATE] = "locate", [EFFECT_FETCH] = "fetch",         [EFFECT_COPY] = "copy",
        [EFFECT_ZERO] = "zero",     [EFFECT_UNPROTECT] = "unprotect", [EFFECT_WAKE] = "wake",
        [EFFECT_STOP] = "stop",
    };
    static char text[160];
    char page[32] = "";

    if (fx->kind == EFFECT_STOP) {
        (void)snprintf(text, sizeof(text), "stop %s", stop_reason_name(fx->stop));
        return text;
    }
    if (fx->end - fx->first > 1 && !fx->ahead)
        (void)snprintf(page, sizeof(page), " for p%" PRIu64, fx->page);
    (void)snprintf(text, sizeof(text), "%s %s%s%s%s%s%s", names[fx->kind],
                   run_text(fx->first, fx->end), page, fx->write ? " write" : "",
                   fx->arm ? " arm" : "", fx->unprotect ? " unprotect" : "",
                   fx->ahead ? " ahead" : "");
    return text;
}

/* ---- what there is ------------------------------------------------------------------------------------------------ */

static void add_region(struct trace *t, const char *word)
{
    struct rig_region *r = &t->spec.regions[t->spec.n_regions++];
    int n = 0;

    r->image = RIG_IMAGE_SAME;
    if (sscanf(word, "%" SCNu64 "..%" SCNu64 "%n@%" SCNu64 "%n", &r->from, &r->to, &n, &r->image,
               &n) < 2 ||
        word[n] != '\0')
        fail(t, "'%s' is no region FROM..TO[@IMAGE]", word);
    if (t->spec.n_regions == RIG_MAX_REGIONS)
        fail(t, "too many regions");
}

/* add_plan() - runs of the plan; that they are pages of this guest is looked at when there is one */
static void add_plan(struct trace *t, char **words, unsigned n)
{
    for (unsigned i = 1; i < n; i++) {
        struct prefetch_run *run = &t->plan[t->n_runs++];

        if (t->n_runs > MAX_RUNS)
            fail(t, "too many runs");
        parse_pages(t, words[i], UINT64_MAX, &run->first, &run->end);
    }
}

/* take_header() - a line about what there is. Return: false if it is of another kind */
static bool take_header(struct trace *t, char **words, unsigned n)
{
    if (strcmp(words[0], "regions") == 0) {
        for (unsigned i = 1; i < n; i++)
            add_region(t, words[i]);
    } else if (strcmp(words[0], "track") == 0) {
        t->spec.config.track = true;
    } else if (n == 2 && strcmp(words[0], "pages") == 0) {
        t->spec.regions[t->spec.n_regions++] =
            (struct rig_region){.to = number(t, words[1]), .image = RIG_IMAGE_SAME};
    } else if (n == 2 && strcmp(words[0], "page") == 0) {
        t->spec.page_shift = strcmp(words[1], "2M") == 0 ? 21 : 12;
    } else if (n == 2 && strcmp(words[0], "around") == 0) {
        t->spec.config.around_pages = number(t, words[1]);
    } else if (strcmp(words[0], "plan") == 0) {
        add_plan(t, words, n);
    } else if (n == 2 && strcmp(words[0], "slice") == 0) {
        t->spec.config.ahead_pages = number(t, words[1]);
    } else {
        return false;
    }
    if (t->built)
        fail(t, "what there is must be said first");
    return true;
}

static void build(struct trace *t)
{
    if (t->built)
        return;
    t->spec.config.zero_runs = t->spec.page_shift == 12 && !t->spec.config.track;
    if (t->spec.n_regions == 0 || rig_init(&t->rig, &t->spec) != 0)
        fail(t, "no guest memory, or regions that overlap");
    for (unsigned i = 0; i < t->n_runs; i++) {
        if (t->plan[i].end > t->rig.block.pages.n_pages)
            fail(t, "the plan has pages that the guest has not");
    }
    prefetch_init(&t->rig.engine.ahead, t->plan, t->n_runs);
    t->built = true;
}

/* ---- events ------------------------------------------------------------------------------------------------------- */

static void parse_remove(struct trace *t, const char *word, struct event *ev)
{
    uint64_t off;
    uint64_t len;
    pgno_t first;
    pgno_t end;

    ev->kind = EVENT_REMOVE;
    if (sscanf(word, "0x%" SCNx64 "+0x%" SCNx64, &off, &len) == 2) {
        ev->remove.start = RIG_HVA + off;
        ev->remove.end = ev->remove.start + len;
        return;
    }
    parse_run(t, word, &first, &end);
    ev->remove.start = rig_hva(&t->rig, first);
    ev->remove.end = rig_hva(&t->rig, end - 1) + geom_page_bytes(&t->rig.block.geom);
}

static void parse_located(struct trace *t, char **words, unsigned n, struct event *ev)
{
    static const char *const names[] = {"zero", "memory", "elsewhere", "failed"};

    ev->located.slow = n >= 2 && strcmp(words[1], "slow") == 0;
    if (ev->located.slow)
        words[1] = (char *)names[LOCATED_ELSEWHERE];
    ev->kind = EVENT_LOCATED;
    ev->located.asked = t->fx;
    ev->located.first = t->fx.first;
    ev->located.end = t->fx.end;
    if (n < 2 || !t->asked || t->fx.kind != EFFECT_LOCATE)
        fail(t, "nothing was to be located, or it is not said where it is");
    if (n > 2)
        parse_run(t, words[2], &ev->located.first, &ev->located.end);
    for (unsigned i = 0; i < ARRAY_LEN(names); i++) {
        if (strcmp(words[1], names[i]) == 0) {
            ev->located.where = (enum located)i;
            return;
        }
    }
    fail(t, "'%s' is no place", words[1]);
}

/* parse_outcome() - Return: false if the word is no outcome */
static bool parse_outcome(struct trace *t, char **words, unsigned n, struct event *ev)
{
    for (unsigned i = OUTCOME_DONE; i <= OUTCOME_REFUSED; i++) {
        if (strcmp(words[0], outcome_name((enum outcome)i)) != 0)
            continue;
        if (!t->asked || t->fx.kind == EFFECT_LOCATE)
            fail(t, "nothing was to be done");
        ev->kind = EVENT_DONE;
        ev->done.asked = t->fx;
        ev->done.outcome = (enum outcome)i;
        if (n > 1)
            ev->done.pages_done = number(t, words[1]);
        else if (i == OUTCOME_DONE)
            ev->done.pages_done = t->fx.end - t->fx.first;
        return true;
    }
    return false;
}

static void parse_fault(struct trace *t, char **words, unsigned n, struct event *ev)
{
    pgno_t p;
    pgno_t end;

    ev->kind = strcmp(words[0], "wpfault") == 0 ? EVENT_WP_FAULT : EVENT_FAULT;
    ev->fault.write = strcmp(words[0], "fault") != 0;
    if (n != 2)
        fail(t, "a fault of which page?");
    if (words[1][0] == 'p') {
        parse_run(t, words[1], &p, &end);
        ev->fault.addr = rig_hva(&t->rig, p);
    } else {
        ev->fault.addr = RIG_HVA + number(t, words[1]);
    }
}

static struct event parse_event(struct trace *t, char **words, unsigned n)
{
    struct event ev = {.kind = EVENT_TICK, .time_ns = t->now_us * NS_PER_US};
    const char *what = words[0];

    if (strcmp(what, "located") == 0) {
        parse_located(t, words, n, &ev);
        return ev;
    }
    if (parse_outcome(t, words, n, &ev))
        return ev;
    if (t->asked)
        fail(t, "'%s' has no answer", effect_text(&t->fx));
    if (strcmp(what, "fault") == 0 || strcmp(what, "write") == 0 || strcmp(what, "wpfault") == 0) {
        parse_fault(t, words, n, &ev);
    } else if (strcmp(what, "remove") == 0 && n == 2) {
        parse_remove(t, words[1], &ev);
    } else if (strcmp(what, "fetched") == 0 && n == 3) {
        ev.kind = EVENT_FETCHED;
        parse_run(t, words[1], &ev.fetched.first, &ev.fetched.end);
        ev.fetched.ok = strcmp(words[2], "ok") == 0;
    } else if (strcmp(what, "ahead") == 0) {
        ev.kind = EVENT_AHEAD;
    } else if (strcmp(what, "tick") != 0) {
        fail(t, "'%s' is no event", what);
    }
    return ev;
}

/* join() - words with one blank between them */
static void join(char *out, size_t len, char **words, unsigned n)
{
    size_t at = 0;

    out[0] = '\0';
    for (unsigned i = 0; i < n && at < len; i++)
        at += (size_t)snprintf(out + at, len - at, "%s%s", i > 0 ? " " : "", words[i]);
}

static void take_event(struct trace *t, char **words, unsigned n)
{
    struct effect fx[ENGINE_FX_MAX];
    char expected[LINE_BYTES];
    unsigned arrow = 0;
    struct event ev;
    uint64_t now_us = number(t, words[0] + 1);
    const char *got = "nothing";

    if (now_us < t->now_us)
        fail(t, "time goes back");
    t->now_us = now_us;
    while (arrow < n && strcmp(words[arrow], ">") != 0)
        arrow++;
    if (arrow < 2)
        fail(t, "no event");
    ev = parse_event(t, words + 1, arrow - 1);
    join(expected, sizeof(expected), words + arrow + 1, arrow < n ? n - arrow - 1 : 0);
    t->asked = false;
    if (engine_step(&t->rig.engine, &ev, fx) > 0) {
        t->fx = fx[0];
        t->asked = fx[0].kind != EFFECT_FETCH && fx[0].kind != EFFECT_STOP;
        got = effect_text(&t->fx);
    }
    if (strcmp(expected[0] != '\0' ? expected : "nothing", got) != 0)
        fail(t, "expected '%s', got '%s'", expected[0] != '\0' ? expected : "nothing", got);
    if (!t->asked && strncmp(got, "stop", 4) != 0 && engine_check(&t->rig.engine, ev.time_ns))
        fail(t, "%s", engine_check(&t->rig.engine, ev.time_ns));
}

/* ---- what must hold ----------------------------------------------------------------------------------------------- */

static void check_state(const struct trace *t, const char *pages, const char *name)
{
    pgno_t first;
    pgno_t end;

    parse_run(t, pages, &first, &end);
    for (pgno_t p = first; p < end; p++) {
        const char *got = page_state_names[pagetab_get(&t->rig.block.pages, p)];

        if (strcmp(got, name) != 0)
            fail(t, "expected p%" PRIu64 " %s, got %s", p, name, got);
    }
}

static void check_waiting(const struct trace *t, const char *pages, const char *answer)
{
    pgno_t first;
    pgno_t end;

    parse_run(t, pages, &first, &end);
    for (pgno_t p = first; p < end; p++) {
        bool waits =
            bitset_has(&t->rig.block.waiting, p) || bitset_has(&t->rig.block.waiting_wp, p);

        if (strcmp(answer, waits ? "yes" : "no") != 0)
            fail(t, "expected waiting p%" PRIu64 " %s, got %s", p, answer, waits ? "yes" : "no");
    }
}

static void check_deadline(const struct trace *t, const char *expected)
{
    uint64_t deadline_ns = engine_deadline_ns(&t->rig.engine);
    char got[32] = "never";

    if (deadline_ns <= t->now_us * NS_PER_US)
        (void)snprintf(got, sizeof(got), "now");
    else if (deadline_ns != ENGINE_NEVER)
        (void)snprintf(got, sizeof(got), "%" PRIu64, (uint64_t)(deadline_ns / NS_PER_US));
    if (strcmp(got, expected) != 0)
        fail(t, "expected deadline %s, got %s", expected, got);
}

static void check_counter(const struct trace *t, const char *name, uint64_t expected)
{
    static const char *const names[] = {
#define COUNTER(name, unit, meaning) #name,
#include "core/counters.def"
    };
    const uint64_t *values = (const uint64_t *)&t->rig.block.header->counters;

    for (size_t i = 0; i < ARRAY_LEN(names); i++) {
        if (strcmp(names[i], name) != 0)
            continue;
        if (values[i] != expected)
            fail(t, "expected %s %" PRIu64 ", got %" PRIu64, name, expected, values[i]);
        return;
    }
    fail(t, "'%s' is no counter", name);
}

static void check_passed(const struct trace *t, uint64_t expected)
{
    if (t->rig.engine.ahead.n_passed != expected)
        fail(t, "expected passed %" PRIu64 ", got %" PRIu64, expected,
             t->rig.engine.ahead.n_passed);
}

static void take_check(struct trace *t, char **words, unsigned n)
{
    if (strcmp(words[0], "restart") == 0) {
        rig_restart(&t->rig);
        prefetch_init(&t->rig.engine.ahead, t->plan, t->n_runs);
        t->asked = false;
    } else if (strcmp(words[0], "state") == 0 && n == 3) {
        check_state(t, words[1], words[2]);
    } else if (strcmp(words[0], "waiting") == 0 && n == 3) {
        check_waiting(t, words[1], words[2]);
    } else if (strcmp(words[0], "deadline") == 0 && n == 2) {
        check_deadline(t, words[1]);
    } else if (strcmp(words[0], "counter") == 0 && n == 3) {
        check_counter(t, words[1], number(t, words[2]));
    } else if (strcmp(words[0], "passed") == 0 && n == 2) {
        check_passed(t, number(t, words[1]));
    } else {
        fail(t, "'%s' is not understood", words[0]);
    }
}

/* ---- files -------------------------------------------------------------------------------------------------------- */

static void take_line(struct trace *t, char *line)
{
    char *words[MAX_WORDS];
    char *rest = line;
    unsigned n = 0;

    line[strcspn(line, "#\n")] = '\0';
    for (char *w; n < MAX_WORDS && (w = strtok_r(rest, " \t", &rest)) != NULL;)
        words[n++] = w;
    if (n == 0 || take_header(t, words, n))
        return;
    build(t);
    if (words[0][0] == '@')
        take_event(t, words, n);
    else
        take_check(t, words, n);
}

/* run_file() - in a child: ends it with status 0 if the file is as it should be */
static int run_file(const char *path, bool wrong)
{
    struct trace t = {.path = path, .spec = {.page_shift = 12, .config = {.around_pages = 1}}};
    char line[LINE_BYTES];
    FILE *f = fopen(path, "re");

    (void)alarm(WATCHDOG_S);
    if (!f)
        fail(&t, "cannot be opened");
    while (fgets(line, sizeof(line), f)) {
        if (++t.line == 1 && wrong && strncmp(line, FAILS_WITH, strlen(FAILS_WITH)) == 0) {
            line[strcspn(line, "\n")] = '\0';
            memcpy(t.expected_failure, line + strlen(FAILS_WITH),
                   sizeof(line) - strlen(FAILS_WITH));
        }
        take_line(&t, line);
    }
    (void)fclose(f);
    if (t.asked)
        fail(&t, "'%s' has no answer", effect_text(&t.fx));
    rig_deinit(&t.rig);
    return wrong ? 1 : 0;
}

static bool run_in_child(const char *path, bool wrong)
{
    int status = 0;
    pid_t child;

    (void)fflush(stdout);
    child = fork();
    if (child == 0)
        exit(run_file(path, wrong));
    while (child > 0 && waitpid(child, &status, 0) < 0)
        continue;
    if (WIFSIGNALED(status))
        printf("# %s: ended by signal %d\n", path, WTERMSIG(status));
    return child > 0 && WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

/* ---- all of them -------------------------------------------------------------------------------------------------- */

struct list {
    char *paths[MAX_TRACES];
    unsigned n;
};

static void add_path(struct list *l, const char *path)
{
    assert(l->n < MAX_TRACES);
    l->paths[l->n++] = strdup(path);
}

static int is_trace(const struct dirent *d)
{
    const char *end = strrchr(d->d_name, '.');

    return end && strcmp(end, ".trace") == 0;
}

static void add_all(struct list *l, const char *path)
{
    struct dirent **entries = NULL;
    int n = scandir(path, &entries, is_trace, alphasort);
    char file[4096];

    if (n < 0)
        add_path(l, path); /* not a folder */
    for (int i = 0; i < n; i++) {
        (void)snprintf(file, sizeof(file), "%s/%s", path, entries[i]->d_name);
        add_path(l, file);
        free(entries[i]);
    }
    free(entries);
}

int main(int argc, char **argv)
{
    static struct list list;
    bool wrong = argc > 1 && strcmp(argv[1], "--wrong") == 0;
    bool all = true;

    for (int i = wrong ? 2 : 1; i < argc; i++)
        add_all(&list, argv[i]);
    printf("1..%u\n", list.n);
    for (unsigned i = 0; i < list.n; i++) {
        const char *slash = strrchr(list.paths[i], '/');
        const char *name = slash ? slash + 1 : list.paths[i];
        bool ok = run_in_child(list.paths[i], wrong);

        printf("%s %u - %.*s\n", ok ? "ok" : "not ok", i + 1, (int)strcspn(name, "."), name);
        all = all && ok;
        free(list.paths[i]);
    }
    return all && list.n > 0 ? 0 : 1;
}
