/* SPDX-License-Identifier: Apache-2.0 */

/*
 * fuzz_workingset.c - a working set's file with any content is refused in one line, or is a set that can be trusted
 *
 * The first byte says what the rest is: 0xff: the file. Else a list of changes to a good file of 20 entries, after which its
 * checksum is made right, so that few bytes get past it: a byte of position (times 4), a byte of length, and that many bytes
 * to put there. An even first byte also cuts the file, or makes it longer, by up to 127 bytes.
 */

#include <stdlib.h>
#include <string.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

#include "base/err.h"
#include "fuzz.h"
#include "image/workingset.h"

#define GOOD_ENTRIES 20u
#define UNITS        4000u
#define SPARE_BYTES  128u

static void use(bool truth)
{
    if (!truth)
        abort();
}

/* check_entries() - what workingset.h promises of a set that was read */
static void check_entries(const struct workingset *ws)
{
    use(ws->unit_shift == 12 || ws->unit_shift == 21);
    use(ws->image_bytes > 0 && ws->image_bytes <= INT64_MAX);
    use(ws->image_bytes % (1ull << ws->unit_shift) == 0);
    for (size_t i = 0; i < ws->n; i++) {
        use(ws->entries[i].unit < ws->image_bytes >> ws->unit_shift);
        use(ws->entries[i].time_class < WORKINGSET_TIME_CLASSES);
        for (size_t k = 0; k < i && ws->n <= 512; k++)
            use(ws->entries[k].unit != ws->entries[i].unit);
    }
}

/* use_it() - what `thaw workingset` does with it */
static void use_it(const struct workingset *ws, const void *bytes, size_t len)
{
    const struct workingset *sets[] = {ws, ws};
    struct workingset *both = NULL;
    struct workingset_stat s;
    uint64_t n_runs_least;
    void *again = NULL;
    size_t len_again;

    check_entries(ws);
    use(workingset_format(ws, &again, &len_again) == 0);
    use(len_again == len && memcmp(again, bytes, len) == 0);
    free(again);
    use(workingset_merge(&both, sets, 2, WORKINGSET_INTERSECTION) == 0);
    use(workingset_format(both, &again, &len_again) == 0);
    use(len_again == len && memcmp(again, bytes, len) == 0);
    free(again);
    both = workingset_free(both);
    use(workingset_stat(ws, &s) == 0);
    use(s.n_writes <= ws->n && s.longest_run <= ws->n && s.median_run <= s.longest_run);
    n_runs_least = s.longest_run ? (ws->n + s.longest_run - 1) / s.longest_run : 0;
    use(s.n_runs >= n_runs_least && s.n_runs + s.n_ordered <= ws->n);
}

/* make_good() - a file of GOOD_ENTRIES entries, with room behind it. Return: its bytes (give) */
static uint8_t *make_good(size_t *len)
{
    struct workingset *ws = NULL;
    uint8_t *roomy;
    void *bytes;

    use(workingset_new(&ws, 12, UNITS * 4096ull) == 0);
    for (uint64_t i = 0; i < GOOD_ENTRIES; i++) {
        struct workingset_entry e = {
            .unit = (i % 4 == 0 ? 900 - i : 100 + i),
            .time_class = (uint8_t)(i / 3),
            .write = i % 5 == 0,
        };

        use(workingset_add(ws, &e) == 0);
    }
    ws->complete = true;
    ws->window_ns = NS_PER_S;
    use(workingset_format(ws, &bytes, len) == 0);
    roomy = calloc(1, *len + SPARE_BYTES);
    use(roomy != NULL);
    memcpy(roomy, bytes, *len);
    free(bytes);
    ws = workingset_free(ws);
    return roomy;
}

/* change() - as the input says, and the checksum made right. Return: the length of the file then */
static size_t change(uint8_t *file, size_t len, const uint8_t *data, size_t size)
{
    size_t at_checksum = offsetof(struct workingset_header, checksum);
    size_t room = len + SPARE_BYTES;
    uint64_t sum;

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
    if (len >= sizeof(struct workingset_header)) {
        memset(file + at_checksum, 0, sizeof(sum));
        sum = XXH3_64bits(file, len);
        memcpy(file + at_checksum, &sum, sizeof(sum));
    }
    return len;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct workingset *ws = NULL;
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
    r = workingset_parse(&ws, "it", exact, len);
    if (r == 0)
        use_it(ws, exact, len);
    else
        use(r < 0 && !ws && strstr(err_text(), "it") && !strchr(err_text(), '\n'));
    ws = workingset_free(ws);
    free(exact);
    free(file);
    return 0;
}
