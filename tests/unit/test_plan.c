/* SPDX-License-Identifier: Apache-2.0 */
/* test_plan.c - a working set becomes runs of a guest's pages */
#include "sets.h"

#include <errno.h>
#include <string.h>

#include "base/err.h"
#include "pager/plan.h"

#define HVA         0x7f0000000000ull
#define UNITS_IN_2M 512u
#define MAX_REGIONS 6u

/* struct guest - pages of a guest; regions are given in pages of the guest, in memory and in the image */
struct guest {
    struct geom_region regions[MAX_REGIONS];
    unsigned n_regions;
    uint64_t image_bytes;
    struct geom geom;
};

static void region(struct guest *g, unsigned page_shift, uint64_t at, uint64_t n, uint64_t image)
{
    g->regions[g->n_regions++] = (struct geom_region){
        .hva = HVA + (at << page_shift),
        .len_bytes = n << page_shift,
        .imgoff = image << page_shift,
    };
}

static void settle(struct guest *g, unsigned page_shift, uint64_t image_bytes)
{
    hva_t bad;

    g->image_bytes = image_bytes;
    assert_int_equal(geom_init(&g->geom, g->regions, g->n_regions, page_shift, &bad), 0);
}

/* one_region() - @n pages, all of the image */
static struct guest *one_region(struct guest *g, unsigned page_shift, uint64_t n)
{
    *g = (struct guest){0};
    region(g, page_shift, 0, n, 0);
    settle(g, page_shift, n << page_shift);
    return g;
}

static struct plan make(const struct workingset *ws, const struct guest *g)
{
    struct plan p = {0};

    assert_int_equal(plan_make(&p, ws, &g->geom, g->image_bytes), 0);
    return p;
}

/* expect() - the plan has exactly these runs: first, end, first, end, ... */
static void expect(const struct plan *p, const pgno_t *expected, size_t n)
{
    assert_int_equal(p->n, n / 2);
    for (size_t i = 0; i < p->n; i++) {
        assert_int_equal(p->runs[i].first, expected[2 * i]);
        assert_int_equal(p->runs[i].end, expected[2 * i + 1]);
    }
}

#define EXPECT(plan_, ...)                                      \
    do {                                                        \
        static const pgno_t runs_[] = {__VA_ARGS__};            \
        expect((plan_), runs_, sizeof(runs_) / sizeof(*runs_)); \
    } while (false)

static struct workingset *set_of(unsigned unit_shift, uint64_t n_units, const uint64_t *units,
                                 size_t n)
{
    struct workingset *ws = sets_new(unit_shift, n_units);

    for (size_t i = 0; i < n; i++)
        sets_add(ws, units[i], 0, false);
    return ws;
}

/* ---- by hand ---------------------------------------------------------------------------------------------------- */

static void neighbours_in_one_window_are_one_run_whatever_their_order(void **state)
{
    static const uint64_t units[] = {41, 7, 40, 90, 42, 8};
    struct workingset *ws = set_of(12, 100, units, ARRAY_LEN(units));
    struct guest g;
    struct plan p = make(ws, one_region(&g, 12, 100));

    (void)state;
    EXPECT(&p, 7, 9, 40, 43, 90, 91);
    assert_int_equal(p.n_pages, 6);
    assert_int_equal(p.n_outside, 0);
    plan_deinit(&p);
    assert_null(p.runs);
    ws = workingset_free(ws);
}

static void a_later_window_stays_later_and_may_make_the_last_run_longer(void **state)
{
    struct workingset *ws = sets_new(12, 1000);
    struct guest g;
    struct plan p;

    (void)state;
    for (uint64_t unit = 355; unit >= 100; unit--) /* the first window, backwards: 100..355 */
        sets_add(ws, unit, 0, false);
    sets_add(ws, 357, 0, false);
    sets_add(ws, 3, 0, false);
    sets_add(ws, 356, 0, false);
    p = make(ws, one_region(&g, 12, 1000));
    EXPECT(&p, 100, 356, 3, 4, 356, 358);
    plan_deinit(&p);
    ws->n--; /* 356 */
    ws->entries[PLAN_WINDOW].unit = 356;
    ws->entries[PLAN_WINDOW + 1].unit = 357;
    p = make(ws, &g);
    EXPECT(&p, 100, 358);
    plan_deinit(&p);
    ws = workingset_free(ws);
}

static void a_run_ends_with_its_region_though_the_image_goes_on(void **state)
{
    static const uint64_t units[] = {9, 10, 11, 12};
    struct workingset *ws = set_of(12, 30, units, ARRAY_LEN(units));
    struct guest g = {0};
    struct plan p;

    (void)state;
    region(&g, 12, 500, 11, 0);
    region(&g, 12, 100, 19, 11);
    settle(&g, 12, 30 * 4096);
    p = make(ws, &g);
    EXPECT(&p, 9, 11, 11, 13);
    plan_deinit(&p);
    ws = workingset_free(ws);
}

static void entries_outside_of_every_region_are_counted_and_left_out(void **state)
{
    static const uint64_t units[] = {0, 9, 10, 19, 20, 29};
    struct workingset *ws = set_of(12, 30, units, ARRAY_LEN(units));
    struct guest g = {0};
    struct plan p;

    (void)state;
    region(&g, 12, 0, 10, 10);
    settle(&g, 12, 30 * 4096);
    p = make(ws, &g);
    EXPECT(&p, 0, 1, 9, 10);
    assert_int_equal(p.n_outside, 4);
    assert_int_equal(p.n_pages, 2);
    plan_deinit(&p);
    ws = workingset_free(ws);
}

static void any_touched_part_of_a_huge_page_plans_the_page_once(void **state)
{
    static const uint64_t units[] = {UNITS_IN_2M * 2 + 511, 0, UNITS_IN_2M * 2, UNITS_IN_2M * 3 + 7,
                                     1};
    struct workingset *ws = set_of(12, UNITS_IN_2M * 5, units, ARRAY_LEN(units));
    struct guest g;
    struct plan p = make(ws, one_region(&g, 21, 5));

    (void)state;
    EXPECT(&p, 0, 1, 2, 4);
    assert_int_equal(p.n_pages, 3);
    assert_int_equal(p.n_outside, 0);
    plan_deinit(&p);
    ws = workingset_free(ws);
}

static void a_huge_unit_is_all_of_its_small_pages_that_the_guest_has(void **state)
{
    static const uint64_t units[] = {3, 0, 2};
    struct workingset *ws = set_of(21, 4, units, ARRAY_LEN(units));
    struct guest g = {0};
    struct plan p;

    (void)state;
    region(&g, 12, 0, 100, 0);                       /* the beginning of unit 0 */
    region(&g, 12, 1000, 600, UNITS_IN_2M * 3 - 88); /* the end of unit 2, and unit 3 */
    settle(&g, 12, 8 * MIB);
    p = make(ws, &g);
    EXPECT(&p, 0, 100, 100, 700);
    assert_int_equal(p.n_outside, 0);
    plan_deinit(&p);
    ws = workingset_free(ws);
}

static void a_set_of_another_size_of_memory_file_is_refused(void **state)
{
    struct workingset *ws = sets_small();
    struct guest g;
    struct plan p = {.n = 77};

    (void)state;
    (void)one_region(&g, 12, 101);
    assert_int_equal(plan_make(&p, ws, &g.geom, g.image_bytes), -EINVAL);
    assert_string_equal(err_text(),
                        "the working set is of a memory file of 409600 bytes, this one has 413696");
    assert_int_equal(p.n, 77); /* nothing is given on an error */
    assert_int_equal(plan_check(ws, g.image_bytes), -EINVAL);
    assert_int_equal(plan_check(ws, 409600), 0);
    ws = workingset_free(ws);
}

static void an_empty_set_is_an_empty_plan(void **state)
{
    struct workingset *ws = sets_new(12, 10);
    struct guest g;
    struct plan p = make(ws, one_region(&g, 12, 10));

    (void)state;
    assert_int_equal(p.n, 0);
    assert_int_equal(p.n_pages, 0);
    plan_deinit(&p);
    ws = workingset_free(ws);
}

static void the_rest_is_every_region_in_the_order_of_the_image(void **state)
{
    struct guest g = {0};
    struct plan p;

    (void)state;
    region(&g, 12, 500, 11, 20);
    region(&g, 12, 100, 19, 0);
    settle(&g, 12, 40 * 4096);
    assert_int_equal(plan_rest(&p, &g.geom), 0);
    EXPECT(&p, 0, 19, 19, 30);
    assert_int_equal(p.n_pages, 30);
    plan_deinit(&p);
}

/* ---- against a model ---------------------------------------------------------------------------------------------- */

#define MODEL_PAGES 20000u

/* struct model - the pages in the order in which they must come; by looking at every page for every entry */
struct model {
    pgno_t pages[MODEL_PAGES];
    size_t n;
    bool has[MODEL_PAGES];
    uint64_t n_outside;
};

static int by_unit(const void *a, const void *b)
{
    const struct workingset_entry *ea = a;
    const struct workingset_entry *eb = b;

    return (ea->unit > eb->unit) - (ea->unit < eb->unit);
}

static void model_add(struct model *m, const struct geom *g, uint64_t off, uint64_t len)
{
    bool outside = true;

    for (unsigned i = 0; i < g->n_regions; i++) {
        const struct geom_region *r = &g->regions[i];

        for (pgno_t p = r->first; p < geom_region_end(g, r); p++) {
            uint64_t page_off = geom_imgoff_of(g, r, p);

            if (page_off + geom_page_bytes(g) <= off || page_off >= off + len)
                continue;
            outside = false;
            if (!m->has[p])
                m->pages[m->n++] = p;
            m->has[p] = true;
        }
    }
    m->n_outside += outside;
}

static void model_make(struct model *m, const struct workingset *ws, const struct geom *g)
{
    struct workingset_entry window[PLAN_WINDOW];

    memset(m, 0, sizeof(*m));
    for (size_t i = 0; i < ws->n;) {
        size_t n = min_u64(PLAN_WINDOW, ws->n - i);

        memcpy(window, ws->entries + i, n * sizeof(*window));
        qsort(window, n, sizeof(*window), by_unit);
        for (size_t k = 0; k < n; k++)
            model_add(m, g, window[k].unit << ws->unit_shift, 1ull << ws->unit_shift);
        i += n;
    }
}

static void assert_as_model(const struct plan *p, const struct model *m, const struct geom *g)
{
    size_t at = 0;

    assert_int_equal(p->n_outside, m->n_outside);
    assert_int_equal(p->n_pages, m->n);
    for (size_t i = 0; i < p->n; i++) {
        const struct prefetch_run *run = &p->runs[i];

        assert_true(run->first < run->end);
        assert_ptr_equal(geom_find_page(g, run->first), geom_find_page(g, run->end - 1));
        if (i > 0 && run[-1].end == run->first) /* two runs only where two regions are */
            assert_int_equal(geom_find_page(g, run->first)->first, run->first);
        for (pgno_t page = run->first; page < run->end; page++) {
            assert_true(at < m->n);
            assert_int_equal(page, m->pages[at++]);
        }
    }
    assert_int_equal(at, m->n);
}

/* random_guest() - up to MAX_REGIONS regions with gaps, of an image of @image_bytes; their order in memory is another */
static void random_guest(struct rng *r, struct guest *g, unsigned page_shift, uint64_t image_bytes)
{
    uint64_t n_pages = image_bytes >> page_shift;
    uint64_t image = 0;

    *g = (struct guest){0};
    while (g->n_regions < 1 + rng_below(r, MAX_REGIONS) && image < n_pages) {
        uint64_t gap = rng_below(r, 2) ? 0 : rng_below(r, n_pages - image);
        uint64_t n = 1 + rng_below(r, n_pages - image - gap);

        image += gap;
        region(g, page_shift, (MAX_REGIONS - g->n_regions) << 20, n, image);
        image += n;
    }
    settle(g, page_shift, image_bytes);
}

static void plans_agree_with_a_model_that_looks_at_every_page_for_every_entry(void **state)
{
    static struct model m;
    struct rng r = rng_init("plans");

    (void)state;
    for (unsigned round = 0; round < 150; round++) {
        bool huge_units = rng_below(&r, 2);
        bool huge_pages = rng_below(&r, 2);
        bool huge = huge_units || huge_pages;
        uint64_t image_bytes =
            huge ? (1 + rng_below(&r, 8)) * 2 * MIB : (1 + rng_below(&r, 900)) * 4096;
        unsigned unit_shift = huge_units ? 21 : 12;
        struct workingset *ws = sets_random(&r, unit_shift, image_bytes >> unit_shift,
                                            rng_below(&r, huge_units ? 12 : 600));
        struct guest g;
        struct plan p;

        random_guest(&r, &g, huge_pages ? 21 : 12, image_bytes);
        p = make(ws, &g);
        model_make(&m, ws, &g.geom);
        assert_as_model(&p, &m, &g.geom);
        plan_deinit(&p);
        ws = workingset_free(ws);
    }
}

/* ---- what a source is told ---- */

struct told {
    struct {
        uint64_t lo, hi;
    } ranges[64];
    size_t n;
};

static void hear(void *self, uint64_t lo, uint64_t hi)
{
    struct told *told = self;

    assert_true(told->n < ARRAY_LEN(told->ranges));
    told->ranges[told->n].lo = lo;
    told->ranges[told->n++].hi = hi;
}

static int answer_nothing(void *self, struct thaw_extent *out, uint64_t off, uint64_t lo,
                          uint64_t hi, uint64_t page_bytes)
{
    (void)self;
    (void)off;
    (void)page_bytes;
    *out = (struct thaw_extent){.where = THAW_WHERE_ZERO, .first = lo, .end = hi};
    return 0;
}

static void a_source_is_told_of_the_bytes_of_a_working_set_neighbours_together(void **state)
{
    static const struct thaw_source_ops deaf = {.name = "deaf", .locate = answer_nothing};
    static const struct thaw_source_ops ops = {
        .name = "told", .locate = answer_nothing, .expect = hear};
    struct workingset *ws = sets_new(12, 1000);
    struct told told = {.n = 0};
    struct source *s = NULL;

    (void)state;
    assert_int_equal(source_new(&s, &ops, &told, 1000 << 12), 0);
    plan_expect(ws, s);
    assert_int_equal(told.n, 0);
    sets_add(ws, 8, 0, false);
    sets_add(ws, 500, 0, false);
    sets_add(ws, 7, 0, true);
    sets_add(ws, 999, 0, true);
    plan_expect(ws, s);
    assert_int_equal(told.n, 3);
    assert_int_equal(told.ranges[0].lo, 7 << 12);
    assert_int_equal(told.ranges[0].hi, 9 << 12);
    assert_int_equal(told.ranges[1].lo, 500 << 12);
    assert_int_equal(told.ranges[2].hi, 1000 << 12);
    (void)source_free(s);
    assert_int_equal(source_new(&s, &deaf, &told, 1000 << 12), 0);
    plan_expect(ws, s); /* nobody has to listen */
    assert_int_equal(told.n, 3);
    (void)source_free(s);
    (void)workingset_free(ws);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(neighbours_in_one_window_are_one_run_whatever_their_order),
        cmocka_unit_test(a_later_window_stays_later_and_may_make_the_last_run_longer),
        cmocka_unit_test(a_run_ends_with_its_region_though_the_image_goes_on),
        cmocka_unit_test(entries_outside_of_every_region_are_counted_and_left_out),
        cmocka_unit_test(any_touched_part_of_a_huge_page_plans_the_page_once),
        cmocka_unit_test(a_huge_unit_is_all_of_its_small_pages_that_the_guest_has),
        cmocka_unit_test(a_set_of_another_size_of_memory_file_is_refused),
        cmocka_unit_test(an_empty_set_is_an_empty_plan),
        cmocka_unit_test(the_rest_is_every_region_in_the_order_of_the_image),
        cmocka_unit_test(a_source_is_told_of_the_bytes_of_a_working_set_neighbours_together),
        cmocka_unit_test(plans_agree_with_a_model_that_looks_at_every_page_for_every_entry),
    };

    test_watchdog();
    return cmocka_run_group_tests_name("plan", tests, NULL, NULL);
}
