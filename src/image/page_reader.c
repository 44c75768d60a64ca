/* SPDX-License-Identifier: Apache-2.0 */
#include "image/page_reader.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "image/frame.h"

#define NO_FRAME UINT32_MAX

struct page_reader {
    const struct image *image;
    struct frame_coder *coder;
    uint32_t frame; /* what is in @pages; NO_FRAME: nothing */
    char pages[FRAME_PAGES_MAX * IMAGE_PAGE];
};

int page_reader_new(struct page_reader **out, const struct image *image)
{
    _cleanup_(page_reader_freep) struct page_reader *r = malloc(sizeof(*r));

    if (!r)
        return err_origin_errno(-ENOMEM, "no memory to read the image %s", image->name);
    r->image = image;
    r->frame = NO_FRAME;
    r->coder = NULL;
    if (frame_coder_new(&r->coder) < 0)
        return -ENOMEM;
    *out = TAKE(r);
    return 0;
}

struct page_reader *page_reader_free(struct page_reader *r)
{
    if (r)
        (void)frame_coder_free(r->coder);
    free(r);
    return NULL;
}

static int load_frame(struct page_reader *r, uint32_t number)
{
    const struct image *img = r->image;
    const struct manifest_frame *frame = &img->manifest->frames[number];
    int rc;

    if (r->frame == number)
        return 0;
    r->frame = NO_FRAME;
    rc = frame_read(r->coder, frame, img->pack_fds[frame->pack], img->pack_names[frame->pack],
                    r->pages);
    if (rc == 0)
        r->frame = number;
    return rc;
}

int page_reader_read(struct page_reader *r, char *buf, uint64_t page, uint64_t n)
{
    const struct manifest *m = r->image->manifest;

    while (n > 0) {
        uint64_t i = manifest_find(m, page);
        const struct manifest_run *run = i < m->n_runs ? &m->runs[i] : NULL;
        uint64_t now;

        if (!run || run->first > page) {
            now = run ? min_u64(n, run->first - page) : n;
            memset(buf, 0, now * IMAGE_PAGE);
        } else {
            uint64_t in_run = page - run->first;
            int rc = load_frame(r, run->frame);

            if (rc < 0)
                return rc;
            now = min_u64(n, run->n - in_run);
            memcpy(buf, r->pages + (run->index + in_run) * IMAGE_PAGE, now * IMAGE_PAGE);
        }
        buf += now * IMAGE_PAGE;
        page += now;
        n -= now;
    }
    return 0;
}
