/* SPDX-License-Identifier: Apache-2.0 */
/* test_squash.c - layers that are laid on an older parent (image/squash.c), in a store */
#include "testing.h"

#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>

#include "image/pack.h"
#include "image/squash.h"
#include "image/unpack.h"

#define N_PAGES 3000u
#define BYTES   (N_PAGES * IMAGE_PAGE)

static char folder[64];
static struct store *store;
static struct rng rng;

static int remove_one(const char *path, const struct stat *st, int flag, struct FTW *ftw)
{
    (void)st;
    (void)flag;
    (void)ftw;
    return remove(path);
}

static int make_store(void **state)
{
    (void)state;
    (void)snprintf(folder, sizeof(folder), "%s", "/tmp/thaw-test-squash.XXXXXX");
    if (!mkdtemp(folder) || store_open(&store, folder, true) < 0)
        return -1;
    return store_hold(store);
}

static int remove_store(void **state)
{
    (void)state;
    store = store_close(store);
    return nftw(folder, remove_one, 8, FTW_DEPTH | FTW_PHYS);
}

/* ---- a guest's memory as it changes ------------------------------------------------------------------------------ */

/* struct guest - what is in each page: 0 is zeroes; and which pages are the served image's */
struct guest {
    uint64_t word[N_PAGES];
    bool served[N_PAGES];
};

static int guest_look(void *ctx, uint8_t *kinds)
{
    const struct guest *g = ctx;

    for (unsigned p = 0; p < N_PAGES; p++) {
        if (g->served[p])
            kinds[p] = KIND_PARENT;
        else
            kinds[p] = g->word[p] || rng_below(&rng, 2) ? KIND_DATA : KIND_HOLE;
    }
    return 0;
}

static int guest_read(void *ctx, void *buf, size_t len, uint64_t off)
{
    const struct guest *g = ctx;
    uint64_t *words = buf;

    for (size_t i = 0; i < len / 8; i++) {
        assert_false(g->served[(off + i * 8) / IMAGE_PAGE]); /* it is not in the guest's memory */
        words[i] = g->word[(off + i * 8) / IMAGE_PAGE];
    }
    return 0;
}

static int guest_check(void *ctx)
{
    (void)ctx;
    return 0;
}

static struct page_source guest_source(struct guest *g)
{
    return (struct page_source){.name = "guest",
                                .bytes = BYTES,
                                .look = guest_look,
                                .read = guest_read,
                                .check = guest_check,
                                .ctx = g};
}

/* guest_goes_on() - everything is the served image's; then some pages are written, removed, or written as they were */
static void guest_goes_on(struct guest *g, unsigned n_changes)
{
    memset(g->served, true, sizeof(g->served));
    for (unsigned i = 0; i < n_changes; i++) {
        uint64_t first = rng_below(&rng, N_PAGES);
        uint64_t end = min_u64(first + 1 + rng_below(&rng, 20), N_PAGES);
        uint64_t what = rng_below(&rng, 4);

        for (uint64_t p = first; p < end; p++) {
            g->served[p] = false;
            if (what == 0)
                g->word[p] = 0;
            else if (what != 1)
                g->word[p] = 1 + rng_below(&rng, 1000);
        }
    }
}

static struct pack_options options(const char *name, const struct image *parent)
{
    return (struct pack_options){.parent = parent,
                                 .codec = FRAME_LZ4,
                                 .frame_pages = 8,
                                 .name = name,
                                 .job = {.n_threads = 2}};
}

static struct image *open_image(const char *name)
{
    struct image *img = NULL;

    assert_int_equal(image_open(&img, store, name), 0);
    return img;
}

/* make() - an image of the guest. @served: what its pages are relative to; @base: the parent that it gets */
static struct image *make(const char *name, struct guest *g, const struct image *served,
                          const struct image *base)
{
    struct pack_options o = options(name, base);
    struct page_source src = guest_source(g);
    struct squash *squash = NULL;
    struct pack_result done;

    if (served != base) {
        struct page_source squashed;

        assert_int_equal(squash_new(&squash, &src, served, base, 2), 0);
        squashed = squash_source(squash);
        assert_int_equal(pack_pages(store, &squashed, &o, &done), 0);
        (void)squash_free(squash);
    } else {
        assert_int_equal(pack_pages(store, &src, &o, &done), 0);
    }
    return open_image(name);
}

static void check_image(const struct image *img, const struct guest *g)
{
    struct image_job job = {.n_threads = 2};
    int fd = memfd_create("thaw-test", MFD_CLOEXEC);
    uint64_t *words;

    assert_true(fd >= 0);
    assert_int_equal(unpack_image(img, fd, "memory", &job), 0);
    words = mmap(NULL, BYTES, PROT_READ, MAP_SHARED, fd, 0);
    assert_ptr_not_equal(words, MAP_FAILED);
    for (size_t i = 0; i < BYTES / 8; i++)
        assert_int_equal(words[i], g->word[i * 8 / IMAGE_PAGE]);
    munmap(words, BYTES);
    close(fd);
}

static struct guest *new_guest(void)
{
    struct guest *g = calloc(1, sizeof(*g));

    assert_non_null(g);
    for (unsigned p = 0; p < N_PAGES; p++)
        g->word[p] = rng_below(&rng, 4) ? 1 + rng_below(&rng, 1000) : 0;
    return g;
}

/* ---- tests ---------------------------------------------------------------------------------------------------- */

static void a_squashed_layer_has_every_byte_and_needs_nothing_between(void **state)
{
    struct guest *g = new_guest();
    struct image *base = make("base", g, NULL, NULL);
    struct image *served = base;
    struct image *squashed;
    struct store_freed freed;
    char name[16];

    (void)state;
    for (unsigned i = 1; i <= 5; i++) {
        struct image *next;

        guest_goes_on(g, 20);
        (void)snprintf(name, sizeof(name), "layer%u", i);
        next = make(name, g, served, served);
        if (served != base)
            (void)image_close(served);
        served = next;
    }
    check_image(served, g);
    guest_goes_on(g, 20);
    squashed = make("squashed", g, served, base);
    check_image(squashed, g);
    assert_int_equal(squashed->manifest->n_parents, 1);
    assert_memory_equal(squashed->manifest->parents[0], base->manifest->id, IMAGE_ID_BYTES);
    assert_true(squashed->manifest->n_packs <= 2);
    (void)image_close(served);
    for (unsigned i = 5; i >= 1; i--) {
        (void)snprintf(name, sizeof(name), "layer%u", i);
        assert_int_equal(store_remove(store, name), 0);
    }
    store = store_close(store);
    assert_int_equal(store_open(&store, folder, false), 0);
    assert_int_equal(store_gc(store, false, &freed), 0);
    assert_true(freed.n_packs >= 4);
    check_image(squashed, g);
    (void)image_close(squashed);
    squashed = open_image("squashed");
    check_image(squashed, g);
    (void)image_close(squashed);
    (void)image_close(base);
    free(g);
    assert_int_equal(store_hold(store), 0);
}

static void a_page_that_was_not_touched_is_not_stored_again(void **state)
{
    struct guest *g = new_guest();
    struct image *base = make("b", g, NULL, NULL);
    struct image *served;
    struct image *squashed;
    uint64_t n_changed = 0;

    (void)state;
    guest_goes_on(g, 10);
    served = make("s", g, base, base);
    guest_goes_on(g, 0);
    squashed = make("q", g, served, base);
    check_image(squashed, g);
    for (uint64_t i = 0; i < squashed->manifest->n_runs; i++) {
        const struct manifest_run *run = &squashed->manifest->runs[i];

        n_changed += squashed->manifest->frames[run->frame].pack == 0 ? run->n : 0;
    }
    assert_true(squashed->manifest->has_own_pack);
    assert_true(n_changed > 0 && n_changed <= 10ul * 20);
    (void)image_close(squashed);
    (void)image_close(served);
    (void)image_close(base);
    free(g);
}

static void the_cost_of_layers_tells_what_is_held_and_what_is_needed(void **state)
{
    struct guest *g = new_guest();
    struct image *base = make("c0", g, NULL, NULL);
    struct image *served = base;
    struct squash_cost cost = squash_cost(base, base);
    char name[16];

    (void)state;
    assert_int_equal(cost.n_layers, 0);
    assert_int_equal(cost.pack_bytes, 0);
    assert_int_equal(cost.needed_bytes, 0);
    for (unsigned i = 1; i <= 4; i++) {
        struct image *next;

        memset(g->served, true, sizeof(g->served));
        for (unsigned p = 100; p < 900;
             p++) { /* the same pages each time: older layers are needed less */
            g->served[p] = p >= 900 - i * 10;
            if (!g->served[p])
                g->word[p] = 1 + rng_below(&rng, 1000);
        }
        (void)snprintf(name, sizeof(name), "c%u", i);
        next = make(name, g, served, served);
        if (served != base)
            (void)image_close(served);
        served = next;
    }
    cost = squash_cost(served, base);
    assert_int_equal(cost.n_layers, 4);
    assert_true(cost.needed_bytes > 0);
    assert_true(cost.pack_bytes > 3 * cost.needed_bytes);
    assert_true(cost.pack_bytes < 6 * cost.needed_bytes);
    (void)image_close(served);
    (void)image_close(base);
    free(g);
}

static void images_of_another_size_are_refused(void **state)
{
    struct guest *g = new_guest();
    struct image *base = make("d", g, NULL, NULL);
    struct page_source src = guest_source(g);
    struct squash *squash = NULL;

    (void)state;
    src.bytes -= IMAGE_PAGE;
    assert_int_equal(squash_new(&squash, &src, base, base, 1), -EINVAL);
    assert_null(squash);
    (void)image_close(base);
    free(g);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_squashed_layer_has_every_byte_and_needs_nothing_between),
        cmocka_unit_test(a_page_that_was_not_touched_is_not_stored_again),
        cmocka_unit_test(the_cost_of_layers_tells_what_is_held_and_what_is_needed),
        cmocka_unit_test(images_of_another_size_are_refused),
    };

    test_watchdog();
    rng = rng_init("squash");
    return cmocka_run_group_tests(tests, make_store, remove_store);
}
