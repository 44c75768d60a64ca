/* SPDX-License-Identifier: Apache-2.0 */
/*
 * stalls.c - how long memory operations took
 *
 * Every operation that took longer than STALL_NS is counted in a histogram, and the longest ones are kept in a list with
 * the time of their end, so that a test that knows when it killed a pager can tell what the guest felt of it. On a busy
 * machine many of the short ones are only threads that waited for a processor.
 */
#include "stress.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../lib/uffd_peer.h"

#define LIST_ROOM (2 * STALL_LIST)

static unsigned slot_of(uint64_t us)
{
    unsigned power = 63 - (unsigned)__builtin_clzll(us | 1);

    return power < 4 ? (unsigned)us : (power - 3) * 16 + (unsigned)(us >> (power - 4) & 15);
}

/* The most that is counted in a slot. */
static uint64_t slot_top(unsigned slot)
{
    unsigned power = slot / 16 + 3;

    return slot < 16 ? slot : ((16ull + slot % 16 + 1) << (power - 4)) - 1;
}

void stalls_init(struct stalls *s)
{
    s->list = calloc(LIST_ROOM, sizeof(*s->list));
    if (!s->list)
        peer_die(PEER_EXIT_ABSENT, ENOMEM, "the list of stalls");
}

static int longest_first(const void *a, const void *b)
{
    uint32_t x = ((const struct stall *)a)->us, y = ((const struct stall *)b)->us;

    return x > y ? -1 : x < y;
}

static int earliest_first(const void *a, const void *b)
{
    uint64_t x = ((const struct stall *)a)->end_ns, y = ((const struct stall *)b)->end_ns;

    return x < y ? -1 : x > y;
}

void stalls_note(struct stalls *s, unsigned actor, uint64_t begin_ns, uint64_t end_ns)
{
    uint64_t us = (end_ns - begin_ns) / 1000;

    if (us > s->longest_us)
        s->longest_us = us;
    if (end_ns - begin_ns <= STALL_NS)
        return;
    s->n++;
    s->slots[slot_of(us)]++;
    if (us < s->floor_us)
        return;
    s->list[s->n_list++] = (struct stall){end_ns, (uint32_t)us, actor};
    if (s->n_list < LIST_ROOM)
        return;
    qsort(s->list, s->n_list, sizeof(*s->list), longest_first);
    s->n_list = STALL_LIST;
    s->floor_us = s->list[STALL_LIST - 1].us;
}

/* The longest stalls of all threads, by the time of their end. (give) */
static struct stall *collect(const struct actor *actors, unsigned n, unsigned *n_all)
{
    struct stall *all = calloc((size_t)n * LIST_ROOM, sizeof(*all));
    unsigned i, total = 0;

    if (!all)
        peer_die(PEER_EXIT_ABSENT, ENOMEM, "the list of stalls");
    for (i = 0; i < n; i++) {
        memcpy(all + total, actors[i].stalls.list, actors[i].stalls.n_list * sizeof(*all));
        total += actors[i].stalls.n_list;
    }
    if (total > STALL_LIST) {
        qsort(all, total, sizeof(*all), longest_first);
        total = STALL_LIST;
    }
    qsort(all, total, sizeof(*all), earliest_first);
    *n_all = total;
    return all;
}

void stalls_print(const struct actor *actors, unsigned n)
{
    uint64_t slots[SLOTS] = {0}, total = 0, longest = 0, seen = 0, p50 = 0, p99 = 0;
    unsigned i, k, n_list;
    struct stall *list = collect(actors, n, &n_list);

    for (i = 0; i < n; i++) {
        for (k = 0; k < SLOTS; k++)
            slots[k] += actors[i].stalls.slots[k];
        total += actors[i].stalls.n;
        if (actors[i].stalls.longest_us > longest)
            longest = actors[i].stalls.longest_us;
    }
    for (k = 0; k < SLOTS && total > 0; k++) {
        seen += slots[k];
        if (p50 == 0 && seen * 2 >= total)
            p50 = slot_top(k);
        if (p99 == 0 && seen * 100 >= total * 99)
            p99 = slot_top(k);
    }
    printf(
        ",\"stalls\":{\"n\":%llu,\"p50_us\":%llu,\"p99_us\":%llu,\"max_us\":%llu},\"stall_list\":[",
        (unsigned long long)total, (unsigned long long)(p50 < longest ? p50 : longest),
        (unsigned long long)(p99 < longest ? p99 : longest), (unsigned long long)longest);
    for (i = 0; i < n_list; i++)
        printf("%s[%u,%llu,%u]", i ? "," : "", list[i].us, (unsigned long long)list[i].end_ns,
               list[i].actor);
    putchar(']');
    free(list);
}
