/* SPDX-License-Identifier: Apache-2.0 */
#ifndef IMAGE_FRAME_H
#define IMAGE_FRAME_H

/*
 * frame.h - pages into a frame, and out of it again
 *
 * What comes out has passed its checksum, or is an error: there is no way to get bytes from a frame unchecked. How much
 * comes out is said by the manifest before anything is decompressed, so a hostile frame can fail and not grow.
 */

#include "image/manifest.h"

/** struct frame_coder - a codec's working memory; one for each thread */
struct frame_coder;

/** frame_coder_new() - @out: (give). Return: 0 or -ENOMEM with a text */
int frame_coder_new(struct frame_coder **out);

/** frame_coder_free() - @c: (take) may be NULL. Return: NULL */
struct frame_coder *frame_coder_free(struct frame_coder *c);

/**
 * frame_encode() - compress pages
 * @frame:  n_pages is set by the caller; sets codec, stored_bytes, checksum
 * @pages:  @frame->n_pages * 4096 bytes
 * @stored: room for as many
 * @codec:  what is wanted; what does not become smaller is FRAME_STORED
 * @level:  of the codec; 0: its default
 *
 * The same pages give the same bytes with the same version of the codec's library.
 * Return: 0 or a negative errno with a text
 */
int frame_encode(struct frame_coder *c, struct manifest_frame *frame, const void *pages,
                 void *stored, enum frame_codec codec, int level);

/**
 * frame_read() - read a frame from its pack, decompress and check it
 * @pack_fd: of pack number @frame->pack
 * @name:    the pack, for messages
 * @pages:   room for @frame->n_pages * 4096 bytes; undefined after an error
 *
 * Return: 0; -EIO with a text that names pack and offset if the bytes are wrong, cut off, or cannot be read.
 */
int frame_read(struct frame_coder *c, const struct manifest_frame *frame, int pack_fd,
               const char *name, void *pages);

/** pack_check_header() - does an open file begin as a pack does? @name: for messages. Return: 0 or -EIO with a text */
int pack_check_header(int pack_fd, const char *name);

/** frame_codec_name() - "none", "lz4", "zstd"; NULL for others */
const char *frame_codec_name(unsigned codec);

DEFINE_CLEANUP(struct frame_coder *, frame_coder_free);

#endif
