/* SPDX-License-Identifier: Apache-2.0 */
#include "cli/map/picture_caption.h"

#include <ctype.h>
#include <stdio.h>
#include <string.h>

#include "cli/map/size_text.h"

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

void caption_make(struct caption *c, const struct block *block, const struct picture *p, bool stale)
{
    const struct block_header *h = block->header;
    const struct counters *n = &h->counters;
    uint64_t page_bytes = geom_page_bytes(&block->geom);
    uint64_t cell_bytes = p->plan.pages_per_cell * page_bytes;
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
    if (p->plan.pages_per_cell == 1)
        (void)snprintf(c->lines[3], CAPTION_BYTES, "a cell is a page of %s, a row %s",
                       size_text(page_bytes), size_text(page_bytes * p->plan.columns));
    else
        (void)snprintf(c->lines[3], CAPTION_BYTES,
                       "a cell is %s pages (%s), a row %s; mixed cells mix colours, absent pages "
                       "only dim them",
                       count_text(p->plan.pages_per_cell), size_text(cell_bytes),
                       size_text(cell_bytes * p->plan.columns));
}

void caption_state_count(const struct picture *p, unsigned page_shift, enum page_state state,
                         char *buf, size_t len)
{
    uint64_t all = 0;

    for (unsigned s = 0; s < N_PAGE_STATES; s++)
        all += p->counts[s];
    (void)snprintf(buf, len, "%13s %6.2f %% %11s", count_text(p->counts[state]),
                   all ? 100.0 * (double)p->counts[state] / (double)all : 0.0,
                   size_text(p->counts[state] << page_shift));
}
