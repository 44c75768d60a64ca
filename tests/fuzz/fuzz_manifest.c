/* SPDX-License-Identifier: Apache-2.0 */

/*
 * fuzz_manifest.c - a manifest's file with any content is refused in one line, or is a manifest that can be trusted
 *
 * The first byte says what the rest is: 0xff: the file. Else a list of changes to a small good file, after which its sha256 is
 * made right, so that few bytes get past it: a byte of position (times 4), a byte of length, and that many bytes to put
 * there. An even first byte also cuts the file, or makes it longer, by up to 127 bytes.
 */

#include <errno.h>

#include "../unit/image_check.h"
#include "base/err.h"
#include "fuzz.h"

#define SPARE_BYTES 128u

static void use(bool truth)
{
    if (!truth)
        abort();
}

/* use_it() - what everybody does with it */
static void use_it(struct manifest *m, const void *bytes, size_t len)
{
    uint64_t n_pages = m->image_bytes / IMAGE_PAGE;
    uint8_t id[IMAGE_ID_BYTES];
    void *again = NULL;
    size_t len_again;

    use(image_wrong(m) == NULL);
    for (uint64_t i = 0; i < m->n_runs; i++) {
        use(manifest_find(m, m->runs[i].first) == i);
        use(manifest_find(m, m->runs[i].first + m->runs[i].n - 1) == i);
        use(manifest_find(m, m->runs[i].first + m->runs[i].n) == i + 1);
    }
    use(manifest_find(m, n_pages) == m->n_runs);
    memcpy(id, m->id, IMAGE_ID_BYTES);
    use(manifest_format(m, &again, &len_again) == 0);
    use(len_again == len && memcmp(again, bytes, len) == 0);
    use(memcmp(m->id, id, IMAGE_ID_BYTES) == 0);
    free(again);
}

/* make_good() - the file of image_small(), with room behind it. Return: its bytes (give) */
static uint8_t *make_good(size_t *len)
{
    struct manifest *m = images_small();
    uint8_t *roomy;
    void *bytes;

    use(manifest_format(m, &bytes, len) == 0);
    roomy = calloc(1, *len + SPARE_BYTES);
    use(roomy != NULL);
    memcpy(roomy, bytes, *len);
    free(bytes);
    m = manifest_free(m);
    return roomy;
}

/* change() - as the input says, and the id made right. Return: the length of the file then */
static size_t change(uint8_t *file, size_t len, const uint8_t *data, size_t size)
{
    size_t room = len + SPARE_BYTES;

    if (data[0] % 2 == 0 && size > 1) {
        len = len + (data[1] & 0x7f) * (data[1] & 0x80 ? 1 : -1);
        data++;
        size--;
    }
    data++;
    size--;
    while (size >= 2) {
        size_t at = (size_t)data[0] * 4;
        size_t n = min_u64(data[1], size - 2);

        if (at < room)
            memcpy(file + at, data + 2, min_u64(n, room - at));
        data += 2 + n;
        size -= 2 + n;
    }
    images_sign(file, len);
    return len;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct manifest *m = NULL;
    uint8_t *file = NULL;
    uint8_t *exact;
    size_t len;
    int r;

    if (size > 0 && data[0] == 0xff) {
        len = size - 1;
        data++;
    } else {
        file = make_good(&len);
        if (size > 0)
            len = change(file, len, data, size);
    }
    exact = malloc(len + (len == 0)); /* a sanitizer sees a step beyond its end */
    use(exact != NULL);
    memcpy(exact, file ? file : data, len);
    err_clear();
    r = manifest_parse(&m, "it", exact, len);
    if (r == 0)
        use_it(m, exact, len);
    else
        use(r == -EINVAL && !m && strstr(err_text(), "it") && !strchr(err_text(), '\n'));
    m = manifest_free(m);
    free(exact);
    free(file);
    return 0;
}
