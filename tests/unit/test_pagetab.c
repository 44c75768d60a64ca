/* SPDX-License-Identifier: Apache-2.0 */
#include "testing.h"

#include <string.h>
#include <sys/mman.h>

#include "core/pagetab.h"
#include "dies.h"

/* struct pair - a table and the byte-per-page model that it must agree with */
struct pair {
    struct pagetab table;
    uint8_t *model; /* enum page_state */
};

static struct pair pair_new(pgno_t n)
{
    struct pair p = {.model = calloc(n, 1)};
    uint64_t *words = calloc(1, pagetab_bytes(n));

    assert_non_null(p.model);
    assert_non_null(words);
    pagetab_init(&p.table, words, n);
    return p;
}

static void pair_free(struct pair *p)
{
    free(p->table.words);
    free(p->model);
}

static bool model_allows(const struct pair *p, enum page_event ev, pgno_t first, pgno_t end)
{
    for (pgno_t i = first; i < end; i++) {
        if (page_edges[ev][p->model[i]] == PAGE_NO_EDGE)
            return false;
    }
    return true;
}

static void step(struct pair *p, enum page_event ev, pgno_t first, pgno_t end)
{
    pagetab_step(&p->table, ev, first, end);
    for (pgno_t i = first; i < end; i++)
        p->model[i] = page_edges[ev][p->model[i]];
}

static void check_counts(const struct pair *p, pgno_t first, pgno_t end)
{
    uint64_t counts[N_PAGE_STATES];
    uint64_t expected[N_PAGE_STATES] = {0};

    for (pgno_t i = first; i < end; i++)
        expected[p->model[i]]++;
    memset(counts, 0xff, sizeof(counts));
    pagetab_count(&p->table, first, end, counts);
    assert_memory_equal(counts, expected, sizeof(counts));
}

static void check_run(const struct pair *p, pgno_t at, pgno_t lo, pgno_t hi)
{
    pgno_t first;
    pgno_t end;
    pgno_t f = at;
    pgno_t e = at + 1;

    while (f > lo && p->model[f - 1] == p->model[at])
        f--;
    while (e < hi && p->model[e] == p->model[at])
        e++;
    pagetab_run(&p->table, (enum page_state)p->model[at], at, lo, hi, &first, &end);
    assert_int_equal(first, f);
    assert_int_equal(end, e);
}

static void check_all(const struct pair *p)
{
    for (pgno_t i = 0; i < p->table.n_pages; i++)
        assert_int_equal(pagetab_get(&p->table, i), p->model[i]);
    check_counts(p, 0, p->table.n_pages);
}

static void all_zero_memory_is_a_table_of_absent_pages(void **state)
{
    struct pair p = pair_new(200);

    (void)state;
    assert_int_equal(pagetab_bytes(200) % 8, 0);
    assert_true(pagetab_bytes(64 * 1024) * 8 <= 3 * 64 * 1024);
    check_all(&p);
    pair_free(&p);
}

static void random_steps(struct rng *r, struct pair *p, unsigned n_steps)
{
    pgno_t n = p->table.n_pages;

    for (unsigned i = 0; i < n_steps; i++) {
        enum page_event ev = (enum page_event)rng_below(r, N_PAGE_EVENTS);
        pgno_t first = rng_below(r, n);
        pgno_t end = first + 1 + rng_below(r, min_u64(n - first, rng_below(r, 4) ? 20 : 500));
        pgno_t lo = first - rng_below(r, min_u64(first, 80) + 1);

        if (model_allows(p, ev, first, end))
            step(p, ev, first, end);
        check_run(p, first, lo, end);
        check_counts(p, lo, end);
    }
}

static void random_steps_agree_with_an_array_of_bytes(void **state)
{
    static const pgno_t sizes[] = {1, 2, 63, 64, 65, 128, 1000, 4097};
    struct rng r = rng_init("pagetab");

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(sizes); i++) {
        struct pair p = pair_new(sizes[i]);

        for (unsigned round = 0; round < 20; round++) {
            random_steps(&r, &p, 200);
            check_all(&p);
        }
        pair_free(&p);
    }
}

static void neighbours_of_a_range_are_left_alone(void **state)
{
    static const pgno_t bounds[] = {0, 1, 62, 63, 64, 65, 127, 128, 129, 191, 192, 250};

    (void)state;
    for (size_t a = 0; a < ARRAY_LEN(bounds); a++) {
        for (size_t b = a + 1; b < ARRAY_LEN(bounds); b++) {
            struct pair p = pair_new(251);

            step(&p, PAGE_EV_ZEROFILL, 0, 251);
            step(&p, PAGE_EV_REMOVE, bounds[a], bounds[b]);
            check_all(&p);
            pair_free(&p);
        }
    }
}

struct forbidden {
    struct pair pair;
    enum page_event ev;
};

static void step_forbidden(void *arg)
{
    struct forbidden *f = arg;

    pagetab_step(&f->pair.table, f->ev, 0, 100);
}

static void what_has_no_edge_is_asserted_wherever_in_the_range_it_is(void **state)
{
    (void)state;
    for (pgno_t odd = 0; odd < 100; odd += 33) {
        struct forbidden f = {.pair = pair_new(100), .ev = PAGE_EV_INSTALL};

        step(&f.pair, PAGE_EV_REMOVE, odd, odd + 1);
        assert_true(dies(step_forbidden, &f));
        f.ev = PAGE_EV_WRITTEN;
        assert_true(dies(step_forbidden, &f));
        f.ev = PAGE_EV_FOUND;
        assert_false(dies(step_forbidden, &f));
        pair_free(&f.pair);
    }
}

/*
 * A reader maps the table of a running pager and may see a state of which one bit is stored and another is not yet. It
 * must get a state that exists; and every page must be counted once.
 */
static void a_half_stored_state_reads_as_one_that_promises_nothing(void **state)
{
    struct pair p = pair_new(130);
    uint64_t counts[N_PAGE_STATES];

    (void)state;
    memset(p.table.words, 0xff, pagetab_bytes(130));
    for (pgno_t i = 0; i < 130; i++)
        assert_int_equal(pagetab_get(&p.table, i), PAGE_DIRTY);
    pagetab_count(&p.table, 0, 130, counts);
    assert_int_equal(counts[PAGE_DIRTY], 130);
    pagetab_step(&p.table, PAGE_EV_REMOVE, 0, 130);
    pagetab_count(&p.table, 0, 130, counts);
    assert_int_equal(counts[PAGE_REMOVED], 130);
    pair_free(&p);
}

static size_t resident_bytes(void *mem, size_t len)
{
    size_t n_pages = (len + 4095) / 4096;
    unsigned char *vec = malloc(n_pages);
    size_t resident = 0;

    assert_non_null(vec);
    assert_int_equal(mincore(mem, len, vec), 0);
    for (size_t i = 0; i < n_pages; i++)
        resident += vec[i] & 1;
    free(vec);
    return resident * 4096;
}

static void a_table_of_64_gib_costs_memory_only_where_something_happened(void **state)
{
    const pgno_t n = 64 * GIB / 4096;
    size_t len = align_up(pagetab_bytes(n), 4096);
    void *mem =
        mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    struct pagetab t;

    (void)state;
    assert_ptr_not_equal(mem, MAP_FAILED);
    assert_int_equal(len, 6 * MIB);
    (void)madvise(mem, len, MADV_NOHUGEPAGE);
    pagetab_init(&t, mem, n);
    pagetab_step(&t, PAGE_EV_INSTALL, 0, 16);
    pagetab_step(&t, PAGE_EV_REMOVE, n / 2, n / 2 + 512);
    pagetab_step(&t, PAGE_EV_ZEROFILL, n - 1, n);
    assert_int_equal(pagetab_get(&t, 15), PAGE_CLEAN);
    assert_int_equal(pagetab_get(&t, 16), PAGE_ABSENT);
    assert_int_equal(pagetab_get(&t, n / 2 + 511), PAGE_REMOVED);
    assert_int_equal(pagetab_get(&t, n - 1), PAGE_ZERO);
    assert_in_range(resident_bytes(mem, len), 4096, 4 * 4096);
    assert_int_equal(munmap(mem, len), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(all_zero_memory_is_a_table_of_absent_pages),
        cmocka_unit_test(random_steps_agree_with_an_array_of_bytes),
        cmocka_unit_test(neighbours_of_a_range_are_left_alone),
        cmocka_unit_test(what_has_no_edge_is_asserted_wherever_in_the_range_it_is),
        cmocka_unit_test(a_half_stored_state_reads_as_one_that_promises_nothing),
        cmocka_unit_test(a_table_of_64_gib_costs_memory_only_where_something_happened),
    };

    test_watchdog();
    return cmocka_run_group_tests_name("pagetab", tests, NULL, NULL);
}
