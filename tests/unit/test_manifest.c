/* SPDX-License-Identifier: Apache-2.0 */
/* test_manifest.c - an image's manifest: written, read, searched, and refused in one line for whatever is wrong with it */
#include "images.h"

#include <errno.h>
#include <stdio.h>

#include "base/err.h"

static uint8_t *format(struct manifest *m, size_t *len)
{
    void *bytes = NULL;

    assert_int_equal(manifest_format(m, &bytes, len), 0);
    return bytes;
}

/* small() - the bytes of images_small() */
static uint8_t *small(void)
{
    struct manifest *m = images_small();
    size_t len;
    uint8_t *bytes = format(m, &len);

    assert_int_equal(len, SMALL_BYTES);
    m = manifest_free(m);
    return bytes;
}

static struct manifest *parse(const void *bytes, size_t len)
{
    struct manifest *m = NULL;

    assert_int_equal(manifest_parse(&m, "x", bytes, len), 0);
    assert_null(image_wrong(m));
    return m;
}

/* parse_error() - @bytes are refused. Return: the text */
static const char *parse_error(const void *bytes, size_t len)
{
    struct manifest *m = NULL;

    err_clear();
    assert_int_equal(manifest_parse(&m, "THE-NAME", bytes, len), -EINVAL);
    assert_null(m);
    assert_non_null(strstr(err_text(), "THE-NAME"));
    return err_text();
}

static void what_is_written_and_read_is_the_same_and_so_are_its_bytes_and_its_id(void **state)
{
    struct rng r = rng_init("manifest bytes");

    (void)state;
    for (unsigned round = 0; round < 300; round++) {
        struct manifest *m = images_random(&r, 1 + (uint32_t)rng_below(&r, 100));
        struct manifest *back;
        size_t len;
        size_t len_again;
        uint8_t *bytes = format(m, &len);
        uint8_t *again;

        back = parse(bytes, len);
        assert_memory_equal(back->id, m->id, IMAGE_ID_BYTES);
        assert_int_equal(back->has_own_pack, m->has_own_pack);
        assert_int_equal(back->n_runs, m->n_runs);
        assert_memory_equal(back->runs, m->runs, m->n_runs * sizeof(*m->runs));
        again = format(back, &len_again);
        assert_int_equal(len_again, len);
        assert_memory_equal(again, bytes, len);
        free(bytes);
        free(again);
        m = manifest_free(m);
        back = manifest_free(back);
    }
}

static void an_image_of_zeroes_needs_no_tables(void **state)
{
    struct manifest *m = NULL;
    struct manifest *back;
    size_t len;
    uint8_t *bytes;

    (void)state;
    assert_int_equal(manifest_new(&m, IMAGE_BYTES_MAX), 0);
    bytes = format(m, &len);
    assert_int_equal(len, 128 + 32);
    back = parse(bytes, len);
    assert_int_equal(manifest_find(back, 0), 0);
    back = manifest_free(back);
    m = manifest_free(m);
    free(bytes);
}

static void a_file_has_exactly_the_bytes_that_the_manual_says(void **state)
{
    /* Every number by hand; the SHA-256 is as another implementation has it. */
    static const char header[] = "546877494d616e01" /* magic */
                                 "0100000080000000" /* version, header */
                                 "0040060000000000" /* image: 100 pages */
                                 "00f1536500000000" /* created */
                                 "0200000002000000" /* parents, packs */
                                 "0300000001000000" /* frames, a pack of its own */
                                 "0400000000000000" /* runs */
                                 "0300000000000000" /* working set */;
    static const char tables[] = "a4200000"
                                 "00000000" /* the second half of a pack: its length */
                                 "00000000"
                                 "64000000"
                                 "4000000000000000" /* frame: pack, stored, offset */
                                 "0800"
                                 "02"
                                 "0000000000"
                                 "1111000000000000"; /* pages, codec, checksum */
    static const char run[] = "6200000000000000"
                              "02000000"
                              "00000000"
                              "06000000"
                              "00000000";
    static const char hot[] = "0d00000000000000"
                              "0100000000000000";
    static const char id[] = "cc33cddd4d8899725477e472b4575410a4313550ec4a5874df711e7ce0d2b2b1";
    uint8_t *bytes = small();
    char text[2 * SMALL_BYTES + 1];

    (void)state;
    for (size_t i = 0; i < SMALL_BYTES; i++)
        (void)snprintf(text + 2 * i, 3, "%02x", bytes[i]);
    assert_memory_equal(text, header, sizeof(header) - 1);
    for (size_t i = 64; i < SMALL_PARENTS; i++)
        assert_int_equal(bytes[i], 0);
    for (size_t i = 0; i < 32; i++) {
        assert_int_equal(bytes[SMALL_PARENTS + i], 0xa0);
        assert_int_equal(bytes[SMALL_PARENTS + 32 + i], 0xa1);
        assert_int_equal(bytes[SMALL_PACKS + i], 0xb0);
        assert_int_equal(bytes[SMALL_PACKS + 40 + i], 0xb1);
    }
    assert_memory_equal(text + 2 * (SMALL_PACKS + 32), tables, 16);
    assert_memory_equal(text + 2 * SMALL_FRAMES, tables + 16, 64);
    assert_memory_equal(text + 2 * (SMALL_RUNS + 3 * 24), run, 48);
    assert_memory_equal(text + 2 * (SMALL_HOT + 2 * 16), hot, 32);
    assert_string_equal(text + 2 * SMALL_ID, id);
    free(bytes);
}

static void bytes_are_read_at_any_address(void **state)
{
    uint8_t *bytes = small();
    uint8_t *moved = malloc(SMALL_BYTES + 8);

    (void)state;
    assert_non_null(moved);
    for (unsigned by = 0; by < 8; by++) {
        struct manifest *m;

        memcpy(moved + by, bytes, SMALL_BYTES);
        m = parse(moved + by, SMALL_BYTES);
        m = manifest_free(m);
    }
    free(bytes);
    free(moved);
}

static void every_bit_that_is_turned_over_is_noticed(void **state)
{
    uint8_t *bytes = small();

    (void)state;
    for (size_t bit = 0; bit < SMALL_BYTES * 8; bit++) {
        bytes[bit / 8] ^= (uint8_t)(1u << (bit % 8));
        (void)parse_error(bytes, SMALL_BYTES);
        bytes[bit / 8] ^= (uint8_t)(1u << (bit % 8));
    }
    free(bytes);
}

static void with_any_other_byte_and_the_right_id_it_is_refused_or_can_be_trusted(void **state)
{
    static const uint8_t others[] = {0x01, 0x80, 0xff, 0x7f, 0x03};
    uint8_t *bytes = small();
    unsigned n_good = 0;

    (void)state;
    for (size_t i = 0; i < SMALL_ID * ARRAY_LEN(others); i++) {
        size_t at = i / ARRAY_LEN(others);
        struct manifest *m = NULL;

        bytes[at] ^= others[i % ARRAY_LEN(others)];
        images_sign(bytes, SMALL_BYTES);
        err_clear();
        if (manifest_parse(&m, "it", bytes, SMALL_BYTES) == 0) {
            assert_null(image_wrong(m));
            n_good++;
        } else {
            assert_non_null(strstr(err_text(), "it"));
        }
        m = manifest_free(m);
        bytes[at] ^= others[i % ARRAY_LEN(others)];
    }
    assert_true(n_good > 100); /* ids, checksums and the time can be anything */
    free(bytes);
}

static void a_file_that_is_cut_or_goes_on_is_noticed(void **state)
{
    uint8_t *bytes = small();
    uint8_t *longer = calloc(1, SMALL_BYTES + 40);
    struct manifest *m;

    (void)state;
    assert_non_null(longer);
    memcpy(longer, bytes, SMALL_BYTES);
    for (size_t n = 0; n < 128; n++)
        assert_non_null(strstr(parse_error(bytes, n), "THE-NAME is not a manifest"));
    for (size_t n = 128; n < SMALL_BYTES; n++) {
        char expected[80];

        (void)snprintf(expected, sizeof(expected), "it ends too early (offset %zu)", n);
        assert_non_null(strstr(parse_error(bytes, n), expected));
    }
    for (size_t n = 1; n <= 40; n++)
        assert_non_null(strstr(parse_error(longer, SMALL_BYTES + n), "behind its id (offset 544)"));
    m = parse(longer, SMALL_BYTES);
    m = manifest_free(m);
    free(bytes);
    free(longer);
}

/* struct damage - something in the file has another value, and the id is right */
static const struct damage {
    const char *text;
    size_t offset; /* of what is changed */
    unsigned bytes;
    uint64_t value;
} header_damages[] = {
    {"THE-NAME is not a manifest", 0, 1, 2},
    {"manifest THE-NAME is of version 2, this thaw reads version 1", 8, 4, 2},
    {"no such length of a header (offset 12)", 12, 4, 136},
    {"no such size of an image (offset 16)", 16, 8, 0},
    {"no such size of an image (offset 16)", 16, 8, 409601},
    {"no such size of an image (offset 16)", 16, 8, (1ull << 46) + 4096},
    {"no such time (offset 24)", 24, 8, 1ull << 63},
    {"too many parents (offset 32)", 32, 4, 65537},
    {"it ends too early (offset 544)", 32, 4, 65536},
    {"it ends too early (offset 544)", 32, 4, 3},
    {"it does not end behind its id (offset 512)", 32, 4, 1},
    {"too many packs (offset 36)", 36, 4, 65537},
    {"it ends too early (offset 544)", 36, 4, 65536},
    {"it has no pack that could be its own (offset 44)", 36, 4, 0},
    {"it ends too early (offset 544)", 40, 4, UINT32_MAX},
    {"it does not end behind its id (offset 448)", 40, 4, 0},
    {"a pack of its own is 0 or 1 (offset 44)", 44, 4, 2},
    {"more runs than the image has pages (offset 48)", 48, 8, 101},
    {"more runs than the image has pages (offset 48)", 48, 8, UINT64_MAX / 24 + 1},
    {"it ends too early (offset 544)", 48, 8, 100},
    {"a working set of more runs than the image has pages (offset 56)", 56, 8, 1ull << 60},
    {"it ends too early (offset 544)", 56, 8, 100},
    {"what is reserved is not 0 (offset 64)", 64, 1, 1},
    {"what is reserved is not 0 (offset 64)", 127, 1, 0x80},
};

static const struct damage table_damages[] = {
    {"a parent occurs twice (offset 160)", SMALL_PARENTS, 32, 0xa1a1a1a1a1a1a1a1},
    {"a pack occurs twice (offset 232)", SMALL_PACKS, 32, 0xb1b1b1b1b1b1b1b1},
    {"no such length of a pack (offset 192)", SMALL_PACKS + 32, 8, 63},
    {"no such length of a pack (offset 232)", SMALL_PACKS + 72, 8, 1ull << 63},
    {"a frame beyond the end of its pack (offset 304)", SMALL_PACKS + 32, 8, 164 + 8191},
    {"a frame in a pack that is not there (offset 336)", SMALL_FRAMES + 64, 4, 2},
    {"a frame in a pack that is not there (offset 272)", SMALL_FRAMES, 4, UINT32_MAX},
    {"no such number of pages of a frame (offset 272)", SMALL_FRAMES + 16, 2, 0},
    {"no such number of pages of a frame (offset 272)", SMALL_FRAMES + 16, 2, 513},
    {"no such codec of a frame (offset 336)", SMALL_FRAMES + 64 + 18, 1, 3},
    {"no such stored length of a frame (offset 272)", SMALL_FRAMES + 4, 4, 0},
    {"no such stored length of a frame (offset 272)", SMALL_FRAMES + 4, 4, 32769},
    {"no such stored length of a frame (offset 304)", SMALL_FRAMES + 32 + 4, 4, 8191},
    {"what is reserved in a frame is not 0 (offset 272)", SMALL_FRAMES + 19, 1, 1},
    {"what is reserved in a frame is not 0 (offset 336)", SMALL_FRAMES + 64 + 23, 1, 1},
    {"a frame within its pack's header (offset 272)", SMALL_FRAMES + 8, 8, 63},
    {"a frame beyond the end of its pack (offset 336)", SMALL_FRAMES + 64 + 8, 8, 4047},
    {"a frame beyond the end of its pack (offset 336)", SMALL_FRAMES + 64 + 8, 8, UINT64_MAX - 20},
    {"a frame out of order (offset 304)", SMALL_FRAMES, 4, 1},
    {"a frame out of order (offset 304)", SMALL_FRAMES + 8, 8, 165},
    {"a frame that overlaps the one before it (offset 304)", SMALL_FRAMES + 4, 4, 101},
    {"a run of no pages (offset 368)", SMALL_RUNS + 8, 4, 0},
    {"a run beyond the end of the image (offset 440)", SMALL_RUNS + 72, 8, 99},
    {"a run beyond the end of the image (offset 440)", SMALL_RUNS + 72, 8, 100},
    {"a run beyond the end of the image (offset 440)", SMALL_RUNS + 72, 8, UINT64_MAX},
    {"a run in a frame that is not there (offset 416)", SMALL_RUNS + 48 + 12, 4, 3},
    {"a run beyond the end of its frame (offset 368)", SMALL_RUNS + 8, 4, 3},
    {"a run beyond the end of its frame (offset 392)", SMALL_RUNS + 24 + 16, 4, 4},
    {"a run beyond the end of its frame (offset 392)", SMALL_RUNS + 24 + 16, 4, UINT32_MAX},
    {"a run beyond the end of its frame (offset 392)", SMALL_RUNS + 24 + 8, 4, 8},
    {"what is reserved in a run is not 0 (offset 368)", SMALL_RUNS + 20, 4, 1u << 31},
    {"a run out of order (offset 392)", SMALL_RUNS, 8, 11},
    {"a run that overlaps the one before it (offset 416)", SMALL_RUNS + 48, 8, 14},
    {"a run of no pages in the working set (offset 464)", SMALL_HOT + 8, 8, 0},
    {"a run of the working set beyond the end of the image (offset 464)", SMALL_HOT + 8, 8, 51},
    {"a run of the working set beyond the end of the image (offset 480)", SMALL_HOT + 16, 8, 100},
    {"a run of the working set beyond the end of the image (offset 480)", SMALL_HOT + 24, 8,
     UINT64_MAX},
    {"a run of the working set that overlaps one before it (offset 480)", SMALL_HOT + 16, 8, 59},
    {"a run of the working set that overlaps one before it (offset 496)", SMALL_HOT + 32, 8, 12},
    {"a run of the working set that overlaps one before it (offset 496)", SMALL_HOT + 32, 8, 55},
};

static void assert_noticed(const struct damage *damages, size_t n)
{
    for (const struct damage *d = damages; d < damages + n; d++) {
        uint8_t *bytes = small();
        const char *text;
        const char *at;

        for (unsigned i = 0; i < d->bytes; i += 8) /* a whole id is one value, repeated */
            memcpy(bytes + d->offset + i, &d->value, min_u64(8, d->bytes - i));
        images_sign(bytes, SMALL_BYTES);
        text = parse_error(bytes, SMALL_BYTES);
        at = strstr(text, d->text);
        if (!at || at[strlen(d->text)] != '\0')
            fail_msg("expected '%s', found '%s'", d->text, text);
        free(bytes);
    }
}

static void damage_of_the_header_is_named_with_its_offset(void **state)
{
    (void)state;
    assert_noticed(header_damages, ARRAY_LEN(header_damages));
}

static void damage_of_a_table_is_named_with_its_offset_even_if_the_id_is_right(void **state)
{
    (void)state;
    assert_noticed(table_damages, ARRAY_LEN(table_damages));
}

static void a_wrong_id_is_named_with_its_offset(void **state)
{
    uint8_t *bytes = small();

    (void)state;
    bytes[SMALL_BYTES - 1] ^= 1;
    assert_string_equal(parse_error(bytes, SMALL_BYTES),
                        "manifest THE-NAME is damaged: its sha256 is wrong (offset 512)");
    free(bytes);
}

static void a_large_file_in_which_all_is_wrong_is_refused_soon(void **state)
{
    enum {
        N = 300000
    };
    struct manifest *m = images_new(IMAGE_BYTES_MAX / IMAGE_PAGE, 65536, 65536, 0, 0, N);
    size_t len;
    uint8_t *bytes;

    (void)state;
    for (uint64_t i = 0; i < N; i++)
        m->hot[i] = (struct manifest_hot){.first = N - i, .n = i + 1};
    m->n_hot = N;
    bytes = format(m, &len);
    assert_non_null(strstr(parse_error(bytes, len), "overlaps one before it (offset 144)"));
    free(bytes);
    m->n_hot = 0;
    for (uint32_t i = 0; i < 65536; i++)
        m->packs[i].bytes = 64;
    m->n_parents = 65536;
    bytes = format(m, &len);
    assert_non_null(strstr(parse_error(bytes, len), "a parent occurs twice (offset 160)"));
    free(bytes);
    m->n_parents = 0;
    m->n_packs = 65536;
    bytes = format(m, &len);
    assert_non_null(strstr(parse_error(bytes, len), "a pack occurs twice (offset 168)"));
    free(bytes);
    m = manifest_free(m);
}

static void too_many_runs_for_a_file_are_not_written(void **state)
{
    struct manifest *m = images_small();
    void *bytes = NULL;
    size_t len;

    (void)state;
    for (unsigned shift = 59; shift < 64; shift++) {
        m->n_runs = 1ull << shift;
        assert_int_equal(manifest_format(m, &bytes, &len), -ENOMEM);
        assert_null(bytes);
    }
    m = manifest_free(m);
}

static void a_page_is_found_in_its_run_or_before_the_next_one(void **state)
{
    struct rng r = rng_init("manifest find");

    (void)state;
    for (unsigned round = 0; round < 50; round++) {
        struct manifest *m = images_random(&r, 1 + (uint32_t)rng_below(&r, 60));

        for (uint64_t page = 0; page < m->image_bytes / IMAGE_PAGE; page++) {
            uint64_t i = 0;

            while (i < m->n_runs && m->runs[i].first + m->runs[i].n <= page)
                i++;
            assert_int_equal(manifest_find(m, page), i);
        }
        m = manifest_free(m);
    }
}

static void an_id_is_64_digits(void **state)
{
    uint8_t id[IMAGE_ID_BYTES];
    char text[IMAGE_ID_TEXT];

    (void)state;
    for (unsigned i = 0; i < IMAGE_ID_BYTES; i++)
        id[i] = (uint8_t)(i * 8 + i / 4);
    assert_ptr_equal(image_id_text(id, text), text);
    assert_string_equal(text, "0008101821293139424a525a636b737b848c949ca5adb5bdc6ced6dee7eff7ff");
}

static void a_digest_is_sha256_in_whatever_pieces(void **state)
{
    static const uint8_t of_abc[IMAGE_ID_BYTES] = {
        0xba, 0x78, 0x16, 0xbf, 0x8f, 0x01, 0xcf, 0xea, 0x41, 0x41, 0x40,
        0xde, 0x5d, 0xae, 0x22, 0x23, 0xb0, 0x03, 0x61, 0xa3, 0x96, 0x17,
        0x7a, 0x9c, 0xb4, 0x10, 0xff, 0x61, 0xf2, 0x00, 0x15, 0xad,
    };
    uint8_t found[IMAGE_ID_BYTES];
    struct digest d;

    (void)state;
    digest_of("abc", 3, found);
    assert_memory_equal(found, of_abc, IMAGE_ID_BYTES);
    digest_init(&d);
    for (unsigned again = 0; again < 2; again++) {
        digest_add(&d, "a", 1);
        digest_add(&d, "", 0);
        digest_add(&d, "bc", 2);
        digest_end(&d, found);
        assert_memory_equal(found, of_abc, IMAGE_ID_BYTES);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_written_and_read_is_the_same_and_so_are_its_bytes_and_its_id),
        cmocka_unit_test(an_image_of_zeroes_needs_no_tables),
        cmocka_unit_test(a_file_has_exactly_the_bytes_that_the_manual_says),
        cmocka_unit_test(bytes_are_read_at_any_address),
        cmocka_unit_test(every_bit_that_is_turned_over_is_noticed),
        cmocka_unit_test(with_any_other_byte_and_the_right_id_it_is_refused_or_can_be_trusted),
        cmocka_unit_test(a_file_that_is_cut_or_goes_on_is_noticed),
        cmocka_unit_test(damage_of_the_header_is_named_with_its_offset),
        cmocka_unit_test(damage_of_a_table_is_named_with_its_offset_even_if_the_id_is_right),
        cmocka_unit_test(a_wrong_id_is_named_with_its_offset),
        cmocka_unit_test(a_large_file_in_which_all_is_wrong_is_refused_soon),
        cmocka_unit_test(too_many_runs_for_a_file_are_not_written),
        cmocka_unit_test(a_page_is_found_in_its_run_or_before_the_next_one),
        cmocka_unit_test(an_id_is_64_digits),
        cmocka_unit_test(a_digest_is_sha256_in_whatever_pieces),
    };

    test_watchdog();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
