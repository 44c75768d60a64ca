/* SPDX-License-Identifier: Apache-2.0 */
#include "testing.h"

#include <string.h>

#include "core/block.h"
#include "engine_rig.h"

static const struct rig_spec small = {
    .page_shift = 12,
    .n_regions = 3,
    .regions = {{100, 164, 200}, {0, 70, 0}, {170, 171, RIG_IMAGE_SAME}},
    .config = {.around_pages = 1},
};

static size_t bytes_of(const struct rig *r)
{
    return (size_t)r->block.header->total_bytes;
}

static int open_bytes(struct rig *r, size_t len)
{
    struct block view;

    return block_open(&view, r->mem, len);
}

static int open_rig(struct rig *r)
{
    return open_bytes(r, bytes_of(r));
}

static void the_size_of_a_block_is_bits_per_page(void **state)
{
    size_t empty = block_bytes(1, 1);
    size_t big = block_bytes(1, 64 * GIB / 4096);

    (void)state;
    assert_int_equal(empty % 4096, 0);
    assert_int_equal(big % 4096, 0);
    assert_true(big - empty <= 64 * GIB / 4096 / 8 * 6);
}

static void what_was_formatted_opens_with_the_same_parts(void **state)
{
    struct rig r;
    struct block again;

    (void)state;
    assert_int_equal(rig_init(&r, &small), 0);
    pagetab_step(&r.block.pages, PAGE_EV_REMOVE, 60, 70);
    bitset_add(&r.block.waiting, 133);
    bitset_add(&r.block.waiting_wp, 134);
    r.block.header->counters.faults = 5;
    memset(r.block.inbox, 0x5a, BLOCK_INBOX_BYTES);
    assert_int_equal(block_open(&again, r.mem, bytes_of(&r)), 0);
    assert_ptr_equal(again.header, r.block.header);
    assert_ptr_equal(again.inbox, r.block.inbox);
    assert_int_equal(again.geom.n_pages, 135);
    assert_int_equal(again.geom.n_regions, 3);
    assert_int_equal(geom_find_hva(&again.geom, RIG_HVA + 170 * 4096)->first, 70);
    assert_int_equal(pagetab_get(&again.pages, 59), PAGE_ABSENT);
    assert_int_equal(pagetab_get(&again.pages, 60), PAGE_REMOVED);
    assert_int_equal(bitset_next(&again.waiting, 0), 133);
    assert_int_equal(bitset_next(&again.waiting_wp, 0), 134);
    assert_int_equal(again.header->counters.faults, 5);
    rig_deinit(&r);
}

static void a_pager_rests_when_no_message_and_nobody_waits(void **state)
{
    struct rig r;
    uint8_t *inbox;

    (void)state;
    assert_int_equal(rig_init(&r, &small), 0);
    inbox = r.block.inbox;
    memset(inbox, 0x5a, BLOCK_INBOX_BYTES);
    for (unsigned i = 0; i < BLOCK_INBOX_BYTES; i += BLOCK_INBOX_MSG) {
        assert_false(block_at_rest(&r.block));
        inbox[i] = 0;
    }
    assert_true(block_at_rest(&r.block));
    bitset_add(&r.block.waiting, 133);
    assert_false(block_at_rest(&r.block));
    bitset_drop(&r.block.waiting, 133);
    bitset_add(&r.block.waiting_wp, 134);
    assert_false(block_at_rest(&r.block));
    rig_deinit(&r);
}

static void parts_begin_on_page_boundaries_and_do_not_overlap(void **state)
{
    struct rig r;
    const struct block_header *h;

    (void)state;
    assert_int_equal(rig_init(&r, &small), 0);
    h = r.block.header;
    assert_true(h->regions_off >= sizeof(*h));
    assert_true(h->inbox_off >= h->regions_off + 3 * sizeof(struct geom_region));
    assert_true(h->pagetab_off >= h->inbox_off + BLOCK_INBOX_BYTES);
    assert_true(h->waiting_off >= h->pagetab_off + pagetab_bytes(h->n_pages));
    assert_true(h->waiting_wp_off >= h->waiting_off + bitset_bytes(h->n_pages));
    assert_true(h->total_bytes >= h->waiting_wp_off + bitset_bytes(h->n_pages));
    assert_int_equal((h->regions_off | h->inbox_off | h->pagetab_off | h->waiting_off |
                      h->waiting_wp_off | h->total_bytes) %
                         4096,
                     0);
    rig_deinit(&r);
}

static void a_block_without_its_magic_is_no_block(void **state)
{
    struct rig r;

    (void)state;
    assert_int_equal(rig_init(&r, &small), 0);
    r.block.header->magic = 0;
    assert_int_equal(open_rig(&r), BLOCK_E_FORMAT);
    r.block.header->magic = BLOCK_MAGIC ^ 1;
    assert_int_equal(open_rig(&r), BLOCK_E_FORMAT);
    rig_deinit(&r);
}

static void another_version_is_told_from_damage(void **state)
{
    struct rig r;

    (void)state;
    assert_int_equal(rig_init(&r, &small), 0);
    r.block.header->version = BLOCK_VERSION + 1;
    assert_int_equal(open_rig(&r), BLOCK_E_VERSION);
    r.block.header->version = BLOCK_VERSION;
    r.block.header->header_bytes += 8;
    assert_int_equal(open_rig(&r), BLOCK_E_VERSION);
    rig_deinit(&r);
}

static void a_file_that_was_cut_is_damaged(void **state)
{
    struct rig r;
    void *exact;
    struct block view;

    (void)state;
    assert_int_equal(rig_init(&r, &small), 0);
    for (size_t len = 0; len < bytes_of(&r); len += 97) {
        exact = malloc(len + 1); /* of this very size, so that a sanitizer sees a step beyond it */
        assert_non_null(exact);
        memcpy(exact, r.mem, len);
        assert_int_equal(block_open(&view, exact, len), BLOCK_E_FORMAT);
        free(exact);
    }
    assert_int_equal(open_bytes(&r, bytes_of(&r) - 1), BLOCK_E_FORMAT);
    assert_int_equal(open_bytes(&r, bytes_of(&r) + 4096), 0);
    rig_deinit(&r);
}

/* Each field that says where things are or how many, with values that are wrong in different ways. */
static void every_damaged_number_in_the_header_is_refused(void **state)
{
    static const size_t fields32[] = {offsetof(struct block_header, page_shift),
                                      offsetof(struct block_header, n_regions)};
    static const size_t fields64[] = {
        offsetof(struct block_header, total_bytes),   offsetof(struct block_header, n_pages),
        offsetof(struct block_header, regions_off),   offsetof(struct block_header, inbox_off),
        offsetof(struct block_header, pagetab_off),   offsetof(struct block_header, waiting_off),
        offsetof(struct block_header, waiting_wp_off)};
    static const uint64_t values[] = {0,          1,          13,         0x7fffffff, UINT32_MAX,
                                      1ull << 32, 1ull << 52, 1ull << 61, INT64_MAX,  UINT64_MAX};
    struct rig r;

    (void)state;
    assert_int_equal(rig_init(&r, &small), 0);
    for (size_t v = 0; v < ARRAY_LEN(values); v++) {
        uint32_t v32 = (uint32_t)values[v];

        for (size_t f = 0; f < ARRAY_LEN(fields32); f++) {
            uint32_t saved;

            memcpy(&saved, (char *)r.mem + fields32[f], sizeof(saved));
            memcpy((char *)r.mem + fields32[f], &v32, sizeof(v32));
            assert_int_equal(open_bytes(&r, block_bytes(3, 135)), BLOCK_E_FORMAT);
            memcpy((char *)r.mem + fields32[f], &saved, sizeof(saved));
        }
        for (size_t f = 0; f < ARRAY_LEN(fields64); f++) {
            uint64_t saved;

            memcpy(&saved, (char *)r.mem + fields64[f], sizeof(saved));
            memcpy((char *)r.mem + fields64[f], &values[v], sizeof(values[v]));
            assert_int_equal(open_bytes(&r, block_bytes(3, 135)), BLOCK_E_FORMAT);
            memcpy((char *)r.mem + fields64[f], &saved, sizeof(saved));
        }
    }
    assert_int_equal(open_rig(&r), 0);
    rig_deinit(&r);
}

static void check_region_damage(struct rig *r, unsigned i, const struct geom_region *damaged)
{
    struct geom_region saved = r->block.geom.regions[i];

    r->block.geom.regions[i] = *damaged;
    assert_int_equal(open_rig(r), BLOCK_E_FORMAT);
    r->block.geom.regions[i] = saved;
    assert_int_equal(open_rig(r), 0);
}

static void every_damaged_region_is_refused(void **state)
{
    struct rig r;

    (void)state;
    assert_int_equal(rig_init(&r, &small), 0);
    for (unsigned i = 0; i < 3; i++) {
        const struct geom_region good = r.block.geom.regions[i];
        struct geom_region bad[10];

        for (size_t k = 0; k < ARRAY_LEN(bad); k++)
            bad[k] = good;
        bad[0].hva += 8;
        bad[1].hva = 0ull - 4096;
        bad[2].len_bytes = 0;
        bad[3].len_bytes += 1;
        bad[4].len_bytes += 4096;
        bad[5].imgoff += 8;
        bad[6].imgoff = 0ull - 4096;
        bad[7].first += 1;
        bad[8].by_hva = 3;
        bad[9].by_hva = (good.by_hva + 1) % 3; /* one region twice, another one never */
        for (size_t k = 0; k < ARRAY_LEN(bad); k++)
            check_region_damage(&r, i, &bad[k]);
        bad[0] = good;
        bad[0].hva = r.block.geom.regions[(i + 1) % 3].hva;
        check_region_damage(&r, i, &bad[0]);
        bad[0] = good;
        bad[0].imgoff = r.block.geom.regions[(i + 1) % 3].imgoff;
        check_region_damage(&r, i, &bad[0]);
    }
    rig_deinit(&r);
}

static void a_path_without_an_end_is_refused(void **state)
{
    struct rig r;

    (void)state;
    assert_int_equal(rig_init(&r, &small), 0);
    memset(r.block.header->memory_path, 'x', sizeof(r.block.header->memory_path));
    assert_int_equal(open_rig(&r), BLOCK_E_FORMAT);
    r.block.header->memory_path[sizeof(r.block.header->memory_path) - 1] = '\0';
    assert_int_equal(open_rig(&r), 0);
    rig_deinit(&r);
}

/* use_it() - what a reader of somebody else's block does with it; must not crash, whatever is in there */
static void use_it(const struct block *b)
{
    uint64_t counts[N_PAGE_STATES];
    uint64_t n = 0;

    pagetab_count(&b->pages, 0, b->pages.n_pages, counts);
    for (unsigned s = 0; s < N_PAGE_STATES; s++)
        n += counts[s];
    assert_int_equal(n, b->pages.n_pages);
    for (unsigned i = 0; i < b->geom.n_regions; i++) {
        const struct geom_region *r = geom_region_by_hva(&b->geom, i);

        assert_ptr_equal(geom_find_hva(&b->geom, r->hva), r);
        assert_ptr_equal(geom_find_page(&b->geom, r->first), r);
    }
    for (pgno_t p = bitset_next(&b->waiting, 0); p != BITSET_NONE;
         p = bitset_next(&b->waiting, p + 1))
        assert_true(page_state_names[pagetab_get(&b->pages, p)] != NULL);
    assert_true(hist_quantile(&b->header->fault_ns, 0.99) <= b->header->fault_ns.max);
}

static void random_damage_is_refused_or_harmless(void **state)
{
    struct rng rng = rng_init("block");
    unsigned n_refused = 0;

    (void)state;
    for (unsigned round = 0; round < 20000; round++) {
        struct rig r;
        struct block view;
        size_t len;

        assert_int_equal(rig_init(&r, &small), 0);
        len = bytes_of(&r);
        for (uint64_t n = 1 + rng_below(&rng, 3); n > 0; n--) {
            size_t part = rng_below(&rng, 2) ? 128 : len;
            uint8_t *byte = (uint8_t *)r.mem + rng_below(&rng, part);

            *byte ^= (uint8_t)(1u << rng_below(&rng, 8));
        }
        if (block_open(&view, r.mem, len) != 0)
            n_refused++;
        else
            use_it(&view);
        rig_deinit(&r);
    }
    assert_in_range(n_refused, 1000, 19000);
}

/* ---- version 2 ---- */

#define V2_HEADER_BYTES 6512u
#define V2_TAIL_AT      1184u

/* make_v2() - a block of version 2: the header's end is without may_resume, and has fewer counters. (give) */
static void *make_v2(const struct rig *r)
{
    struct block_header *h = calloc(1, bytes_of(r));
    uint64_t *tail;

    assert_non_null(h);
    memcpy(h, r->mem, bytes_of(r));
    h->version = 2;
    h->header_bytes = V2_HEADER_BYTES;
    tail = (uint64_t *)(void *)((char *)h + V2_TAIL_AT);
    memset(tail, 0, V2_HEADER_BYTES - V2_TAIL_AT);
    tail[0] = 7; /* the histogram: n, sum, max, buckets */
    tail[2] = 12345;
    tail[3 + HIST_BUCKETS - 1] = 7;
    for (unsigned i = 0; i < 23; i++)
        tail[3 + HIST_BUCKETS + i] = 100 + i;
    return h;
}

static void what_version_2_says_is_read(void **state)
{
    struct rig r;
    struct block before;
    struct block after;
    void *v2;
    void *mem;

    (void)state;
    assert_int_equal(rig_init(&r, &small), 0);
    pagetab_step(&r.block.pages, PAGE_EV_REMOVE, 60, 70);
    bitset_add(&r.block.waiting, 133);
    bitset_add(&r.block.waiting_wp, 134);
    r.block.header->vmm_pid = 4711;
    r.block.header->track = 1;
    memset(r.block.inbox, 0x5a, BLOCK_INBOX_BYTES);
    r.block.header->generation = 4;
    r.block.header->uffd_inode = 815;
    (void)strcpy(r.block.header->memory_path, "/srv/memory");
    v2 = make_v2(&r);
    assert_int_equal(block_open(&before, v2, bytes_of(&r)), BLOCK_E_VERSION);
    assert_int_equal(block_open_before(&before, v2, bytes_of(&r)), 0);
    mem = calloc(1, block_bytes(3, 135));
    assert_non_null(mem);
    block_upgrade(&after, mem, &before);
    assert_int_equal(block_open(&after, mem, block_bytes(3, 135)), 0);
    assert_int_equal(after.header->vmm_pid, 4711);
    assert_int_equal(after.header->track, 1);
    assert_int_equal(after.header->generation, 4);
    assert_int_equal(after.header->uffd_inode, 815);
    assert_int_equal(after.header->may_resume, 1);
    assert_string_equal(after.header->memory_path, "/srv/memory");
    assert_int_equal(after.header->counters.faults, 100);
    assert_int_equal(after.header->counters.messages, 121);
    assert_int_equal(after.header->counters.takeovers, 122);
    assert_int_equal(after.header->counters.pages_ahead, 0);
    assert_int_equal(after.header->fault_ns.n, 7);
    assert_int_equal(after.header->fault_ns.max, 12345);
    assert_int_equal(after.header->fault_ns.buckets[HIST_BUCKETS - 1], 7);
    assert_int_equal(after.geom.n_pages, 135);
    assert_int_equal(pagetab_get(&after.pages, 59), PAGE_ABSENT);
    assert_int_equal(pagetab_get(&after.pages, 60), PAGE_REMOVED);
    assert_int_equal(bitset_next(&after.waiting, 0), 133);
    assert_int_equal(bitset_next(&after.waiting_wp, 0), 134);
    assert_memory_equal(after.inbox, r.block.inbox, BLOCK_INBOX_BYTES);
    use_it(&after);
    free(mem);
    free(v2);
    rig_deinit(&r);
}

static void a_version_that_is_neither_is_not_the_one_before(void **state)
{
    struct rig r;
    struct block view;

    (void)state;
    assert_int_equal(rig_init(&r, &small), 0);
    for (uint32_t version = 0; version < 5; version++) {
        r.block.header->version = version;
        assert_int_equal(block_open_before(&view, r.mem, bytes_of(&r)), BLOCK_E_VERSION);
    }
    rig_deinit(&r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_size_of_a_block_is_bits_per_page),
        cmocka_unit_test(what_was_formatted_opens_with_the_same_parts),
        cmocka_unit_test(a_pager_rests_when_no_message_and_nobody_waits),
        cmocka_unit_test(parts_begin_on_page_boundaries_and_do_not_overlap),
        cmocka_unit_test(a_block_without_its_magic_is_no_block),
        cmocka_unit_test(another_version_is_told_from_damage),
        cmocka_unit_test(a_file_that_was_cut_is_damaged),
        cmocka_unit_test(every_damaged_number_in_the_header_is_refused),
        cmocka_unit_test(every_damaged_region_is_refused),
        cmocka_unit_test(a_path_without_an_end_is_refused),
        cmocka_unit_test(random_damage_is_refused_or_harmless),
        cmocka_unit_test(what_version_2_says_is_read),
        cmocka_unit_test(a_version_that_is_neither_is_not_the_one_before),
    };

    test_watchdog();
    return cmocka_run_group_tests_name("block", tests, NULL, NULL);
}
