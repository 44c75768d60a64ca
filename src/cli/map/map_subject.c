/* SPDX-License-Identifier: Apache-2.0 */
#include "cli/map/map_subject.h"

#include <ctype.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/map/size_text.h"

static_assert(N_PAGE_STATES <= PICTURE_MAX_KINDS, "a kind for each state");
static_assert(PAGE_ABSENT == 0, "the ground");

static const char state_letters[N_PAGE_STATES] = {
    [PAGE_ABSENT] = '.',  [PAGE_CLEAN] = 'c', [PAGE_DIRTY] = 'D',
    [PAGE_REMOVED] = 'R', [PAGE_ZERO] = '0',
};

static void count_states(const void *ctx, uint64_t first, uint64_t end,
                         uint64_t counts[PICTURE_MAX_KINDS])
{
    const struct block *block = ctx;

    pagetab_count(&block->pages, first, end, counts);
}

/* "region 2 of 3: 0x7f0000000000, 3 GiB, from 1 GiB of the snapshot on" */
static void label_region(const void *ctx, unsigned range, char *buf, size_t len)
{
    const struct geom *geom = &((const struct block *)ctx)->geom;
    const struct geom_region *r = &geom->regions[range];

    if (geom->n_regions > PICTURE_MAX_BANDS)
        (void)snprintf(buf, len, "%u regions end to end, %s", geom->n_regions,
                       size_text(geom->n_pages << geom->page_shift));
    else
        (void)snprintf(
            buf, len, "region %u of %u: 0x%" PRIx64 ", %s, from byte %s of the snapshot on",
            range + 1, geom->n_regions, r->hva, size_text(r->len_bytes), count_text(r->imgoff));
}

void map_subject_init(struct map_subject *m, const struct block *block)
{
    const struct geom *geom = &block->geom;

    for (unsigned s = 0; s < N_PAGE_STATES; s++) {
        m->kinds[s] = (struct picture_kind){
            .colour = (uint32_t)strtoul(page_state_colours[s] + 1, NULL, 16),
            .letter = state_letters[s],
            .name = page_state_names[s],
            .meaning = page_state_meanings[s],
        };
    }
    m->picture = (struct picture_subject){
        .kinds = m->kinds,
        .n_kinds = N_PAGE_STATES,
        .page_shift = geom->page_shift,
        .n_ranges = geom->n_regions > PICTURE_MAX_BANDS ? 1 : geom->n_regions,
        .ranges = {{.first = 0, .end = geom->n_pages}},
        .ctx = block,
        .count = count_states,
        .label = label_region,
    };
    if (geom->n_regions > PICTURE_MAX_BANDS)
        return;
    for (unsigned i = 0; i < geom->n_regions; i++)
        m->picture.ranges[i] = (struct picture_range){
            .first = geom->regions[i].first, .end = geom_region_end(geom, &geom->regions[i])};
}

/* A path out of a file: what a terminal would obey is replaced. */
static void copy_printable(char *to, const char *from, size_t from_len, size_t to_len)
{
    size_t n = strnlen(from, from_len);
    size_t i;

    for (i = 0; i < n && i + 1 < to_len; i++)
        to[i] = isprint((unsigned char)from[i]) ? from[i] : '?';
    to[i] = '\0';
}

static double us(const struct hist *h, double q)
{
    return (double)hist_quantile(h, q) / 1e3;
}

void map_caption(struct caption *c, const struct block *block, const struct picture *p, bool stale)
{
    const struct block_header *h = block->header;
    const struct counters *n = &h->counters;
    uint64_t page_bytes = geom_page_bytes(&block->geom);
    char path[128];

    copy_printable(path, h->memory_path, sizeof(h->memory_path), sizeof(path));
    (void)snprintf(c->title, sizeof(c->title), "Guest memory of process %d%s", h->vmm_pid,
                   stale ? " (STALE: its pager has ended)" : "");
    (void)snprintf(
        c->lines[0], CAPTION_BYTES, "%s in %s pages of %s, %u region%s, writes %s, pager %d%s%s",
        size_text(h->n_pages * page_bytes), count_text(h->n_pages), size_text(page_bytes),
        h->n_regions, h->n_regions == 1 ? "" : "s", h->track ? "tracked" : "not tracked",
        h->pager_pid, path[0] ? ", snapshot " : "", path);
    (void)snprintf(c->lines[1], CAPTION_BYTES,
                   "faults %s, installed from the image %s (%s of them unasked), zero-filled %s, "
                   "removed %s, touched again after that %s",
                   count_text(n->faults), count_text(n->pages_installed),
                   count_text(n->pages_around), count_text(n->pages_zeroed),
                   count_text(n->pages_removed), count_text(n->pages_refaulted));
    if (h->fault_ns.n > 0)
        (void)snprintf(c->lines[2], CAPTION_BYTES,
                       "time to serve a fault: p50 %.1f us, p90 %.1f us, p99 %.1f us, max %.1f us",
                       us(&h->fault_ns, 0.5), us(&h->fault_ns, 0.9), us(&h->fault_ns, 0.99),
                       (double)h->fault_ns.max / 1e3);
    else
        (void)snprintf(c->lines[2], CAPTION_BYTES, "no fault served yet");
    caption_scale(p, c->lines[3]);
}
