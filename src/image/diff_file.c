/* SPDX-License-Identifier: Apache-2.0 */
#include "image/diff_file.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>
#include <sys/stat.h>

#include "base/err.h"

int diff_file_open(struct diff_file *d, const char *path, const struct manifest *parent,
                   const uint8_t *hints)
{
    int r;

    *d = (struct diff_file){.file = {.fd = -1}, .parent = parent, .hints = hints};
    r = memory_file_open(&d->file, path);
    if (r == 0 && d->file.bytes != parent->image_bytes)
        r = err_origin(-EINVAL, "%s has %" PRIu64 " bytes, expected %" PRIu64 " as the parent has",
                       path, d->file.bytes, parent->image_bytes);
    if (r < 0)
        diff_file_close(d);
    return r;
}

void diff_file_close(struct diff_file *d)
{
    memory_file_close(&d->file);
}

/* check_holes() - can the file system tell holes? @data_bytes: what it says is data */
static int check_holes(const struct diff_file *d, uint64_t data_bytes)
{
    struct stat st;

    if (fstat(d->file.fd, &st) < 0)
        return err_origin_errno(-errno, "cannot look at %s", d->file.path);
    if (data_bytes == d->file.bytes && (uint64_t)st.st_blocks * 512 < data_bytes)
        return err_origin(-EINVAL,
                          "%s has holes, but its file system does not tell where: copy it to "
                          "another one",
                          d->file.path);
    return 0;
}

/* find_data() - @kinds: KIND_DATA where the file has some */
static int find_data(const struct diff_file *d, uint8_t *kinds)
{
    uint64_t data_bytes = 0;
    uint64_t at = 0;
    uint64_t end = 0;
    int r = memory_file_next_data(&d->file, &at, &end);

    for (; r == 0 && at < d->file.bytes; r = memory_file_next_data(&d->file, &at, &end)) {
        memset(kinds + at / IMAGE_PAGE, KIND_DATA, (end - at) / IMAGE_PAGE);
        data_bytes += end - at;
        at = end;
    }
    return r == 0 ? check_holes(d, data_bytes) : r;
}

static bool parent_has(const struct manifest *m, uint64_t page)
{
    uint64_t run = manifest_find(m, page);

    return run < m->n_runs && m->runs[run].first <= page;
}

/* fill_hole() - what page @p is, of which the file has no data */
static int fill_hole(const struct diff_file *d, uint64_t p, uint8_t *kind)
{
    enum diff_hint hint = d->hints ? (enum diff_hint)d->hints[p] : DIFF_PARENT;

    if (hint == DIFF_UNSURE && parent_has(d->parent, p))
        return err_origin(-EINVAL,
                          "%s has a hole at offset %" PRIu64
                          " where the VM's state says that the guest changed the page: what is "
                          "there now is not in these files",
                          d->file.path, (uint64_t)(p * IMAGE_PAGE));
    *kind = hint == DIFF_PARENT ? KIND_PARENT : KIND_HOLE;
    return 0;
}

static int look(void *ctx, uint8_t *kinds)
{
    const struct diff_file *d = ctx;
    int r = find_data(d, kinds);

    for (uint64_t p = 0; p < d->file.bytes / IMAGE_PAGE && r == 0; p++) {
        if (kinds[p] != KIND_DATA)
            r = fill_hole(d, p, &kinds[p]);
    }
    return r;
}

static int read_data(void *ctx, void *buf, size_t len, uint64_t off)
{
    return memory_file_read(&((struct diff_file *)ctx)->file, buf, len, off);
}

static int check(void *ctx)
{
    return memory_file_check(&((struct diff_file *)ctx)->file);
}

struct page_source diff_file_source(struct diff_file *d)
{
    return (struct page_source){
        .name = d->file.path,
        .bytes = d->file.bytes,
        .created_s = memory_file_created_s(&d->file),
        .look = look,
        .read = read_data,
        .check = check,
        .ctx = d,
    };
}
