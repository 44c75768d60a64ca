/* SPDX-License-Identifier: Apache-2.0 */

/*
 * fuzz_diff_file.c - whatever was done to a file of what changed, each page is what the rule says, or it is refused in one line
 *
 * An input is a header of two bytes, a byte for each page, and then steps of three bytes that write to the file, punch holes
 * into it and cut it off, or make it longer, at any byte. What is data then is kept in a model: a page that was written to since it was
 * last a hole. Data wins over zero, zero over the parent's page, and what may be either is an error where the parent has bytes.
 *
 *     byte 0    how many pages the parent has: 1 to 32
 *     byte 1    a step is made after the file was looked at: then that must be seen, or nothing is different
 *     pages     bits 0 and 1: the hint (modulo 3); bit 2: the parent has bytes there
 *     steps     what (modulo 3), where, how much: in units of an eighth of a page
 */

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "../unit/image_check.h"
#include "base/err.h"
#include "fuzz.h"
#include "image/diff_file.h"

#define PAGES_MAX 32u
#define UNIT      (IMAGE_PAGE / 8)
#define ROOM      (512 * UNIT) /* no step reaches further */

static int fd = -1;
static char path[32];
static uint8_t bytes[ROOM]; /* what the file must hold */
static bool is_data[ROOM / IMAGE_PAGE];
static uint64_t size_bytes;

static void use(bool truth)
{
    if (!truth)
        abort();
}

static void begin(uint64_t image_bytes)
{
    if (fd < 0) {
        fd = memfd_create("diff", MFD_CLOEXEC);
        (void)snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
    }
    use(fd >= 0 && ftruncate(fd, 0) == 0 && ftruncate(fd, (off_t)image_bytes) == 0);
    memset(bytes, 0, sizeof(bytes));
    memset(is_data, 0, sizeof(is_data));
    size_bytes = image_bytes;
}

/* set() - bytes [@from, @end) of the model */
static void set(uint64_t from, uint64_t end, uint8_t value)
{
    if (from < end)
        memset(bytes + from, value, end - from);
}

static void write_some(uint64_t from, uint64_t end, uint8_t value)
{
    static uint8_t some[256 * UNIT];

    if (from == end)
        return;
    memset(some, value, end - from);
    use(pwrite(fd, some, end - from, (off_t)from) == (ssize_t)(end - from));
    set(from, end, value);
    for (uint64_t p = from / IMAGE_PAGE; p * IMAGE_PAGE < end; p++)
        is_data[p] = true;
    size_bytes = max_u64(size_bytes, end);
}

static void punch(uint64_t from, uint64_t end)
{
    if (from == end)
        return;
    use(fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)from,
                  (off_t)(end - from)) == 0);
    set(from, end, 0);
    for (uint64_t p = align_up(from, IMAGE_PAGE) / IMAGE_PAGE; (p + 1) * IMAGE_PAGE <= end; p++)
        is_data[p] = false;
}

static void resize(uint64_t to)
{
    use(ftruncate(fd, (off_t)to) == 0);
    set(to, ROOM, 0);
    for (uint64_t p = align_up(to, IMAGE_PAGE) / IMAGE_PAGE; p < ROOM / IMAGE_PAGE; p++)
        is_data[p] = false;
    size_bytes = to;
}

static void take_step(const uint8_t *step)
{
    uint64_t from = step[1] * UNIT;
    uint64_t end = from + step[2] * UNIT;

    if (step[0] % 3 == 0)
        write_some(from, end, (uint8_t)(step[0] / 3));
    else if (step[0] % 3 == 1)
        punch(from, end);
    else
        resize(from);
}

/* check_kinds() - as the rule says. Return: may it be refused? */
static bool check_kinds(int r, const uint8_t *kinds, const uint8_t *pages, uint64_t n)
{
    bool unsure = false;

    for (uint64_t p = 0; p < n; p++) {
        enum diff_hint hint = (enum diff_hint)(pages[p] % 4 % 3);

        unsure |= !is_data[p] && hint == DIFF_UNSURE && (pages[p] & 4) != 0;
        if (r < 0)
            continue;
        if (is_data[p])
            use(kinds[p] == KIND_DATA);
        else
            use(kinds[p] == (hint == DIFF_PARENT ? KIND_PARENT : KIND_HOLE));
    }
    return unsure;
}

/* check_bytes() - each page that is data is what was written */
static void check_bytes(const struct page_source *src, const uint8_t *kinds, uint64_t n)
{
    uint8_t page[IMAGE_PAGE];

    for (uint64_t p = 0; p < n; p++) {
        if (kinds[p] != KIND_DATA)
            continue;
        use(src->read(src->ctx, page, sizeof(page), p * IMAGE_PAGE) == 0);
        use(memcmp(page, bytes + p * IMAGE_PAGE, sizeof(page)) == 0);
    }
}

/* check_late() - a step after the look: what is read is what is there, or an error in one line */
static void check_late(const struct page_source *src, const uint8_t *step, const uint8_t *kinds,
                       uint64_t n)
{
    uint8_t page[IMAGE_PAGE];
    uint64_t length = size_bytes;

    take_step(step);
    for (uint64_t p = 0; p < n; p++) {
        int r;

        if (kinds[p] != KIND_DATA)
            continue;
        r = src->read(src->ctx, page, sizeof(page), p * IMAGE_PAGE);
        use(r == 0 || r == -EIO);
        use((r == 0) == ((p + 1) * IMAGE_PAGE <= size_bytes));
        use(r < 0 || memcmp(page, bytes + p * IMAGE_PAGE, sizeof(page)) == 0);
    }
    if (size_bytes != length)
        use(src->check(src->ctx) == -EIO && !strchr(err_text(), '\n'));
}

static void check_file(struct manifest *parent, const uint8_t *pages, const uint8_t *late)
{
    uint64_t n = parent->image_bytes / IMAGE_PAGE;
    uint8_t hints[PAGES_MAX];
    uint8_t kinds[PAGES_MAX] = {0};
    struct diff_file d;
    struct page_source src;
    int r;

    for (uint64_t p = 0; p < n; p++)
        hints[p] = pages[p] % 4 % 3;
    r = diff_file_open(&d, path, parent, hints);
    use((r == 0) == (size_bytes == parent->image_bytes));
    if (r < 0) {
        use(r == -EINVAL && !strchr(err_text(), '\n') && d.file.fd == -1);
        return;
    }
    src = diff_file_source(&d);
    r = src.look(src.ctx, kinds);
    use((r < 0) == check_kinds(r, kinds, pages, n));
    use(r == 0 || (r == -EINVAL && strstr(err_text(), "hole at offset")));
    if (r == 0)
        check_bytes(&src, kinds, n);
    if (r == 0 && late)
        check_late(&src, late, kinds, n);
    diff_file_close(&d);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    uint64_t n = size > 2 ? 1 + data[0] % PAGES_MAX : 0;
    const uint8_t *pages = data + 2;
    const uint8_t *late = NULL;
    struct manifest *parent;

    if (n == 0 || size < 2 + n)
        return 0;
    parent = images_new(n, 0, 1, 1, n, 0);
    for (uint64_t p = 0; p < n; p++) {
        if (pages[p] & 4)
            parent->runs[parent->n_runs++] = (struct manifest_run){.first = p, .n = 1};
    }
    begin(parent->image_bytes);
    for (const uint8_t *step = pages + n; step + 3 <= data + size; step += 3) {
        if (data[1] % 2 == 1 && step + 6 > data + size)
            late = step;
        else
            take_step(step);
    }
    check_file(parent, pages, late);
    (void)manifest_free(parent);
    return 0;
}
