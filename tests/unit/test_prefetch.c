/* SPDX-License-Identifier: Apache-2.0 */
/* test_prefetch.c - the walk through a plan */
#include "engine_rig.h"
#include "testing.h"

#include "core/prefetch.h"
#include "dies.h"

#define PAGES 300u

static const struct rig_spec pages_only = {
    .page_shift = 12,
    .n_regions = 1,
    .regions = {{0, PAGES, RIG_IMAGE_SAME}},
    .config = {.around_pages = 1},
};

static struct pagetab *table(struct rig *r)
{
    assert_int_equal(rig_init(r, &pages_only), 0);
    return &r->block.pages;
}

static void assert_slice(struct prefetch *pf, const struct pagetab *pt, pgno_t most, pgno_t first,
                         pgno_t end)
{
    struct prefetch_run slice = {0};

    assert_true(prefetch_peek(pf, pt, most, &slice));
    assert_int_equal(slice.first, first);
    assert_int_equal(slice.end, end);
}

static void assert_over(struct prefetch *pf, const struct pagetab *pt)
{
    struct prefetch_run slice;

    assert_false(prefetch_peek(pf, pt, 8, &slice));
    assert_true(prefetch_is_over(pf));
    assert_int_equal(pf->n_passed, pf->n_pages);
}

/* ---- by hand ---------------------------------------------------------------------------------------------------- */

static void a_slice_is_no_longer_than_asked_and_within_one_run(void **state)
{
    static const struct prefetch_run runs[] = {{10, 30}, {30, 33}};
    struct prefetch pf;
    struct rig r;
    struct pagetab *pt = table(&r);

    (void)state;
    prefetch_init(&pf, runs, ARRAY_LEN(runs));
    assert_int_equal(pf.n_pages, 23);
    assert_slice(&pf, pt, 16, 10, 26);
    prefetch_pass(&pf, 26);
    assert_slice(&pf, pt, 16, 26, 30);
    prefetch_pass(&pf, 30);
    assert_slice(&pf, pt, 1, 30, 31);
    prefetch_pass(&pf, 33);
    assert_over(&pf, pt);
    rig_deinit(&r);
}

static void a_walk_stays_where_it_is_until_it_is_told_to_pass(void **state)
{
    static const struct prefetch_run runs[] = {{10, 30}};
    struct prefetch pf;
    struct rig r;
    struct pagetab *pt = table(&r);

    (void)state;
    prefetch_init(&pf, runs, ARRAY_LEN(runs));
    for (unsigned i = 0; i < 3; i++)
        assert_slice(&pf, pt, 8, 10, 18);
    assert_int_equal(pf.n_passed, 0);
    pagetab_step(pt, PAGE_EV_REMOVE, 12, 13); /* meanwhile */
    assert_slice(&pf, pt, 8, 10, 12);
    pagetab_step(pt, PAGE_EV_INSTALL, 10, 12);
    assert_slice(&pf, pt, 8, 13, 21);
    assert_int_equal(pf.n_passed, 3);
    rig_deinit(&r);
}

static void what_is_not_absent_is_passed_over(void **state)
{
    static const struct prefetch_run runs[] = {{0, 20}, {20, 40}, {40, 60}};
    struct prefetch pf;
    struct rig r;
    struct pagetab *pt = table(&r);

    (void)state;
    pagetab_step(pt, PAGE_EV_INSTALL, 0, 5);
    pagetab_step(pt, PAGE_EV_REMOVE, 5, 10);
    pagetab_step(pt, PAGE_EV_ZEROFILL, 10, 15);
    pagetab_step(pt, PAGE_EV_INSTALL_WRITE, 15, 20);
    pagetab_step(pt, PAGE_EV_REMOVE, 20, 40);
    pagetab_step(pt, PAGE_EV_REMOVE, 59, 60);
    prefetch_init(&pf, runs, ARRAY_LEN(runs));
    assert_slice(&pf, pt, 100, 40, 59);
    assert_int_equal(pf.n_passed, 40);
    prefetch_pass(&pf, 59);
    assert_false(prefetch_is_over(&pf)); /* nobody has looked at the last page */
    assert_over(&pf, pt);
    rig_deinit(&r);
}

static void a_plan_without_pages_is_over_at_once(void **state)
{
    static const struct prefetch_run runs[] = {{7, 7}, {0, 0}, {PAGES, PAGES}};
    static const struct prefetch_run one[] = {{7, 7}, {9, 9}, {3, 4}, {9, 9}};
    struct prefetch pf;
    struct rig r;
    struct pagetab *pt = table(&r);

    (void)state;
    prefetch_init(&pf, NULL, 0);
    assert_over(&pf, pt);
    prefetch_init(&pf, runs, ARRAY_LEN(runs));
    assert_true(prefetch_is_over(&pf));
    assert_over(&pf, pt);
    prefetch_init(&pf, one, ARRAY_LEN(one));
    assert_slice(&pf, pt, 8, 3, 4);
    prefetch_pass(&pf, 4);
    assert_true(prefetch_is_over(&pf));
    rig_deinit(&r);
}

static void a_page_that_is_in_two_runs_comes_once_if_it_was_installed(void **state)
{
    static const struct prefetch_run runs[] = {{5, 9}, {3, 12}};
    struct prefetch pf;
    struct rig r;
    struct pagetab *pt = table(&r);

    (void)state;
    prefetch_init(&pf, runs, ARRAY_LEN(runs));
    assert_slice(&pf, pt, 8, 5, 9);
    pagetab_step(pt, PAGE_EV_INSTALL, 5, 9);
    assert_slice(&pf, pt, 8, 3, 5);
    pagetab_step(pt, PAGE_EV_INSTALL, 3, 5);
    assert_slice(&pf, pt, 8, 9, 12);
    rig_deinit(&r);
}

static void pass_backwards(void *arg)
{
    prefetch_pass(arg, 9);
}

static void pass_beyond(void *arg)
{
    prefetch_pass(arg, 21);
}

static void passing_backwards_or_out_of_the_run_is_asserted(void **state)
{
    static const struct prefetch_run runs[] = {{10, 20}, {20, 30}};
    struct prefetch pf;

    (void)state;
    prefetch_init(&pf, runs, ARRAY_LEN(runs));
    assert_true(dies(pass_backwards, &pf));
    assert_true(dies(pass_beyond, &pf));
}

/* ---- against a model ---------------------------------------------------------------------------------------------- */

#define MODEL_RUNS 12u

/* struct model - the pages of a plan one after another, and where the walk is among them */
struct model {
    struct prefetch_run runs[MODEL_RUNS];
    size_t n_runs;
    pgno_t pages[MODEL_RUNS * PAGES];
    size_t run_of[MODEL_RUNS * PAGES];
    size_t n;
    size_t at;
};

static void model_make(struct model *m, struct rng *r)
{
    m->n_runs = rng_below(r, MODEL_RUNS + 1);
    m->n = 0;
    m->at = 0;
    for (size_t i = 0; i < m->n_runs; i++) {
        pgno_t first = rng_below(r, PAGES + 1);
        pgno_t end = min_u64(PAGES, first + rng_below(r, rng_below(r, 3) ? 20 : 200));

        m->runs[i] = (struct prefetch_run){.first = first, .end = end};
        for (pgno_t p = first; p < end; p++) {
            m->pages[m->n] = p;
            m->run_of[m->n++] = i;
        }
    }
}

/* model_peek() - page by page. Return: how many pages from m->at on are the slice */
static size_t model_peek(struct model *m, const struct pagetab *pt, pgno_t most)
{
    size_t n = 0;

    while (m->at < m->n && pagetab_get(pt, m->pages[m->at]) != PAGE_ABSENT)
        m->at++;
    while (m->at + n < m->n && n < most && m->run_of[m->at + n] == m->run_of[m->at] &&
           pagetab_get(pt, m->pages[m->at + n]) == PAGE_ABSENT)
        n++;
    return n;
}

/* happen() - faults and discards anywhere */
static void happen(struct rng *r, struct pagetab *pt)
{
    for (unsigned i = (unsigned)rng_below(r, 4); i > 0; i--) {
        pgno_t first = rng_below(r, PAGES);
        pgno_t end = min_u64(PAGES, first + 1 + rng_below(r, 12));

        if (rng_below(r, 2)) {
            pagetab_step(pt, PAGE_EV_REMOVE, first, end);
            continue;
        }
        for (pgno_t p = first; p < end; p++) {
            if (pagetab_get(pt, p) == PAGE_ABSENT)
                pagetab_step(pt, PAGE_EV_INSTALL, p, p + 1);
        }
    }
}

/* compare() - one walk to its end */
static void compare(struct rng *r, struct model *m, struct pagetab *pt)
{
    struct prefetch_run slice;
    struct prefetch pf;

    prefetch_init(&pf, m->runs, m->n_runs);
    assert_int_equal(pf.n_pages, m->n);
    for (;;) {
        pgno_t most = 1 + rng_below(r, 70);
        size_t n = model_peek(m, pt, most);
        size_t pass;

        assert_int_equal(prefetch_peek(&pf, pt, most, &slice), n > 0);
        assert_int_equal(pf.n_passed, m->at);
        if (n == 0)
            break;
        assert_int_equal(slice.first, m->pages[m->at]);
        assert_int_equal(slice.end, m->pages[m->at] + n);
        pass = rng_below(r, n + 1);
        if (pass > 0 && rng_below(r, 2))
            pagetab_step(pt, PAGE_EV_INSTALL, slice.first, slice.first + pass);
        prefetch_pass(&pf, slice.first + pass);
        m->at += pass;
        happen(r, pt);
    }
    assert_true(prefetch_is_over(&pf));
    assert_int_equal(m->at, m->n);
}

static void walks_agree_with_a_model_that_goes_page_by_page(void **state)
{
    static struct model m;
    struct rng r = rng_init("walks");

    (void)state;
    for (unsigned round = 0; round < 1000; round++) {
        struct rig rig;
        struct pagetab *pt = table(&rig);

        model_make(&m, &r);
        happen(&r, pt);
        compare(&r, &m, pt);
        rig_deinit(&rig);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_slice_is_no_longer_than_asked_and_within_one_run),
        cmocka_unit_test(a_walk_stays_where_it_is_until_it_is_told_to_pass),
        cmocka_unit_test(what_is_not_absent_is_passed_over),
        cmocka_unit_test(a_plan_without_pages_is_over_at_once),
        cmocka_unit_test(a_page_that_is_in_two_runs_comes_once_if_it_was_installed),
        cmocka_unit_test(passing_backwards_or_out_of_the_run_is_asserted),
        cmocka_unit_test(walks_agree_with_a_model_that_goes_page_by_page),
    };

    test_watchdog();
    return cmocka_run_group_tests_name("prefetch", tests, NULL, NULL);
}
