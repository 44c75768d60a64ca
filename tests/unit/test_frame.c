/* SPDX-License-Identifier: Apache-2.0 */
/* test_frame.c - frames: out comes what went in, or an error that names pack and offset, whatever is in the pack */
#include "testing.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>

#include <lz4.h>
#include <zstd.h>

#include "base/err.h"
#include "base/fd.h"
#include "image/frame.h"

#define AT     100u /* offset of the frame in the packs below */
#define GUARD  64u  /* bytes behind the pages, which nobody may touch */
#define FILLER 0xc3u

static unsigned read_max;    /* how many bytes a pread() returns at most; 0: as many as there are */
static unsigned read_eintrs; /* how many are interrupted first */
static int read_errno;       /* what pread() fails with; 0: it works */

ssize_t __real_pread64(int fd, void *buf, size_t len, off_t off); /* NOLINT: the linker's names */
ssize_t __wrap_pread64(int fd, void *buf, size_t len, off_t off); /* NOLINT */

ssize_t __wrap_pread64(int fd, void *buf, size_t len, off_t off) /* NOLINT */
{
    if (read_eintrs > 0) {
        read_eintrs--;
        errno = EINTR;
        return -1;
    }
    if (read_errno != 0) {
        errno = read_errno;
        return -1;
    }
    return __real_pread64(fd, buf, read_max ? min_u64(len, read_max) : len, off);
}

/* struct packed - a frame in a pack of its own */
struct packed {
    struct frame_coder *coder;
    struct manifest_frame frame;
    uint8_t *pages;  /* what went in */
    uint8_t *stored; /* what the pack has of it; more room than the frame needs */
    uint8_t *found;  /* what came out, and GUARD bytes */
    int fd;
};

static const enum frame_codec codecs[] = {FRAME_STORED, FRAME_LZ4, FRAME_ZSTD};

static struct packed packed_new(unsigned n_pages)
{
    struct packed p = {.frame = {.n_pages = (uint16_t)n_pages, .off = AT}};

    assert_int_equal(frame_coder_new(&p.coder), 0);
    p.pages = calloc(n_pages, IMAGE_PAGE);
    p.stored = calloc(1, FRAME_PAGES_MAX * IMAGE_PAGE);
    p.found = malloc(FRAME_PAGES_MAX * IMAGE_PAGE + GUARD);
    p.fd = memfd_create("pack", MFD_CLOEXEC);
    assert_true(p.pages && p.stored && p.found && p.fd >= 0);
    return p;
}

static void packed_free(struct packed *p)
{
    p->coder = frame_coder_free(p->coder);
    free(p->pages);
    free(p->stored);
    free(p->found);
    p->fd = fd_close(p->fd);
}

/* put() - the frame, as it is in @p->stored, into the pack, which ends behind it */
static void put(struct packed *p, size_t stored_bytes)
{
    assert_int_equal(ftruncate(p->fd, 0), 0);
    assert_int_equal(pwrite(p->fd, p->stored, stored_bytes, AT), stored_bytes);
}

static void encode(struct packed *p, enum frame_codec codec, int level)
{
    assert_int_equal(frame_encode(p->coder, &p->frame, p->pages, p->stored, codec, level), 0);
    assert_in_range(p->frame.stored_bytes, 1, p->frame.n_pages * IMAGE_PAGE);
    put(p, p->frame.stored_bytes);
}

/* read_it() - Return: as frame_read(); nothing behind the pages has changed */
static int read_it(struct packed *p)
{
    size_t len = p->frame.n_pages * IMAGE_PAGE;
    int r;

    memset(p->found, FILLER, len + GUARD);
    err_clear();
    r = frame_read(p->coder, &p->frame, p->fd, "THE-PACK", p->found);
    for (unsigned i = 0; i < GUARD; i++)
        assert_int_equal(p->found[len + i], FILLER);
    return r;
}

static void assert_same_pages(struct packed *p)
{
    assert_int_equal(read_it(p), 0);
    assert_memory_equal(p->found, p->pages, p->frame.n_pages * IMAGE_PAGE);
}

/* assert_refused() - with -EIO, and a text that has @what in it */
static void assert_refused(struct packed *p, const char *what)
{
    assert_int_equal(read_it(p), -EIO);
    assert_non_null(strstr(err_text(), "pack THE-PACK"));
    if (!strstr(err_text(), what))
        fail_msg("expected '%s', found '%s'", what, err_text());
}

/* fill() - pages as guests have them: words that occur again, zeroes, noise. @noise: of 16 words so many are noise */
static void fill(struct packed *p, struct rng *r, unsigned noise)
{
    for (size_t i = 0; i < p->frame.n_pages * IMAGE_PAGE; i += 8) {
        uint64_t word = rng_below(r, 16) < noise ? rng_next(r) : rng_below(r, 3) << 12;

        memcpy(p->pages + i, &word, 8);
    }
}

static void what_goes_in_comes_out_with_every_codec_and_size(void **state)
{
    static const unsigned sizes[] = {1, 2, 3, 4, 16, 64, 511, 512};
    struct rng r = rng_init("frame pages");

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(sizes) * ARRAY_LEN(codecs); i++) {
        struct packed p = packed_new(sizes[i / ARRAY_LEN(codecs)]);
        enum frame_codec codec = codecs[i % ARRAY_LEN(codecs)];

        for (unsigned noise = 0; noise <= 16; noise += 4) {
            fill(&p, &r, noise);
            encode(&p, codec, 0);
            assert_int_equal(p.frame.codec, noise == 16 ? FRAME_STORED : codec);
            assert_same_pages(&p);
        }
        packed_free(&p);
    }
}

static void what_does_not_become_smaller_is_stored_as_it_is(void **state)
{
    struct rng r = rng_init("frame noise");
    struct packed p = packed_new(4);

    (void)state;
    fill(&p, &r, 16);
    for (size_t i = 0; i < ARRAY_LEN(codecs); i++) {
        memset(p.stored, 0, 4 * IMAGE_PAGE);
        encode(&p, codecs[i], 1);
        assert_int_equal(p.frame.codec, FRAME_STORED);
        assert_int_equal(p.frame.stored_bytes, 4 * IMAGE_PAGE);
        assert_memory_equal(p.stored, p.pages, 4 * IMAGE_PAGE);
        assert_same_pages(&p);
    }
    packed_free(&p);
}

static void every_level_of_a_codec_works_and_no_other(void **state)
{
    static const int wrong[][2] = {
        {FRAME_LZ4, -1}, {FRAME_LZ4, 13}, {FRAME_ZSTD, -1}, {FRAME_ZSTD, 23}};
    struct rng r = rng_init("frame levels");
    struct packed p = packed_new(4);

    (void)state;
    fill(&p, &r, 4);
    for (int level = 0; level <= 22; level++) {
        encode(&p, FRAME_ZSTD, level);
        assert_int_equal(p.frame.codec, FRAME_ZSTD);
        assert_same_pages(&p);
        if (level > 12)
            continue;
        encode(&p, FRAME_LZ4, level);
        assert_int_equal(p.frame.codec, FRAME_LZ4);
        assert_same_pages(&p);
    }
    for (size_t i = 0; i < ARRAY_LEN(wrong); i++) {
        assert_int_equal(frame_encode(p.coder, &p.frame, p.pages, p.stored,
                                      (enum frame_codec)wrong[i][0], wrong[i][1]),
                         -EINVAL);
        assert_non_null(strstr(err_text(), wrong[i][0] == FRAME_LZ4 ? "0 to 12" : "0 to 22"));
    }
    packed_free(&p);
}

static void the_same_pages_give_the_same_bytes_whatever_the_coder_did_before(void **state)
{
    struct rng r = rng_init("frame again");
    struct packed p = packed_new(16);
    struct packed other = packed_new(64);

    (void)state;
    for (unsigned round = 0; round < 40; round++) {
        enum frame_codec codec = codecs[1 + rng_below(&r, 2)];
        int level = (int)rng_below(&r, 10);

        fill(&p, &r, 1 + (unsigned)rng_below(&r, 8));
        encode(&p, codec, level);
        fill(&other, &r, (unsigned)rng_below(&r, 8));
        encode(&other, codecs[1 + rng_below(&r, 2)], (int)rng_below(&r, 10));
        other.frame.n_pages = 16;
        memcpy(other.pages, p.pages, 16 * IMAGE_PAGE);
        encode(&other, codec, level);
        assert_int_equal(other.frame.stored_bytes, p.frame.stored_bytes);
        assert_memory_equal(other.stored, p.stored, p.frame.stored_bytes);
        assert_int_equal(other.frame.checksum, p.frame.checksum);
        other.frame.n_pages = 64;
    }
    packed_free(&p);
    packed_free(&other);
}

static void a_frame_of_zeroes_is_a_few_bytes(void **state)
{
    struct packed p = packed_new(1);

    (void)state;
    encode(&p, FRAME_ZSTD, 3);
    assert_in_range(p.frame.stored_bytes, 1, 20); /* neither a length nor a checksum of zstd's */
    assert_int_equal(p.frame.checksum,
                     0x93d76fe148c689ba); /* XXH3 as another implementation has it */
    assert_same_pages(&p);
    encode(&p, FRAME_LZ4, 0);
    assert_in_range(p.frame.stored_bytes, 1, 40);
    packed_free(&p);
}

static void no_bit_of_a_frame_can_turn_over_and_give_other_pages(void **state)
{
    struct rng r = rng_init("frame bits");

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(codecs); i++) {
        struct packed p = packed_new(1);
        unsigned n_same = 0;

        for (unsigned k = 0; k < IMAGE_PAGE; k++) /* nothing is where it would fit as well */
            p.pages[k] = (uint8_t)(k < IMAGE_PAGE / 4 ? rng_next(&r) : p.pages[k - IMAGE_PAGE / 4]);
        encode(&p, codecs[i], 0);
        for (size_t bit = 0; bit < p.frame.stored_bytes * 8ull; bit++) {
            p.stored[bit / 8] ^= (uint8_t)(1u << (bit % 8));
            put(&p, p.frame.stored_bytes);
            if (read_it(&p) == 0) {
                assert_memory_equal(p.found, p.pages, IMAGE_PAGE);
                n_same++; /* bits that decoders do not look at */
            } else {
                assert_non_null(strstr(err_text(), "pack THE-PACK is damaged: a frame of "));
                assert_non_null(strstr(err_text(), " (offset 100)"));
            }
            p.stored[bit / 8] ^= (uint8_t)(1u << (bit % 8));
        }
        assert_in_range(n_same, 0, 16);
        packed_free(&p);
    }
}

static void a_pack_that_ends_too_early_is_noticed_at_every_length(void **state)
{
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(codecs); i++) {
        struct packed p = packed_new(1);
        char expected[80];

        memset(p.pages, 0x77, 3000);
        encode(&p, codecs[i], 0);
        for (size_t len = 0; len < AT + p.frame.stored_bytes; len++) {
            assert_int_equal(ftruncate(p.fd, (off_t)len), 0);
            (void)snprintf(expected, sizeof(expected), "it ends too early (offset %zu)",
                           len < AT ? AT : len);
            assert_refused(&p, expected);
            put(&p, p.frame.stored_bytes);
        }
        assert_same_pages(&p);
        packed_free(&p);
    }
}

static void wrong_words_about_a_frame_are_noticed(void **state)
{
    struct rng r = rng_init("frame words");

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(codecs); i++) {
        struct packed p = packed_new(2);
        struct manifest_frame right;

        fill(&p, &r, 8);
        encode(&p, codecs[i], 0);
        put(&p, p.frame.stored_bytes + 1); /* another frame may follow */
        assert_same_pages(&p);
        right = p.frame;
        p.frame.checksum ^= 1ull << rng_below(&r, 64);
        assert_refused(&p, "has the wrong checksum (offset 100)");
        p.frame = right;
        p.frame.off--;
        assert_refused(&p, "(offset 99)");
        p.frame = right;
        for (size_t k = 0; k < ARRAY_LEN(codecs); k++) {
            p.frame.codec = (uint8_t)codecs[k];
            p.frame.stored_bytes = k == 0 ? 2 * IMAGE_PAGE : right.stored_bytes;
            if (k != i)
                assert_refused(&p, "pack THE-PACK is damaged");
        }
        p.frame = right;
        for (unsigned n = 1; n <= 3 && codecs[i] != FRAME_STORED; n++) {
            p.frame.n_pages = (uint16_t)n;
            p.frame.stored_bytes = (uint32_t)min_u64(right.stored_bytes, n * IMAGE_PAGE);
            if (n != 2)
                assert_refused(&p, "(offset 100)");
        }
        p.frame = right;
        for (int by = -1; by <= 1 && codecs[i] != FRAME_STORED; by += 2) {
            p.frame.stored_bytes = right.stored_bytes + by;
            assert_refused(&p, frame_codec_name(codecs[i]));
        }
        packed_free(&p);
    }
}

/* bomb() - @len equal bytes, compressed into the pack of @p */
static void bomb(struct packed *p, enum frame_codec codec, size_t len)
{
    char *bytes = calloc(1, len);
    size_t room = FRAME_PAGES_MAX * IMAGE_PAGE;
    size_t n;

    assert_non_null(bytes);
    n = codec == FRAME_ZSTD
            ? ZSTD_compress(p->stored, room, bytes, len, 1)
            : (size_t)LZ4_compress_default(bytes, (char *)p->stored, (int)len, (int)room);
    assert_in_range(n, 1, room - 1);
    p->frame.codec = (uint8_t)codec;
    p->frame.stored_bytes = (uint32_t)n;
    put(p, n);
    free(bytes);
}

static void a_bomb_gets_no_more_room_than_the_manifest_says(void **state)
{
    (void)state;
    for (unsigned shift = 0; shift <= 14; shift++) {
        struct packed p = packed_new(1);

        bomb(&p, FRAME_ZSTD, (IMAGE_PAGE << shift) + 1);
        assert_refused(&p, "cannot be decompressed by zstd (offset 100)");
        packed_free(&p);
    }
    for (unsigned n_pages = 1; n_pages <= FRAME_PAGES_MAX; n_pages *= 2) {
        struct packed p = packed_new(n_pages);

        bomb(&p, FRAME_LZ4, n_pages * IMAGE_PAGE + 1);
        assert_refused(&p, "cannot be decompressed by lz4 (offset 100)");
        bomb(&p, FRAME_LZ4, n_pages * IMAGE_PAGE - 1);
        assert_refused(&p, "cannot be decompressed by lz4 (offset 100)");
        bomb(&p, FRAME_ZSTD, n_pages * IMAGE_PAGE - 1);
        assert_refused(&p, "cannot be decompressed by zstd (offset 100)");
        packed_free(&p);
    }
}

static void several_frames_of_zstd_are_not_one(void **state)
{
    static const uint8_t skipped[] = {0x50, 0x2a, 0x4d, 0x18, 3, 0, 0, 0, 1, 2, 3};
    struct packed p = packed_new(2);
    struct packed half = packed_new(1);

    (void)state;
    encode(&half, FRAME_ZSTD, 0);
    encode(&p, FRAME_ZSTD, 0);
    assert_same_pages(&p);
    memcpy(p.stored, half.stored, half.frame.stored_bytes);
    memcpy(p.stored + half.frame.stored_bytes, half.stored, half.frame.stored_bytes);
    p.frame.stored_bytes = 2 * half.frame.stored_bytes;
    put(&p, p.frame.stored_bytes);
    assert_refused(&p, "cannot be decompressed by zstd");
    memcpy(p.stored, skipped, sizeof(skipped));
    p.frame.stored_bytes = sizeof(skipped);
    put(&p, p.frame.stored_bytes);
    assert_refused(&p, "cannot be decompressed by zstd");
    encode(&half, FRAME_ZSTD, 0);
    memmove(half.stored + sizeof(skipped), half.stored, half.frame.stored_bytes);
    memcpy(half.stored, skipped, sizeof(skipped));
    half.frame.stored_bytes += sizeof(skipped);
    put(&half, half.frame.stored_bytes);
    assert_refused(&half, "cannot be decompressed by zstd");
    packed_free(&p);
    packed_free(&half);
}

static void noise_is_refused(void **state)
{
    struct rng r = rng_init("frame of noise");
    struct packed p = packed_new(3);

    (void)state;
    for (unsigned round = 0; round < 2000; round++) {
        p.frame.codec = (uint8_t)(1 + rng_below(&r, 2));
        p.frame.stored_bytes = 1 + (uint32_t)rng_below(&r, rng_below(&r, 2) ? 30 : 3 * IMAGE_PAGE);
        for (uint32_t i = 0; i < p.frame.stored_bytes; i++)
            p.stored[i] = (uint8_t)rng_next(&r);
        if (p.frame.codec == FRAME_ZSTD)
            memcpy(p.stored, "\x28\xb5\x2f\xfd", min_u64(4, p.frame.stored_bytes));
        put(&p, p.frame.stored_bytes);
        assert_refused(&p, "(offset 100)");
    }
    packed_free(&p);
}

static void reads_that_are_short_or_interrupted_go_on(void **state)
{
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(codecs); i++) {
        struct packed p = packed_new(2);

        memset(p.pages + 100, 0x11, 5000);
        encode(&p, codecs[i], 0);
        for (read_max = 1; read_max < 2000; read_max *= 3) {
            read_eintrs = 2;
            assert_same_pages(&p);
        }
        read_max = 0;
        packed_free(&p);
    }
}

static void what_cannot_be_read_is_an_error_that_says_why(void **state)
{
    struct packed p = packed_new(1);

    (void)state;
    encode(&p, FRAME_ZSTD, 0);
    read_errno = EIO;
    assert_refused(&p, "cannot read pack THE-PACK at offset 100: Input/output error");
    read_errno = ENOMEM;
    assert_refused(&p, "cannot read pack THE-PACK at offset 100: Cannot allocate memory");
    read_errno = 0;
    assert_same_pages(&p);
    packed_free(&p);
}

static void a_pack_that_begins_otherwise_is_refused(void **state)
{
    static const struct {
        size_t at;
        uint8_t value;
        const char *text;
    } wrong[] = {
        {0, 'X', "pack THE-PACK is damaged: it does not begin as a pack (offset 0)"},
        {7, 2, "pack THE-PACK is damaged: it does not begin as a pack (offset 0)"},
        {8, 2, "pack THE-PACK is of version 2, this thaw reads version 1 (offset 8)"},
        {12, 65, "pack THE-PACK is damaged: no such length of a header (offset 12)"},
        {16, 1, "pack THE-PACK is damaged: what is reserved is not 0 (offset 16)"},
        {63, 1, "pack THE-PACK is damaged: what is reserved is not 0 (offset 16)"},
    };
    uint8_t header[64] = {'T', 'h', 'w', 'I', 'P', 'a', 'c', 1, 1, 0, 0, 0, 64};
    struct packed p = packed_new(1);

    (void)state;
    assert_int_equal(pwrite(p.fd, header, sizeof(header), 0), sizeof(header));
    assert_int_equal(pack_check_header(p.fd, "THE-PACK"), 0);
    for (size_t i = 0; i < ARRAY_LEN(wrong); i++) {
        assert_int_equal(pwrite(p.fd, &wrong[i].value, 1, (off_t)wrong[i].at), 1);
        assert_int_equal(pack_check_header(p.fd, "THE-PACK"), -EIO);
        assert_string_equal(err_text(), wrong[i].text);
        assert_int_equal(pwrite(p.fd, header, sizeof(header), 0), sizeof(header));
    }
    for (size_t len = 0; len < sizeof(header); len++) {
        assert_int_equal(ftruncate(p.fd, (off_t)len), 0);
        assert_int_equal(pack_check_header(p.fd, "THE-PACK"), -EIO);
        assert_non_null(strstr(err_text(), "pack THE-PACK is damaged: it ends too early (offset "));
    }
    packed_free(&p);
}

static void codecs_have_names(void **state)
{
    (void)state;
    assert_string_equal(frame_codec_name(FRAME_STORED), "none");
    assert_string_equal(frame_codec_name(FRAME_LZ4), "lz4");
    assert_string_equal(frame_codec_name(FRAME_ZSTD), "zstd");
    assert_null(frame_codec_name(3));
    assert_null(frame_codec_name(UINT32_MAX));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_goes_in_comes_out_with_every_codec_and_size),
        cmocka_unit_test(what_does_not_become_smaller_is_stored_as_it_is),
        cmocka_unit_test(every_level_of_a_codec_works_and_no_other),
        cmocka_unit_test(the_same_pages_give_the_same_bytes_whatever_the_coder_did_before),
        cmocka_unit_test(a_frame_of_zeroes_is_a_few_bytes),
        cmocka_unit_test(no_bit_of_a_frame_can_turn_over_and_give_other_pages),
        cmocka_unit_test(a_pack_that_ends_too_early_is_noticed_at_every_length),
        cmocka_unit_test(wrong_words_about_a_frame_are_noticed),
        cmocka_unit_test(a_bomb_gets_no_more_room_than_the_manifest_says),
        cmocka_unit_test(several_frames_of_zstd_are_not_one),
        cmocka_unit_test(noise_is_refused),
        cmocka_unit_test(reads_that_are_short_or_interrupted_go_on),
        cmocka_unit_test(what_cannot_be_read_is_an_error_that_says_why),
        cmocka_unit_test(a_pack_that_begins_otherwise_is_refused),
        cmocka_unit_test(codecs_have_names),
    };

    test_watchdog();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
