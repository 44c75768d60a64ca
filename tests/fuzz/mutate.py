#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""mutate.py - the engine with one mistake in it

    mutate.py --list                       FILE:NAME, one a line
    mutate.py NAME FILE OUT.C

Each mistake is a piece of a file of src/core/ and what to put in its place. The test of the oracle (mutant.c) expects that
random schedules find every one of them. When a piece is not in the file any more, OUT.C is the file as it is, and the
test fails: say the mistake again in the engine's words, or strike it out here.
"""

import pathlib
import sys

ENGINE = {
    # I1: every fault is answered
    "ignores a fault on a page believed installed": (
        "    if (page_state_answers[pagetab_get(&e->block->pages, p)] == PAGE_ANSWER_ZERO)\n"
        "        return emit_zero(e, p, write, fx);\n",
        "    if (pagetab_get(&e->block->pages, p) == PAGE_REMOVED)\n"
        "        return emit_zero(e, p, write, fx);\n"
        "    if (pagetab_get(&e->block->pages, p) != PAGE_ABSENT)\n"
        "        return 0;\n",
    ),
    "forgets what was put off": (
        "    e->retry_at_ns = now_ns + e->backoff_ns;\n",
        "    e->retry_at_ns = ENGINE_NEVER;\n    (void)now_ns;\n",
    ),
    "does not wake after EEXIST": (
        "        return emit_page(fx, protected ? EFFECT_UNPROTECT : EFFECT_WAKE, p);\n",
        "        return protected ? emit_page(fx, EFFECT_UNPROTECT, p) : 0;\n",
    ),
    "takes a part for the whole": (
        "            *fx = *asked;\n            fx->first = next;\n            return 1;\n",
        "            return 0;\n",
    ),
    "forgets who else waited for a fetch": (
        "    /* A place in the table is free, and pages of this run may have been removed meanwhile: look at who waits. */\n"
        "    retry_by(e, ev->time_ns);\n",
        "",
    ),
    "passes over every second waiting page": (
        "        e->cursor = p == BITSET_NONE ? 0 : p + 1;\n",
        "        e->cursor = p == BITSET_NONE ? 0 : p + 2;\n",
    ),
    "looks only at those behind the one that was refused": (
        "        e->in_pass = e->began_late;\n",
        "        e->in_pass = false;\n",
    ),
    "does not try again when memory was short": (
        "    retry_by(e, now_ns + ENGINE_NOMEM_RETRY_NS);\n",
        "",
    ),
    "forgets the faults of the pager before": (
        "        e->retry_at_ns = 0;\n",
        "        e->retry_at_ns = ENGINE_NEVER;\n",
    ),
    "keeps write-protect faults that were answered": (
        "    bitset_drop_range(&e->block->waiting_wp, first, end);\n",
        "",
    ),
    "clears one page more than it answered": (
        "    bitset_drop_range(&e->block->waiting, first, end);\n",
        "    bitset_drop_range(&e->block->waiting, first, min_u64(end + 1, e->block->pages.n_pages));\n",
    ),
    "fetches what is on its way already": (
        "    if (fetch_table_join(&e->fetches, p, write))\n        return 0;\n    return emit_locate(e, p, write, fx);\n",
        "    return emit_locate(e, p, write, fx);\n",
    ),
    "forgets whom it keeps waiting in doubt": (
        "        retry_by(e, e->doubt_until_ns);\n",
        "        (void)e;\n",
    ),
    "reads what does not stay in memory for ever": (
        "        if (asked->fetched && ev->located.slow) {\n",
        "        if (false) {\n",
    ),
    "tries while it is refused": (
        "    return e->blocked && now_ns < e->retry_at_ns;\n",
        "    return false && e->blocked && now_ns < e->retry_at_ns;\n",
    ),
    # I2: no stale bytes
    "does not remember a removal": (
        "    pagetab_step(&e->block->pages, PAGE_EV_REMOVE, whole_first, whole_end);\n",
        "",
    ),
    "lets fetched bytes in whatever happened meanwhile": (
        "        if (pagetab_get(&b->pages, p) == PAGE_ABSENT)\n            return p;\n",
        "        return p;\n",
    ),
    "leaves the window": (
        "    (void)emit_page(fx, EFFECT_LOCATE, p);\n",
        "    hi = min_u64(p + e->config.around_pages, e->block->geom.n_pages);\n"
        "    (void)emit_page(fx, EFFECT_LOCATE, p);\n",
    ),
    # I6 and I8: never silently zero, no write missing
    "removes what is discarded in part": (
        "    pgno_t whole_first = (start & mask) != 0 ? first + 1 : first;\n",
        "    pgno_t whole_first = first;\n",
    ),
    "takes a stranger's page for the image's": (
        "        pagetab_step(&e->block->pages, PAGE_EV_FOUND, p, p + 1);\n    counters(e)->pages_found++;\n",
        "        (void)p;\n    counters(e)->pages_found++;\n",
    ),
    "takes a huge page without memory for installed": (
        "        if (!asked->unprotect && !is_installed(e, next))\n",
        "        if (false)\n",
    ),
    "takes a huge neighbour without memory for installed": (
        "nobody asked for it */\n            return emit_alone(fx, asked);\n",
        "nobody asked for it */\n            return exists(e, asked, next, ev->time_ns, fx);\n",
    ),
    "does not record the first write": (
        "            pagetab_step(&e->block->pages, PAGE_EV_WRITTEN, p, p + 1);\n",
        "",
    ),
    "does not arm what comes from the image": (
        "    (void)emit_page(fx, EFFECT_LOCATE, p);\n    fx->write = write;\n    fx->arm = e->config.track;\n",
        "    (void)emit_page(fx, EFFECT_LOCATE, p);\n    fx->write = write;\n",
    ),
    "does not finish the write-protect fault of the pager before": (
        "        bool protected = asked->unprotect || bitset_has(&e->block->waiting_wp, p);\n",
        "        bool protected = asked->unprotect;\n",
    ),
    "takes a stranger's zero page for the image's": (
        "    if (p == asked->page || pagetab_get(&e->block->pages, p) == PAGE_ABSENT)\n",
        "    if (p == asked->page || asked->kind == EFFECT_COPY)\n",
    ),
    "fills huge pages in ahead": (
        "        if (!e->config.zero_runs)\n",
        "        if (false)\n",
    ),
    # stops
    "gives up for a neighbour's sake": (
        "        return alone ? emit_stop(fx, STOP_SOURCE) : emit_alone(fx, asked);\n",
        "        return emit_stop(fx, STOP_SOURCE);\n",
    ),
    "gives up at the first want of memory": (
        "    if (now_ns > e->nomem_since_ns + ENGINE_NOMEM_LIMIT_NS)\n",
        "    if (now_ns >= e->nomem_since_ns)\n",
    ),
    "takes two shortages of memory for one": (
        "    if (e->nomem_since_ns == 0 || now_ns - e->nomem_last_ns > ENGINE_NOMEM_GAP_NS)\n",
        "    if (e->nomem_since_ns == 0)\n",
    ),
}

AHEAD = {
    # what is planned waits for what is asked for
    "installs ahead while it is refused": (
        "    if (engine_deadline_ns(e) != ENGINE_NEVER)\n        return 0;\n",
        "",
    ),
    "does not set the timer for a plan in doubt": (
        "        e->retry_at_ns = e->doubt_until_ns;",
        "        (void)e;",
    ),
    "does not arm what it installs ahead": (
        "        .arm = e->config.track,\n",
        "",
    ),
    "takes too much ahead at once": (
        "max_u64(1, e->config.ahead_pages)",
        "e->block->pages.n_pages",
    ),
    "fills huge pages of the plan in ahead": (
        "        if (!e->config.zero_runs)\n            fx->end = fx->first + 1;\n",
        "",
    ),
    "copies cold bytes ahead": (
        "        fx->kind = EFFECT_FETCH;\n        return 1;\n",
        "        fx->kind = EFFECT_COPY;\n        return 1;\n",
    ),
    "does not record what it installed ahead": (
        "    pagetab_step(&e->block->pages, copy ? PAGE_EV_INSTALL : PAGE_EV_ZEROFILL, asked->first, end);\n",
        "    if (end == asked->first + 1)\n"
        "        pagetab_step(&e->block->pages, copy ? PAGE_EV_INSTALL : PAGE_EV_ZEROFILL, asked->first, end);\n",
    ),
    "takes a part of a slice for the whole": (
        "    if (next > asked->first)\n        put_in(e, asked, next);\n",
        "    if (next > asked->first)\n        put_in(e, asked, asked->end);\n",
    ),
    "keeps faults that an install ahead has answered": (
        "    bitset_drop_range(&e->block->waiting, asked->first, end);\n",
        "",
    ),
    "stands for ever before a planned page that is there": (
        "    pagetab_step(&e->block->pages, PAGE_EV_FOUND, p, p + 1);\n    counters(e)->pages_found++;\n",
        "    counters(e)->pages_found++;\n",
    ),
    "stands for ever before what cannot be installed ahead": (
        "    if (!asked->many)\n        prefetch_pass(&e->ahead, asked->end);\n",
        "",
    ),
    "stops the VM for what nobody asked for": (
        "    counters(e)->ahead_left += asked->end - next;\n",
        "    counters(e)->ahead_left += asked->end - next;\n"
        "    *fx = (struct effect){.kind = EFFECT_STOP, .stop = STOP_NOMEM};\n"
        "    if (ev->done.outcome == OUTCOME_NOMEM)\n        return 1;\n",
    ),
    "passes what it hands out too early": (
        "    if (fx->many)\n        prefetch_pass(&e->ahead, fx->end);\n",
        "    prefetch_pass(&e->ahead, fx->end);\n",
    ),
    "hands out one slice many times": (
        "    if (fx->many)\n        prefetch_pass(&e->ahead, fx->end);\n",
        "",
    ),
}

WALK = {
    "walks over what was removed": (
        "        pgno_t first = pagetab_find(pages, PAGE_ABSENT, pf->next, end);\n",
        "        pgno_t first = pf->next;\n\n        (void)pages;\n",
    ),
    "takes along what is behind a removed page": (
        "            pagetab_find_other(pages, PAGE_ABSENT, first, first + min_u64(end - first, max_pages));\n",
        "            first + min_u64(end - first, max_pages);\n",
    ),
    "leaves the run": (
        "first + min_u64(end - first, max_pages));\n",
        "min_u64(first + max_pages, pages->n_pages));\n",
    ),
    "forgets the rest of a run": (
        "    while (pf->at < pf->n_runs && pf->next >= pf->runs[pf->at].end) {\n",
        "    while (pf->at < pf->n_runs && pf->next + 1 >= pf->runs[pf->at].end) {\n",
    ),
}

FILES = {"engine.c": ENGINE, "engine_ahead.c": AHEAD, "prefetch.c": WALK}
MUTATIONS = ENGINE | AHEAD | WALK


def main(argv):
    if argv == ["--list"]:
        print("\n".join(f"{file}:{name}" for file, mutations in FILES.items() for name in mutations))
        return 0
    name, source, out = argv
    right, wrong = MUTATIONS[name]
    text = pathlib.Path(source).read_text(encoding="utf-8")
    if text.count(right) == 1:
        text = text.replace(right, wrong)
    else:
        print(f"mutate: '{name}': not in {source} exactly once", file=sys.stderr)
    pathlib.Path(out).write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
