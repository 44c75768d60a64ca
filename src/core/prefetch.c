/* SPDX-License-Identifier: Apache-2.0 */
#include "core/prefetch.h"

/* settle() - into the next run that is not empty, once this one is over */
static void settle(struct prefetch *pf)
{
    while (pf->at < pf->n_runs && pf->next >= pf->runs[pf->at].end) {
        pf->at++;
        if (pf->at < pf->n_runs)
            pf->next = pf->runs[pf->at].first;
    }
}

void prefetch_init(struct prefetch *pf, const struct prefetch_run *runs, size_t n_runs)
{
    *pf = (struct prefetch){.runs = runs, .n_runs = n_runs};
    for (size_t i = 0; i < n_runs; i++) {
        assert(runs[i].first <= runs[i].end);
        pf->n_pages += runs[i].end - runs[i].first;
    }
    if (n_runs > 0)
        pf->next = runs[0].first;
    settle(pf);
}

bool prefetch_is_over(const struct prefetch *pf)
{
    return pf->at == pf->n_runs;
}

void prefetch_pass(struct prefetch *pf, pgno_t end)
{
    assert(!prefetch_is_over(pf) && end >= pf->next && end <= pf->runs[pf->at].end);
    pf->n_passed += end - pf->next;
    pf->next = end;
    settle(pf);
}

bool prefetch_peek(struct prefetch *pf, const struct pagetab *pages, pgno_t max_pages,
                   struct prefetch_run *slice)
{
    assert(max_pages > 0);
    while (!prefetch_is_over(pf)) {
        pgno_t end = pf->runs[pf->at].end;
        pgno_t first = pagetab_find(pages, PAGE_ABSENT, pf->next, end);

        if (first > pf->next)
            prefetch_pass(pf, first);
        if (first == end)
            continue;
        slice->first = first;
        slice->end =
            pagetab_find_other(pages, PAGE_ABSENT, first, first + min_u64(end - first, max_pages));
        return true;
    }
    return false;
}
