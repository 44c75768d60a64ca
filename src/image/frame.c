/* SPDX-License-Identifier: Apache-2.0 */

/*
 * frame.c - pages into a frame, and out of it again
 *
 * A frame in a pack is nothing but what the codec made: no length, no checksum of the codec's, no name. All of that is in the
 * manifest. So zstd's own checksum and content size are left out; what is checked is the pages that come out, by one hash
 * whatever the codec.
 *
 * What is stored may be hostile. A decoder is given room for exactly the pages that the manifest announces, 2 MiB at most,
 * and an answer that is not just that long is an error. Then the hash decides.
 *
 * A coder that only reads allocates all it needs when it is made: a serving pager reads frames, and allocates nothing
 * between a fault and its answer. What writing needs is made by the first frame that is written.
 */

#include "image/frame.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <lz4.h>
#include <lz4hc.h>
#include <zstd.h>
#include <zstd_errors.h>

/* The header is the library: a pager does not carry another one. */
#define XXH_INLINE_ALL
#include <xxhash.h>

#include "base/err.h"

#define STORED_BYTES (FRAME_PAGES_MAX * IMAGE_PAGE)

struct frame_coder {
    void *stored; /* owned, STORED_BYTES: a frame as it was read */
    ZSTD_DCtx *zstd_in;
    ZSTD_CCtx *zstd_out; /* NULL until it is needed, as the next two */
    void *lz4_state;
    void *lz4hc_state;
};

/*
 * map_stored() - room for a frame, of which most is never used
 *
 * Not from malloc(): the kernel may make a huge page of what is as large as one, and a pager has several coders. NULL: no
 * memory.
 */
/* #syscalls:start mmap madvise */
static void *map_stored(void)
{
    void *stored =
        mmap(NULL, STORED_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

    if (stored == MAP_FAILED)
        return NULL;
    (void)madvise(stored, STORED_BYTES, MADV_NOHUGEPAGE);
    return stored;
}

static size_t pages_bytes(const struct manifest_frame *frame)
{
    return (size_t)frame->n_pages * IMAGE_PAGE;
}

int frame_coder_new(struct frame_coder **out)
{
    _cleanup_(frame_coder_freep) struct frame_coder *c = calloc(1, sizeof(*c));

    if (c) {
        c->stored = map_stored();
        c->zstd_in = ZSTD_createDCtx();
    }
    if (!c || !c->stored || !c->zstd_in)
        return err_origin_errno(-ENOMEM, "no memory to read frames");
    *out = TAKE(c);
    return 0;
}

struct frame_coder *frame_coder_free(struct frame_coder *c)
{
    if (c) {
        if (c->stored)
            (void)munmap(c->stored, STORED_BYTES);
        (void)ZSTD_freeDCtx(c->zstd_in);
        (void)ZSTD_freeCCtx(c->zstd_out);
        free(c->lz4_state);
        free(c->lz4hc_state);
    }
    free(c);
    return NULL;
}

const char *frame_codec_name(unsigned codec)
{
    static const char *const names[] = {
        [FRAME_STORED] = "none", [FRAME_LZ4] = "lz4", [FRAME_ZSTD] = "zstd"};

    return codec < ARRAY_LEN(names) ? names[codec] : NULL;
}

/* ---- writing -------------------------------------------------------------------------------------------------- */

static int no_memory(void)
{
    return err_origin_errno(-ENOMEM, "no memory to write frames");
}

static int no_level(enum frame_codec codec, int level, int lowest, int highest)
{
    return err_origin(-EINVAL, "no level %d of %s, expected %d to %d", level,
                      frame_codec_name(codec), lowest, highest);
}

/* encode_lz4() - Return: the stored length, 0 if it is not below @len, or a negative errno with a text */
static int encode_lz4(struct frame_coder *c, const void *pages, int len, void *stored, int level)
{
    if (level < 0 || level > LZ4HC_CLEVEL_MAX)
        return no_level(FRAME_LZ4, level, 0, LZ4HC_CLEVEL_MAX);
    if (level == 0) {
        if (!c->lz4_state)
            c->lz4_state = malloc((size_t)LZ4_sizeofState());
        return c->lz4_state
                   ? LZ4_compress_fast_extState(c->lz4_state, pages, stored, len, len - 1, 1)
                   : no_memory();
    }
    if (!c->lz4hc_state)
        c->lz4hc_state = malloc((size_t)LZ4_sizeofStateHC());
    return c->lz4hc_state
               ? LZ4_compress_HC_extStateHC(c->lz4hc_state, pages, stored, len, len - 1, level)
               : no_memory();
}

/* start_zstd() - an encoder with the settings of all frames. Return: 0 or -ENOMEM with a text */
static int start_zstd(struct frame_coder *c)
{
    if (c->zstd_out)
        return 0;
    c->zstd_out = ZSTD_createCCtx();
    if (!c->zstd_out)
        return no_memory();
    (void)ZSTD_CCtx_setParameter(c->zstd_out, ZSTD_c_contentSizeFlag, 0);
    (void)ZSTD_CCtx_setParameter(c->zstd_out, ZSTD_c_checksumFlag, 0);
    return 0;
}

/* encode_zstd() - Return: as encode_lz4() */
static int encode_zstd(struct frame_coder *c, const void *pages, int len, void *stored, int level)
{
    size_t n;
    int r;

    if (level < 0 || level > ZSTD_maxCLevel())
        return no_level(FRAME_ZSTD, level, 0, ZSTD_maxCLevel());
    r = start_zstd(c);
    if (r < 0)
        return r;
    (void)ZSTD_CCtx_setParameter(c->zstd_out, ZSTD_c_compressionLevel, level);
    n = ZSTD_compress2(c->zstd_out, stored, (size_t)len - 1, pages, (size_t)len);
    if (!ZSTD_isError(n))
        return (int)n;
    switch (ZSTD_getErrorCode(n)) {
    case ZSTD_error_dstSize_tooSmall:
        return 0;
    case ZSTD_error_memory_allocation:
        return no_memory();
    default:
        return err_origin(-EIO, "zstd cannot write a frame of %d bytes: %s", len,
                          ZSTD_getErrorName(n));
    }
}

int frame_encode(struct frame_coder *c, struct manifest_frame *frame, const void *pages,
                 void *stored, enum frame_codec codec, int level)
{
    int len = (int)pages_bytes(frame);
    int n = 0;

    assert(frame->n_pages > 0 && frame->n_pages <= FRAME_PAGES_MAX);
    if (codec == FRAME_LZ4)
        n = encode_lz4(c, pages, len, stored, level);
    else if (codec == FRAME_ZSTD)
        n = encode_zstd(c, pages, len, stored, level);
    if (n < 0)
        return n;
    if (n == 0)
        memcpy(stored, pages, (size_t)len);
    frame->codec = (uint8_t)(n == 0 ? FRAME_STORED : codec);
    frame->stored_bytes = (uint32_t)(n == 0 ? len : n);
    frame->checksum = XXH3_64bits(pages, (size_t)len);
    return 0;
}

/* ---- reading -------------------------------------------------------------------------------------------------- */

static int broken(const struct manifest_frame *frame, const char *name, const char *what)
{
    return err_origin(-EIO, "pack %s is damaged: a frame of %u bytes %s (offset %" PRIu64 ")", name,
                      frame->stored_bytes, what, frame->off);
}

/* read_part() - @len bytes of a pack, from @off on. Return: 0 or -EIO with a text */
/* #syscalls:all pread64 */
static int read_part(int fd, const char *name, char *into, size_t len, uint64_t off)
{
    size_t done = 0;

    while (done < len) {
        uint64_t at = off + done;
        ssize_t n = pread(fd, into + done, len - done, (off_t)at);

        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return err_origin(-EIO, "cannot read pack %s at offset %" PRIu64 ": %s", name, at,
                              strerrordesc_np(errno));
        if (n == 0)
            return err_origin(-EIO, "pack %s is damaged: it ends too early (offset %" PRIu64 ")",
                              name, at);
        done += (size_t)n;
    }
    return 0;
}

int pack_check_header(int pack_fd, const char *name)
{
    static const uint8_t zeroes[sizeof((struct pack_header){0}.reserved)];
    struct pack_header h;
    int r = read_part(pack_fd, name, (char *)&h, sizeof(h), 0);

    if (r < 0)
        return r;
    if (h.magic != PACK_MAGIC)
        return err_origin(-EIO, "pack %s is damaged: it does not begin as a pack (offset 0)", name);
    if (h.version != PACK_VERSION)
        return err_origin(-EIO, "pack %s is of version %u, this thaw reads version %u (offset 8)",
                          name, h.version, PACK_VERSION);
    if (h.header_bytes != sizeof(h))
        return err_origin(-EIO, "pack %s is damaged: no such length of a header (offset 12)", name);
    if (memcmp(h.reserved, zeroes, sizeof(zeroes)) != 0)
        return err_origin(-EIO, "pack %s is damaged: what is reserved is not 0 (offset 16)", name);
    return 0;
}

/* decode_zstd() - of one zstd frame, not of several behind each other: zstd would take these too */
static bool decode_zstd(struct frame_coder *c, const struct manifest_frame *frame, void *pages)
{
    size_t len = pages_bytes(frame);

    return ZSTD_findFrameCompressedSize(c->stored, frame->stored_bytes) == frame->stored_bytes &&
           ZSTD_decompressDCtx(c->zstd_in, pages, len, c->stored, frame->stored_bytes) == len;
}

static bool decode_lz4(struct frame_coder *c, const struct manifest_frame *frame, void *pages)
{
    int len = (int)pages_bytes(frame);

    return LZ4_decompress_safe(c->stored, pages, (int)frame->stored_bytes, len) == len;
}

int frame_read(struct frame_coder *c, const struct manifest_frame *frame, int pack_fd,
               const char *name, void *pages)
{
    bool stored = frame->codec == FRAME_STORED;
    int r;

    /* What manifest_parse() lets through. */
    assert(frame->n_pages > 0 && frame->n_pages <= FRAME_PAGES_MAX && frame->codec <= FRAME_ZSTD);
    assert(frame->stored_bytes > 0 && frame->stored_bytes <= pages_bytes(frame));
    assert(!stored || frame->stored_bytes == pages_bytes(frame));
    r = read_part(pack_fd, name, stored ? pages : c->stored, frame->stored_bytes, frame->off);
    if (r < 0)
        return r;
    if (frame->codec == FRAME_LZ4 && !decode_lz4(c, frame, pages))
        return broken(frame, name, "cannot be decompressed by lz4");
    if (frame->codec == FRAME_ZSTD && !decode_zstd(c, frame, pages))
        return broken(frame, name, "cannot be decompressed by zstd");
    if (XXH3_64bits(pages, pages_bytes(frame)) != frame->checksum)
        return broken(frame, name, "has the wrong checksum");
    return 0;
}
