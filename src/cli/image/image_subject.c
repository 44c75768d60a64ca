/* SPDX-License-Identifier: Apache-2.0 */
#include "cli/image/image_subject.h"

#include <stdio.h>

#include "cli/map/size_text.h"

static_assert(N_IMAGE_PAGES <= PICTURE_MAX_KINDS, "a kind for whatever a page is");
static_assert(IMAGE_PAGE_ZERO == 0, "the ground");

static const struct picture_kind kinds[N_IMAGE_PAGES] = {
    [IMAGE_PAGE_ZERO] = {0xe9ecef, '.', "zero", "in no pack: the guest reads zeroes"},
    [IMAGE_PAGE_PARENT] = {0x5b8fd1, 'p', "parent's", "as in an image that this one comes from"},
    [IMAGE_PAGE_OWN] = {0x4c9f70, 'o', "own", "in the image's own pack"},
    [IMAGE_PAGE_HOT_ZERO] = {0xedae49, 'Z', "zero, hot", "zero, and in the working set"},
    [IMAGE_PAGE_HOT_PARENT] = {0x8d5aa8, 'P', "parent's, hot",
                               "the parent's, and in the working set"},
    [IMAGE_PAGE_HOT_OWN] = {0xd1495b, 'O', "own, hot",
                            "its own, and in the working set: at the beginning of the pack"},
};

static void count_pages(const void *ctx, uint64_t first, uint64_t end,
                        uint64_t counts[PICTURE_MAX_KINDS])
{
    image_pages_count(ctx, first, end, counts);
}

static void label_memory(const void *ctx, unsigned range, char *buf, size_t len)
{
    const struct image_pages *pages = ctx;

    (void)range;
    (void)snprintf(buf, len, "the guest's memory, %s", size_text(pages->m->image_bytes));
}

struct picture_subject image_subject(const struct image_pages *pages)
{
    return (struct picture_subject){
        .kinds = kinds,
        .n_kinds = N_IMAGE_PAGES,
        .page_shift = 12,
        .n_ranges = 1,
        .ranges = {{.first = 0, .end = pages->m->image_bytes / IMAGE_PAGE}},
        .ctx = pages,
        .count = count_pages,
        .label = label_memory,
    };
}
