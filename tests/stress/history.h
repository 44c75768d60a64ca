/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TESTS_STRESS_HISTORY_H
#define TESTS_STRESS_HISTORY_H

/*
 * history.h - what happened to one page, and which words a read of it may have seen
 *
 * A page is a set of registers that change at once or alone:
 *
 *     word 0             a counter: atomic additions of 1, nothing else but removals
 *     N_CELLS words      each can be written alone
 *     all other words    the body: written only together with the cells, by whoever fills the page
 *
 * A removal sets all of them to zero. Each change has a begin and an end on the page's own clock, taken before the first
 * and after the last instruction that may carry it out; so "X ended before Y began" is the real order of time.
 *
 * What a read [r0, r1] may see in a word (a register with unique values; this is linearizability of such a register):
 *
 *     the value of any change X of that word that began before r1, unless X is over: there is a change Y of the word with
 *     X.end < Y.begin and Y.end < r0. The first X is the image, which was there before everything.
 *
 * So one number a register decides: `over`, the latest begin of a change that has ended. X counts if X.end > over. A
 * change that is over at all its registers is forgotten: whatever made it so makes everything before it so, too. That is
 * why a short list suffices, and it is never cut: if it is full, the page is left alone until it is not.
 *
 * Removals are not as atomic as that. Until madvise returns, one processor can write to the old frame through its
 * translation cache when another already uses the new one. A write that overlaps a removal can be lost although it came
 * after one that is not. So such a write is weak: what it wrote may be seen, but it makes nothing over. A removal itself
 * is not weak: nothing that ended before it began is there when it has ended. (Of two removals at the same time, the one
 * that finds a page gone already must not return before the other one's flush: Linux flushes once more for that.)
 *
 * Words are written whole by this program, but the kernel copies as it likes: bytes of a word that read(2) writes, or that
 * write(2) reads, while something else changes the word can be from different sides. There, each byte must be allowed.
 *
 * The counter. An addition counts for certain if no removal overlaps it or begins later; it may count if no removal that
 * has ended began after it had ended. What is read lies between the two numbers.
 *
 * Between changes a page does not change. A read that no change overlaps is hashed, and the next such read must give the
 * same hash if nothing began between them: then also words that two changes fought for keep to their decision.
 *
 * What this does not find: of two reads that both overlap the same change, the later one seeing the older value.
 */

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#include "../lib/fakevmm.h"

#define N_CELLS         7
#define N_REGISTERS     (N_CELLS + 1) /* the body is the last one; the counter has rules of its own */
#define BODY            N_CELLS

#define LIVE_MAX        32 /* changes of a page that can still be seen, or are under way */
#define LIVE_MAX_WRITES 24 /* writes leave room for removals, which clear the list */
#define RECENT_MAX      64 /* a read that overlaps the begin of more changes is not judged */

enum change_kind {
    CHANGE_IMAGE,
    CHANGE_FILL,    /* body and cells, word by word */
    CHANGE_SYSCALL, /* the same by read(2) */
    CHANGE_CELL,
    CHANGE_REMOVE,
};

/** struct change - one change of a page */
struct change {
    uint64_t begin; /* on the page's clock */
    uint64_t end;   /* 0: under way */
    uint32_t id;    /* what it writes is oracle_own() of this */
    uint8_t kind;
    uint8_t cell; /* CHANGE_CELL: which */
    bool weak;    /* a removal overlaps it */
    bool met;     /* any other change overlaps it */
};

/** struct additions - the page's counter */
struct additions {
    uint64_t begun;   /* ever */
    uint64_t ended;   /* ever */
    uint64_t lost;    /* of those ended: surely gone with the removals that have ended */
    uint64_t certain; /* ended, and no removal overlapped them or began since */
};

/** struct history - one page */
struct history {
    pthread_mutex_t lock; /* never held while guest memory is touched */
    uint64_t clock;
    uint32_t next_id;
    uint16_t n_live, n_running, n_removing;
    uint32_t n_removals; /* begun, ever */
    bool removed;        /* a removal has ended: the image is gone for good */
    struct additions adds;
    struct change live[LIVE_MAX];
    uint8_t recent[RECENT_MAX]; /* kind and cell of the last changes, by id */
    uint32_t still_id;          /* next_id at the last read that nothing overlapped */
    uint64_t still_adds, still_hash;
    bool has_still;
};

/** struct place - where a page's words are in the oracle's world */
struct place {
    const struct oracle *oracle;
    uint64_t block;   /* of the image: the page's first */
    uint32_t n_words; /* of the page */
};

/** struct ticket - a change or an addition under way */
struct ticket {
    uint32_t id;
    uint32_t n_removals;
    uint64_t adds_ended; /* removals: additions that had ended before */
    bool weak;
};

/** struct view - what is known about a page when a read begins, completed when it has ended */
struct view {
    struct place place;
    struct change live[LIVE_MAX];
    struct change recent[RECENT_MAX]; /* began during the read */
    unsigned n_live, n_recent;
    uint64_t over[N_REGISTERS];
    uint32_t next_id, n_removals;
    struct additions adds; /* as the read began */
    uint64_t adds_begun;   /* as it ended */
    bool removed;
    bool raced;        /* some change overlaps the read */
    bool removing;     /* a removal does */
    bool adding;       /* an addition does */
    bool bytewise;     /* bytes of one word may be from different sides */
    bool torn_counter; /* the kernel read it while it changed */
    bool unjudged;     /* too much happened */
};

void history_init(struct history *h);

/** history_begin() - a change is going to begin. Return: false if the page should be left alone for now */
bool history_begin(struct history *h, enum change_kind kind, unsigned cell, struct ticket *t);
void history_end(struct history *h, const struct ticket *t);

void history_add_begin(struct history *h, struct ticket *t);
void history_add_end(struct history *h, const struct ticket *t);

/** history_look() - a read is going to begin */
void history_look(struct history *h, const struct place *place, struct view *v);

/** history_look_again() - it has ended; @by_syscall: the kernel did the reading */
void history_look_again(struct history *h, struct view *v, bool by_syscall);

/** place_cell() - which word of the page a cell is: 1..n_words - 1, no two the same */
uint32_t place_cell(const struct place *p, unsigned cell);

/** place_own() - what the change @id writes to @word of the page */
uint64_t place_own(const struct place *p, uint32_t word, uint32_t id);

/**
 * view_judge() - may the read have seen these words?
 * @words: all of the page
 * @wrong: the first that it may not have seen
 *
 * Return: true if all are allowed. *@expected is then not written.
 */
bool view_judge(const struct view *v, const uint64_t *words, uint32_t *wrong, uint64_t *expected);

/** view_judge_word() - the same for a read of one word; @own_adds: additions by the reader itself in it, 0 or 1 */
bool view_judge_word(const struct view *v, uint32_t word, uint64_t got, unsigned own_adds,
                     uint64_t *expected);

/** history_still() - a read of the whole page, judged right. Return: false if the page changed by itself */
bool history_still(struct history *h, const struct view *v, const uint64_t *words);

#endif
