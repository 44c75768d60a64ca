/* SPDX-License-Identifier: Apache-2.0 */

/*
 * fuzz_frame.c - a frame with any content is refused in one line, or gives the pages that its codec and its checksum say
 *
 * An input is a byte of codec (modulo 3), a byte that says how many pages there are (1 to 16), and what the pack holds. What
 * is to come of it is found out with the codec's library called in the plainest way, with more room than is allowed: when
 * exactly the right number of bytes comes out of it, the manifest is given their checksum, and they must be the pages; in
 * all other cases the frame must be refused.
 *
 * The same bytes are also taken for pages, which must come back from whatever they are compressed to.
 */

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <lz4.h>
#include <zstd.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

#include "base/err.h"
#include "fuzz.h"
#include "image/frame.h"

#define PAGES_MAX 16u
#define PAGES_LEN (PAGES_MAX * IMAGE_PAGE)
#define GUARD     64u
#define AT        64u

static struct frame_coder
    *coder; /* one for all inputs: what a broken frame leaves in it must not harm the next one */
static int pack = -1;

static void use(bool truth)
{
    if (!truth)
        abort();
}

static void put(const void *stored, size_t len)
{
    if (pack < 0) {
        use(frame_coder_new(&coder) == 0);
        pack = memfd_create("pack", MFD_CLOEXEC);
        use(pack >= 0);
    }
    use(ftruncate(pack, 0) == 0);
    use(pwrite(pack, stored, len, AT) == (ssize_t)len);
}

/* plain() - what comes out, if it is one frame of the codec. Return: how many bytes; more than PAGES_LEN: it is wrong */
static size_t plain(unsigned codec, const void *stored, size_t len, void *out)
{
    size_t n;

    if (codec == FRAME_STORED)
        memcpy(out, stored, len);
    if (codec == FRAME_STORED)
        return len;
    if (codec == FRAME_LZ4)
        n = (size_t)LZ4_decompress_safe(stored, out, (int)len, PAGES_LEN);
    else if (ZSTD_findFrameCompressedSize(stored, len) != len)
        n = SIZE_MAX;
    else
        n = ZSTD_decompress(out, PAGES_LEN, stored, len);
    return n;
}

/* check_read() - as the theory above says */
static void check_read(struct manifest_frame *f, const uint8_t *stored)
{
    static uint8_t expected[PAGES_LEN];
    static uint8_t found[PAGES_LEN + GUARD];
    size_t len = f->n_pages * IMAGE_PAGE;
    bool good;
    int r;

    put(stored, f->stored_bytes);
    good = plain(f->codec, stored, f->stored_bytes, expected) == len;
    f->checksum = good ? XXH3_64bits(expected, len) : 0;
    memset(found, 0xc3, sizeof(found));
    err_clear();
    r = frame_read(coder, f, pack, "it", found);
    for (unsigned i = 0; i < GUARD; i++)
        use(found[len + i] == 0xc3);
    if (good)
        use(r == 0 && memcmp(found, expected, len) == 0);
    else
        use(r == -EIO && strstr(err_text(), "pack it is damaged") && !strchr(err_text(), '\n'));
    f->checksum ^= 1;
    use(frame_read(coder, f, pack, "it", found) == -EIO);
}

/* check_written() - pages made of @data, again and again, come back */
static void check_written(unsigned codec, unsigned n_pages, const uint8_t *data, size_t size)
{
    static uint8_t pages[PAGES_LEN];
    static uint8_t stored[PAGES_LEN];
    static uint8_t found[PAGES_LEN];
    struct manifest_frame f = {.n_pages = (uint16_t)n_pages, .off = AT};
    size_t len = n_pages * IMAGE_PAGE;

    for (size_t i = 0; i < len; i++)
        pages[i] = size > 0 ? data[i % size] : 0;
    use(frame_encode(coder, &f, pages, stored, (enum frame_codec)codec, (int)(size % 4)) == 0);
    use(f.stored_bytes > 0 && f.stored_bytes <= len);
    put(stored, f.stored_bytes);
    use(frame_read(coder, &f, pack, "it", found) == 0);
    use(memcmp(found, pages, len) == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct manifest_frame f = {.off = AT};

    if (size < 3)
        return 0;
    f.codec = data[0] % 3;
    f.n_pages = (uint16_t)(1 + data[1] % PAGES_MAX);
    f.stored_bytes = (uint32_t)min_u64(size - 2, f.n_pages * IMAGE_PAGE);
    if (f.codec == FRAME_STORED && f.stored_bytes < f.n_pages * IMAGE_PAGE)
        f.codec = FRAME_LZ4;
    check_read(&f, data + 2);
    check_written(data[0] % 3, f.n_pages, data + 2, size - 2);
    return 0;
}
