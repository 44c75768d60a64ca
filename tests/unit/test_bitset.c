/* SPDX-License-Identifier: Apache-2.0 */
#include "testing.h"

#include <string.h>
#include <sys/mman.h>

#include "base/bitset.h"

/* Sizes at which the last word or the last summary word is full, begins, or is one short. */
static const uint64_t edge_sizes[] = {
    1, 2, 63, 64, 65, 127, 128, 4095, 4096, 64 * 64 + 1, 4096 * 64 - 1, 4096 * 64 + 1};

/* struct pair - a set and the byte-per-member model that it must agree with */
struct pair {
    struct bitset set;
    bool *model;
};

static struct pair pair_new(uint64_t n)
{
    struct pair p = {.model = calloc(n, sizeof(bool))};
    void *mem = calloc(1, bitset_bytes(n));

    assert_non_null(p.model);
    assert_non_null(mem);
    bitset_init(&p.set, mem, n);
    return p;
}

static void pair_free(struct pair *p)
{
    free(p->set.words);
    free(p->model);
}

static uint64_t model_next(const struct pair *p, uint64_t from)
{
    for (uint64_t i = from; i < p->set.n; i++) {
        if (p->model[i])
            return i;
    }
    return BITSET_NONE;
}

static void check_summary(const struct bitset *s)
{
    uint64_t n_words = (s->n + 63) / 64;

    for (uint64_t w = 0; w < n_words; w++)
        assert_int_equal((s->summary[w / 64] >> (w % 64)) & 1, s->words[w] != 0);
}

static void check_all(const struct pair *p)
{
    uint64_t expected = BITSET_NONE;

    for (uint64_t i = p->set.n; i-- > 0;) {
        assert_int_equal(bitset_has(&p->set, i), p->model[i]);
        if (p->model[i])
            expected = i;
        assert_int_equal(bitset_next(&p->set, i), expected);
    }
    assert_int_equal(bitset_next(&p->set, p->set.n), BITSET_NONE);
    assert_int_equal(bitset_next(&p->set, BITSET_NONE), BITSET_NONE);
    check_summary(&p->set);
}

static void drop_range(struct pair *p, uint64_t first, uint64_t end)
{
    bitset_drop_range(&p->set, first, end);
    for (uint64_t i = first; i < end; i++)
        p->model[i] = false;
}

static void all_zero_memory_is_the_empty_set(void **state)
{
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(edge_sizes); i++) {
        struct pair p = pair_new(edge_sizes[i]);

        assert_int_equal(bitset_bytes(edge_sizes[i]) % 8, 0);
        check_all(&p);
        pair_free(&p);
    }
}

static void each_member_alone_is_found_and_leaves_nothing_behind(void **state)
{
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(edge_sizes); i++) {
        struct pair p = pair_new(edge_sizes[i]);
        uint64_t n = edge_sizes[i];
        const uint64_t members[] = {0, n / 2, n - 1};

        for (size_t m = 0; m < ARRAY_LEN(members); m++) {
            bitset_add(&p.set, members[m]);
            assert_true(bitset_has(&p.set, members[m]));
            assert_int_equal(bitset_next(&p.set, 0), members[m]);
            assert_int_equal(bitset_next(&p.set, members[m]), members[m]);
            assert_int_equal(bitset_next(&p.set, members[m] + 1), BITSET_NONE);
            bitset_drop(&p.set, members[m]);
            assert_int_equal(bitset_next(&p.set, 0), BITSET_NONE);
            check_summary(&p.set);
        }
        pair_free(&p);
    }
}

static void a_full_set_loses_exactly_the_range_that_is_dropped(void **state)
{
    static const uint64_t bounds[] = {0, 1, 63, 64, 65, 127, 128, 4095, 4096, 4097, 8000};

    (void)state;
    for (size_t a = 0; a < ARRAY_LEN(bounds); a++) {
        for (size_t b = a; b < ARRAY_LEN(bounds); b++) {
            struct pair p = pair_new(8000);

            for (uint64_t i = 0; i < 8000; i++) {
                bitset_add(&p.set, i);
                p.model[i] = true;
            }
            drop_range(&p, bounds[a], bounds[b]);
            check_all(&p);
            pair_free(&p);
        }
    }
}

static void check_search(const struct pair *p, uint64_t from, uint64_t end)
{
    uint64_t next = model_next(p, from);

    assert_int_equal(bitset_next(&p->set, from), next);
    assert_int_equal(bitset_next_in(&p->set, from, end), next < end ? next : BITSET_NONE);
}

static void random_work(struct rng *r, struct pair *p, unsigned n_steps)
{
    uint64_t n = p->set.n;

    for (unsigned i = 0; i < n_steps; i++) {
        uint64_t at = rng_below(r, n);

        switch (rng_below(r, 4)) {
        case 0:
        case 1:
            bitset_add(&p->set, at);
            p->model[at] = true;
            break;
        case 2:
            bitset_drop(&p->set, at);
            p->model[at] = false;
            break;
        default:
            drop_range(p, at, at + rng_below(r, min_u64(n - at, 200) + 1));
        }
        at = rng_below(r, n + 2);
        check_search(p, at, rng_below(r, n + 2));
    }
}

static void a_random_set_agrees_with_an_array_of_bytes(void **state)
{
    struct rng r = rng_init("bitset");

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(edge_sizes); i++) {
        struct pair p = pair_new(edge_sizes[i]);

        random_work(&r, &p, edge_sizes[i] < 10000 ? 2000 : 300);
        check_all(&p);
        pair_free(&p);
    }
}

static void a_view_on_the_memory_of_an_earlier_set_has_its_members(void **state)
{
    struct pair p = pair_new(1000);
    struct bitset again;

    (void)state;
    bitset_add(&p.set, 999);
    bitset_init(&again, p.set.words, 1000);
    assert_int_equal(bitset_next(&again, 0), 999);
    pair_free(&p);
}

/*
 * The members' memory and the summary's far end are made unreadable: a search that is told where to stop must not go
 * there. What an install costs may not depend on how big the guest is.
 */
static void a_short_range_is_searched_and_dropped_without_looking_further(void **state)
{
    const uint64_t n = 16 * MIB; /* 64 GiB of 4 KiB pages */
    size_t len = align_up(bitset_bytes(n), 4096);
    char *mem = mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    struct bitset s;

    (void)state;
    assert_ptr_not_equal(mem, MAP_FAILED);
    bitset_init(&s, mem, n);
    bitset_add(&s, 7);
    assert_int_equal(mprotect(mem + 4096, n / 8 - 4096, PROT_NONE), 0);
    assert_int_equal(mprotect(mem + n / 8 + 4096, len - n / 8 - 4096, PROT_NONE), 0);
    assert_int_equal(bitset_next_in(&s, 0, 16), 7);
    assert_int_equal(bitset_next_in(&s, 8, 4096), BITSET_NONE);
    bitset_drop_range(&s, 0, 16);
    assert_int_equal(bitset_next_in(&s, 0, 16), BITSET_NONE);
    bitset_drop_range(&s, 0, 4096);
    assert_int_equal(munmap(mem, len), 0);
}

/* What a reader finds in the state file of somebody else may be anything: a search ends, and inside the set. */
static void no_memory_leads_a_search_outside_of_the_set(void **state)
{
    struct rng r = rng_init("bitset memory");

    (void)state;
    for (unsigned round = 0; round < 3000; round++) {
        uint64_t n = edge_sizes[rng_below(&r, 8)];
        struct pair p = pair_new(n);
        uint64_t next = 0;

        for (size_t i = 0; i < bitset_bytes(n) / 8; i++)
            p.set.words[i] = rng_below(&r, 3) == 0 ? rng_next(&r) : 0;
        for (unsigned steps = 0; next != BITSET_NONE; steps++) {
            assert_true(steps <= n);
            next = bitset_next(&p.set, next);
            assert_true(next < n || next == BITSET_NONE);
            next = next == BITSET_NONE ? next : next + 1;
        }
        bitset_drop_range(&p.set, 0, n);
        pair_free(&p);
    }
}

/* A process may be killed between any two stores; what it added must be found by the next reader of the memory. */
static void a_member_whose_word_was_stored_last_is_found(void **state)
{
    struct pair p = pair_new(5000);

    (void)state;
    p.set.summary[0] |=
        1ull << 3; /* the first of the two stores of an add, the second one never came */
    assert_int_equal(bitset_next(&p.set, 0), BITSET_NONE);
    bitset_add(&p.set, 4000);
    assert_int_equal(bitset_next(&p.set, 0), 4000);
    pair_free(&p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(all_zero_memory_is_the_empty_set),
        cmocka_unit_test(each_member_alone_is_found_and_leaves_nothing_behind),
        cmocka_unit_test(a_full_set_loses_exactly_the_range_that_is_dropped),
        cmocka_unit_test(a_random_set_agrees_with_an_array_of_bytes),
        cmocka_unit_test(a_view_on_the_memory_of_an_earlier_set_has_its_members),
        cmocka_unit_test(a_short_range_is_searched_and_dropped_without_looking_further),
        cmocka_unit_test(no_memory_leads_a_search_outside_of_the_set),
        cmocka_unit_test(a_member_whose_word_was_stored_last_is_found),
    };

    test_watchdog();
    return cmocka_run_group_tests_name("bitset", tests, NULL, NULL);
}
