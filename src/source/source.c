/* SPDX-License-Identifier: Apache-2.0 */
#include "source/source.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>

#include "base/err.h"

struct source {
    const struct thaw_source_ops *ops;
    void *self;
    uint64_t size_bytes;
};

int source_new(struct source **out, const struct thaw_source_ops *ops, void *self,
               uint64_t size_bytes)
{
    struct source *s;

    if (!ops || !ops->name || !ops->locate)
        return err_origin(-EINVAL, "a page source needs at least a name and locate()");
    if (size_bytes == 0)
        return err_origin(-EINVAL, "page source %s is empty", ops->name);
    s = calloc(1, sizeof(*s));
    if (!s)
        return err_origin_errno(-ENOMEM, "cannot set up page source %s", ops->name);
    *s = (struct source){.ops = ops, .self = self, .size_bytes = size_bytes};
    *out = s;
    return 0;
}

struct source *source_free(struct source *s)
{
    if (!s)
        return NULL;
    if (s->ops->free)
        s->ops->free(s->self);
    free(s);
    return NULL;
}

uint64_t source_size_bytes(const struct source *s)
{
    return s->size_bytes;
}

/* explained() - a source of somebody else's says no more than an errno: the sentence is made here. Return: @r */
static int explained(const struct source *s, int r, imgoff_t off)
{
    if (err_text()[0] != '\0')
        return r;
    return err_origin_errno(r, "page source %s cannot read the bytes at offset 0x%" PRIx64,
                            s->ops->name, off);
}

int source_locate(struct source *s, struct thaw_extent *out, imgoff_t off, imgoff_t lo, imgoff_t hi,
                  uint64_t page_bytes)
{
    int r;

    assert(lo <= off && off < hi && hi <= s->size_bytes);
    assert(((lo | hi | off) & (page_bytes - 1)) == 0);
    err_clear();
    r = s->ops->locate(s->self, out, off, lo, hi, page_bytes);
    if (r < 0)
        return explained(s, r, off);
    if (r > 0 || out->first < lo || out->end > hi || out->first > off || out->end <= off ||
        ((out->first | out->end) & (page_bytes - 1)) != 0 ||
        (out->where == THAW_WHERE_MEMORY && !out->bytes) ||
        (out->where == THAW_WHERE_ELSEWHERE && !s->ops->fetch))
        return err_origin(-EIO, "page source %s gave a wrong answer for offset 0x%" PRIx64,
                          s->ops->name, off);
    return 0;
}

int source_fetch(struct source *s, imgoff_t lo, imgoff_t hi)
{
    int r;

    assert(lo < hi && hi <= s->size_bytes);
    assert(s->ops->fetch);
    err_clear();
    r = s->ops->fetch(s->self, lo, hi);
    if (r > 0)
        return err_origin(-EIO, "page source %s gave a wrong answer to a fetch", s->ops->name);
    return r < 0 ? explained(s, r, lo) : 0;
}

void source_expect(struct source *s, imgoff_t lo, imgoff_t hi)
{
    hi = min_u64(hi, s->size_bytes);
    if (s->ops->expect && lo < hi)
        s->ops->expect(s->self, lo, hi);
}

bool source_trims(const struct source *s)
{
    return s->ops->trim != NULL;
}

void source_trim(struct source *s)
{
    if (s->ops->trim)
        s->ops->trim(s->self);
}
