/* SPDX-License-Identifier: Apache-2.0 */
/*
 * ops.c - the operations on guest memory
 *
 * Each notes its begin in the page's history before the first instruction that touches the page, and its end after the
 * last; and each tells the watchdog what it does for as long as the pager may keep it waiting. What is written is made
 * before, in the thread's own buffer, and what was read is judged afterwards, so that the time between the two marks
 * is the memory's.
 */
#include "stress.h"

#include <errno.h>
#include <stdio.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "../lib/uffd_peer.h"

uint64_t now_ns(void)
{
    struct timespec ts;

    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

static void touch_begin(struct actor *a, uint64_t page, const char *what)
{
    atomic_store_explicit(&a->doing_page, page, memory_order_relaxed);
    atomic_store_explicit(&a->doing, what, memory_order_relaxed);
    atomic_store(&a->since_ns, now_ns());
}

static void touch_end(struct actor *a)
{
    stalls_note(&a->stalls, a->id, atomic_load(&a->since_ns), now_ns());
    atomic_store(&a->since_ns, 0);
}

static struct place place_of(const struct world *w, uint64_t page)
{
    return (struct place){
        .oracle = &w->guest.oracle,
        .block = w->in_image[page] * (w->page_bytes / BLOCK_BYTES),
        .n_words = (uint32_t)(w->page_bytes / 8),
    };
}

static volatile uint64_t *words_of(const struct world *w, uint64_t page)
{
    return (volatile uint64_t *)(void *)w->hva[page];
}

/* ---- reading ---- */

static void look(struct actor *a, uint64_t page)
{
    struct place place = place_of(a->world, page);

    history_look(&a->world->pages[page], &place, &a->view);
}

static void look_again(struct actor *a, uint64_t page, bool by_syscall)
{
    history_look_again(&a->world->pages[page], &a->view, by_syscall);
    a->counts.reads++;
    a->counts.raced += a->view.raced || a->view.adding;
    a->counts.unjudged += a->view.unjudged;
}

/* A word that nobody can have written: said at once, and then everybody stops. */
static void report(struct actor *a, uint64_t page, uint32_t word, uint64_t expected, uint64_t got,
                   const char *what)
{
    struct world *w = a->world;
    struct wrong e = {page, w->in_image[page], expected, got, word, what};

    if (a->n_wrong++ == 0)
        a->first_wrong = e;
    if (atomic_fetch_add(&w->n_errors, 1) < 8)
        fprintf(stderr,
                "wrong byte: page %llu (of the image: %llu) offset %u address %p expected %016llx "
                "got %016llx (%s)\n",
                (unsigned long long)page, (unsigned long long)e.in_image, word * 8,
                (void *)(w->hva[page] + word * 8ull), (unsigned long long)expected,
                (unsigned long long)got, what);
    atomic_store(&w->stop, true);
}

static void judge(struct actor *a, uint64_t page, const char *what)
{
    uint64_t expected;
    uint32_t wrong;

    if (!view_judge(&a->view, a->words, &wrong, &expected))
        report(a, page, wrong, expected, a->words[wrong], what);
    else if (!history_still(&a->world->pages[page], &a->view, a->words))
        report(a, page, 0, 0, a->words[0], "a page that nobody changed has changed");
}

void op_read(struct actor *a, uint64_t page)
{
    const volatile uint64_t *at = words_of(a->world, page);
    uint32_t i, n = (uint32_t)(a->world->page_bytes / 8), start = (uint32_t)actor_random(a) % n;

    look(a, page);
    touch_begin(a, page, "reading");
    for (i = start; i < n; i++) /* faults are not only raised by first words */
        a->words[i] = at[i];
    for (i = 0; i < start; i++)
        a->words[i] = at[i];
    touch_end(a);
    look_again(a, page, false);
    judge(a, page, "read");
}

void op_read_word(struct actor *a, uint64_t page, uint32_t word)
{
    uint64_t got, expected;

    look(a, page);
    touch_begin(a, page, "reading a word");
    got = words_of(a->world, page)[word];
    touch_end(a);
    look_again(a, page, false);
    if (!view_judge_word(&a->view, word, got, 0, &expected))
        report(a, page, word, expected, got, "read of a word");
}

/* All of a page between guest memory and the thread's file. */
static void move(struct actor *a, uint64_t page, uint64_t skip, bool write)
{
    uint64_t done = skip, all = a->world->page_bytes;
    ssize_t n;

    while (done < all) {
        uint8_t *at = a->world->hva[page] + done;

        n = write ? pwrite(a->file, at, all - done, (off_t)done)
                  : pread(a->file, at, all - done, (off_t)done);
        if (n <= 0)
            peer_die(PEER_EXIT_ABSENT, errno, "%s guest memory",
                     write ? "write(2) from" : "read(2) into");
        done += (uint64_t)n;
    }
}

void op_read_by_syscall(struct actor *a, uint64_t page)
{
    look(a, page);
    touch_begin(a, page, "write(2) from it");
    move(a, page, 0, true);
    touch_end(a);
    look_again(a, page, true);
    a->counts.syscalls++;
    judge(a, page, "write(2)");
}

/* ---- writing ---- */

static bool begin(struct actor *a, uint64_t page, enum change_kind kind, unsigned cell,
                  struct ticket *t)
{
    bool begun = history_begin(&a->world->pages[page], kind, cell, t);

    a->counts.left_alone += !begun;
    return begun;
}

static void make_words(struct actor *a, uint64_t page, uint32_t id)
{
    struct place place = place_of(a->world, page);
    uint32_t i;

    for (i = 1; i < place.n_words; i++)
        a->words[i] = place_own(&place, i, id);
}

bool op_fill(struct actor *a, uint64_t page)
{
    volatile uint64_t *at = words_of(a->world, page);
    uint32_t i, n = (uint32_t)(a->world->page_bytes / 8);
    struct ticket t;

    if (!begin(a, page, CHANGE_FILL, 0, &t))
        return false;
    make_words(a, page, t.id);
    touch_begin(a, page, "filling");
    for (i = 1; i < n; i++)
        at[i] = a->words[i];
    touch_end(a);
    history_end(&a->world->pages[page], &t);
    a->counts.fills++;
    return true;
}

bool op_fill_by_syscall(struct actor *a, uint64_t page)
{
    struct ticket t;

    if (!begin(a, page, CHANGE_SYSCALL, 0, &t))
        return false;
    make_words(a, page, t.id);
    touch_begin(a, page, "read(2) into it");
    move(a, page, 8, false);
    touch_end(a);
    history_end(&a->world->pages[page], &t);
    a->counts.syscalls++;
    return true;
}

bool op_write_cell(struct actor *a, uint64_t page, unsigned cell)
{
    struct place place = place_of(a->world, page);
    uint32_t word = place_cell(&place, cell);
    struct ticket t;
    uint64_t value;

    if (!begin(a, page, CHANGE_CELL, cell, &t))
        return false;
    value = place_own(&place, word, t.id);
    touch_begin(a, page, "writing a word");
    words_of(a->world, page)[word] = value;
    touch_end(a);
    history_end(&a->world->pages[page], &t);
    a->counts.words++;
    return true;
}

void op_add(struct actor *a, uint64_t page)
{
    struct history *h = &a->world->pages[page];
    uint64_t got, expected;
    struct ticket t;

    look(a, page);
    history_add_begin(h, &t);
    touch_begin(a, page, "adding");
    got = __atomic_fetch_add(words_of(a->world, page), 1, __ATOMIC_SEQ_CST);
    touch_end(a);
    look_again(a, page, false);
    history_add_end(h, &t);
    a->counts.adds++;
    if (!view_judge_word(&a->view, 0, got, 1, &expected))
        report(a, page, 0, expected, got, "atomic addition");
}

uint64_t op_remove(struct actor *a, uint64_t page, uint64_t n)
{
    struct world *w = a->world;
    uint64_t i;

    if (n > RUN_MAX)
        n = RUN_MAX;
    if (n > w->n_pages - page)
        n = w->n_pages - page;
    for (i = 0; i < n && begin(a, page + i, CHANGE_REMOVE, 0, &a->tickets[i]); i++)
        ;
    n = i;
    if (n == 0)
        return 0;
    touch_begin(a, page, "removing");
    if (madvise(w->hva[page], n * w->page_bytes, MADV_DONTNEED) < 0)
        peer_die(PEER_EXIT_ABSENT, errno, "MADV_DONTNEED of %llu pages", (unsigned long long)n);
    touch_end(a);
    for (i = 0; i < n; i++)
        history_end(&w->pages[page + i], &a->tickets[i]);
    a->counts.removals++;
    a->counts.pages_removed += n;
    return n;
}
