/* SPDX-License-Identifier: Apache-2.0 */
/* history.c - see history.h for the theory. Pure: no guest memory, no clock but the page's own. */
#include "history.h"

#include <assert.h>
#include <string.h>

static bool covers(const struct change *c, unsigned reg)
{
    return c->kind != CHANGE_CELL || c->cell == reg;
}

static bool is_running(const struct change *c)
{
    return c->end == 0;
}

/* When did the last change begin that makes everything over that ended before? */
static void find_over(const struct change *live, unsigned n, uint64_t over[N_REGISTERS])
{
    unsigned i, reg;

    memset(over, 0, N_REGISTERS * sizeof(*over));
    for (i = 0; i < n; i++) {
        if (is_running(&live[i]) || live[i].weak)
            continue;
        for (reg = 0; reg < N_REGISTERS; reg++) {
            if (covers(&live[i], reg) && live[i].begin > over[reg])
                over[reg] = live[i].begin;
        }
    }
}

static bool can_be_seen(const struct change *c, unsigned reg, const uint64_t over[N_REGISTERS])
{
    return covers(c, reg) && (is_running(c) || c->end > over[reg]);
}

static bool can_be_seen_anywhere(const struct change *c, const uint64_t over[N_REGISTERS])
{
    unsigned reg;

    for (reg = 0; reg < N_REGISTERS; reg++) {
        if (can_be_seen(c, reg, over))
            return true;
    }
    return false;
}

static void forget_what_is_over(struct history *h)
{
    uint64_t over[N_REGISTERS];
    uint16_t i, kept = 0;

    find_over(h->live, h->n_live, over);
    for (i = 0; i < h->n_live; i++) {
        if (can_be_seen_anywhere(&h->live[i], over))
            h->live[kept++] = h->live[i];
    }
    assert(kept > 0);
    h->n_live = kept;
}

void history_init(struct history *h)
{
    memset(h, 0, sizeof(*h));
    pthread_mutex_init(&h->lock, NULL);
    h->clock = 1;
    h->live[0] = (struct change){.begin = 0, .end = 1, .kind = CHANGE_IMAGE};
    h->n_live = 1;
    h->next_id = 1;
}

/* The new change and those under way overlap. */
static void note_meeting(struct history *h, struct change *c)
{
    uint16_t i;

    c->met = h->n_running > 0;
    c->weak = h->n_removing > 0 && c->kind != CHANGE_REMOVE;
    for (i = 0; i < h->n_live; i++) {
        struct change *other = &h->live[i];

        if (!is_running(other))
            continue;
        other->met = true;
        if (c->kind == CHANGE_REMOVE && other->kind != CHANGE_REMOVE)
            other->weak = true;
    }
}

static bool begin_locked(struct history *h, enum change_kind kind, unsigned cell, struct ticket *t)
{
    unsigned room = kind == CHANGE_REMOVE ? LIVE_MAX : LIVE_MAX_WRITES;
    struct change c = {.kind = (uint8_t)kind, .cell = (uint8_t)cell};

    if (h->n_live >= room)
        return false;
    c.begin = ++h->clock;
    c.id = h->next_id++;
    note_meeting(h, &c);
    h->live[h->n_live++] = c;
    h->recent[c.id % RECENT_MAX] = (uint8_t)(kind << 4 | cell);
    h->n_running++;
    *t = (struct ticket){.id = c.id, .adds_ended = h->adds.ended};
    if (kind == CHANGE_REMOVE) {
        h->n_removing++;
        h->n_removals++;
        h->adds.certain = 0;
    }
    return true;
}

bool history_begin(struct history *h, enum change_kind kind, unsigned cell, struct ticket *t)
{
    bool begun;

    pthread_mutex_lock(&h->lock);
    begun = begin_locked(h, kind, cell, t);
    pthread_mutex_unlock(&h->lock);
    return begun;
}

void history_end(struct history *h, const struct ticket *t)
{
    uint16_t i = 0;

    pthread_mutex_lock(&h->lock);
    while (h->live[i].id != t->id || !is_running(&h->live[i])) {
        i++;
        assert(i < h->n_live);
    }
    h->live[i].end = ++h->clock;
    h->n_running--;
    if (h->live[i].kind == CHANGE_REMOVE) {
        h->n_removing--;
        h->removed = true;
        if (t->adds_ended > h->adds.lost)
            h->adds.lost = t->adds_ended;
    }
    forget_what_is_over(h);
    pthread_mutex_unlock(&h->lock);
}

void history_add_begin(struct history *h, struct ticket *t)
{
    pthread_mutex_lock(&h->lock);
    h->adds.begun++;
    *t = (struct ticket){.n_removals = h->n_removals, .weak = h->n_removing > 0};
    pthread_mutex_unlock(&h->lock);
}

void history_add_end(struct history *h, const struct ticket *t)
{
    pthread_mutex_lock(&h->lock);
    h->adds.ended++;
    if (!t->weak && t->n_removals == h->n_removals)
        h->adds.certain++;
    pthread_mutex_unlock(&h->lock);
}

void history_look(struct history *h, const struct place *place, struct view *v)
{
    unsigned i;

    pthread_mutex_lock(&h->lock);
    v->place = *place;
    v->n_live = h->n_live;
    memcpy(v->live, h->live, h->n_live * sizeof(*h->live));
    v->n_recent = 0;
    v->next_id = h->next_id;
    v->n_removals = h->n_removals;
    v->adds = h->adds;
    v->removed = h->removed;
    v->raced = h->n_running > 0;
    v->removing = h->n_removing > 0;
    v->unjudged = v->bytewise = v->torn_counter = false;
    pthread_mutex_unlock(&h->lock);
    v->adding = v->adds.begun != v->adds.ended;
    find_over(v->live, v->n_live, v->over);
    for (i = 0; i < v->n_live; i++) {
        const struct change *c = &v->live[i];

        if (c->kind == CHANGE_SYSCALL && (is_running(c) || c->met))
            v->bytewise = true;
    }
}

void history_look_again(struct history *h, struct view *v, bool by_syscall)
{
    uint32_t id;

    pthread_mutex_lock(&h->lock);
    v->unjudged = h->next_id - v->next_id > RECENT_MAX;
    for (id = v->next_id; id != h->next_id && !v->unjudged; id++) {
        uint8_t what = h->recent[id % RECENT_MAX];
        struct change c = {.id = id, .kind = what >> 4, .cell = what & 15};

        v->recent[v->n_recent++] = c;
        if (c.kind == CHANGE_SYSCALL)
            v->bytewise = true;
    }
    v->raced = v->raced || v->next_id != h->next_id;
    v->removing = v->removing || v->n_removals != h->n_removals;
    v->adding = v->adding || v->adds.begun != h->adds.begun;
    v->adds_begun = h->adds.begun;
    pthread_mutex_unlock(&h->lock);
    if (by_syscall && v->raced)
        v->bytewise = true;
    v->torn_counter = by_syscall && (v->raced || v->adding);
}

uint32_t place_cell(const struct place *p, unsigned cell)
{
    uint32_t share = (p->n_words - 1) / N_CELLS;
    uint64_t h = (p->block + 1) * 0x9e3779b97f4a7c15u ^ p->oracle->seed;

    return 1 + cell * share + (uint32_t)((h >> (8 + 4 * cell)) % share);
}

uint64_t place_own(const struct place *p, uint32_t word, uint32_t id)
{
    return oracle_own(p->oracle, p->block + word / BLOCK_WORDS, word % BLOCK_WORDS, id);
}

static uint64_t value_of(const struct place *p, const struct change *c, uint32_t word)
{
    if (c->kind == CHANGE_IMAGE)
        return oracle_image(p->oracle, p->block + word / BLOCK_WORDS, word % BLOCK_WORDS);
    return c->kind == CHANGE_REMOVE ? 0 : place_own(p, word, c->id);
}

/* struct suspects - the changes that can be seen in one register, the likeliest first */
struct suspects {
    struct change c[LIVE_MAX + RECENT_MAX];
    unsigned n;
};

static void find_suspects(const struct view *v, unsigned reg, struct suspects *s)
{
    unsigned i;

    s->n = 0;
    for (i = 0; i < v->n_live; i++) {
        if (can_be_seen(&v->live[i], reg, v->over))
            s->c[s->n++] = v->live[i];
    }
    for (i = 0; i < v->n_recent; i++) {
        if (covers(&v->recent[i], reg))
            s->c[s->n++] = v->recent[i];
    }
    assert(s->n > 0);
}

static bool bytes_allowed(const struct place *p, const struct suspects *s, uint32_t word,
                          uint64_t got)
{
    uint64_t wrong = ~0ull, diff;
    unsigned i, byte;

    for (i = 0; i < s->n && wrong; i++) {
        diff = got ^ value_of(p, &s->c[i], word);
        for (byte = 0; byte < 8; byte++) {
            if ((diff >> 8 * byte & 0xff) == 0)
                wrong &= ~(0xffull << 8 * byte);
        }
    }
    return wrong == 0;
}

/* Is the word from one of the suspects? The one that it is from is asked first the next time. */
static bool word_allowed(const struct view *v, struct suspects *s, uint32_t word, uint64_t got)
{
    struct change first;
    unsigned i;

    for (i = 0; i < s->n; i++) {
        if (got != value_of(&v->place, &s->c[i], word))
            continue;
        first = s->c[i];
        s->c[i] = s->c[0];
        s->c[0] = first;
        return true;
    }
    return v->bytewise && bytes_allowed(&v->place, s, word, got);
}

static bool counter_allowed(const struct view *v, uint64_t got, unsigned own_adds,
                            uint64_t *expected)
{
    uint64_t image = oracle_image(v->place.oracle, v->place.block, 0);
    uint64_t most = v->adds_begun - own_adds;
    uint64_t left = most - v->adds.lost; /* that the removals which have ended left */
    uint64_t base = v->removed ? 0 : image;

    *expected = base + v->adds.certain;
    if (v->torn_counter)
        return true;
    if (!v->removing)
        return got - base >= v->adds.certain && got - base <= left;
    return got <= left || (!v->removed && got - image <= most);
}

static int cell_at(const struct place *p, uint32_t word)
{
    int cell;

    for (cell = 0; cell < N_CELLS; cell++) {
        if (place_cell(p, (unsigned)cell) == word)
            return cell;
    }
    return -1;
}

bool view_judge_word(const struct view *v, uint32_t word, uint64_t got, unsigned own_adds,
                     uint64_t *expected)
{
    struct suspects s;
    int cell;

    if (v->unjudged)
        return true;
    if (word == 0)
        return counter_allowed(v, got, own_adds, expected);
    cell = cell_at(&v->place, word);
    find_suspects(v, cell < 0 ? BODY : (unsigned)cell, &s);
    *expected = value_of(&v->place, &s.c[s.n - 1], word);
    return word_allowed(v, &s, word, got);
}

bool view_judge(const struct view *v, const uint64_t *words, uint32_t *wrong, uint64_t *expected)
{
    struct suspects s;
    uint32_t word;
    unsigned cell;

    if (v->unjudged)
        return true;
    *wrong = 0;
    if (!view_judge_word(v, 0, words[0], 0, expected))
        return false;
    find_suspects(v, BODY, &s);
    for (word = 1; word < v->place.n_words; word++) {
        if (word_allowed(v, &s, word, words[word]) || cell_at(&v->place, word) >= 0)
            continue;
        *wrong = word;
        return view_judge_word(v, word, words[word], 0, expected);
    }
    for (cell = 0; cell < N_CELLS; cell++) {
        *wrong = place_cell(&v->place, cell);
        if (!view_judge_word(v, *wrong, words[*wrong], 0, expected))
            return false;
    }
    return true;
}

static uint64_t hash_words(const uint64_t *words, uint32_t n)
{
    uint64_t h = 0x9e3779b97f4a7c15u;
    uint32_t i;

    for (i = 0; i < n; i++)
        h = (h ^ words[i]) * 0xd6e8feb86659fd93u + (h >> 29);
    return h;
}

bool history_still(struct history *h, const struct view *v, const uint64_t *words)
{
    uint64_t hash;
    bool same = true;

    if (v->raced || v->adding || v->unjudged)
        return true;
    hash = hash_words(words, v->place.n_words);
    pthread_mutex_lock(&h->lock);
    if (h->has_still && h->still_id == v->next_id && h->still_adds == v->adds_begun) {
        same = h->still_hash == hash;
    } else if (!h->has_still || h->still_id <= v->next_id) {
        h->has_still = true;
        h->still_id = v->next_id;
        h->still_adds = v->adds_begun;
        h->still_hash = hash;
    }
    pthread_mutex_unlock(&h->lock);
    return same;
}
