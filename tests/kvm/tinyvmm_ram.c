/* SPDX-License-Identifier: Apache-2.0 */
/*
 * tinyvmm_ram.c - guest memory: what it must hold, making it, handing it over, changing and checking it
 *
 * The whole of the guest's memory comes from the memory file, its code and page tables too: the first instruction is a fault.
 * The page tables map the first GiB onto itself with large pages. KVM, or the processor on behalf of the guest, sets the
 * accessed and dirty bits in them, and nothing else there may change.
 *
 * Regions lie in the address space in the opposite order, with a gap between two, so that a pager that takes one for the other
 * is noticed.
 */
#include "tinyvmm.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "uffd_peer.h"

#define GAP_BYTES        (2ull << 20)
#define PTE_PRESENT_USER 0x7ull  /* present, writable, for ring 3 */
#define PTE_LARGE        0x80ull /* 2 MiB */
#define PTE_SET_BY_USE   0x60ull /* accessed, dirty */

enum block_kind {
    BLOCK_DATA,
    BLOCK_HOLE,
    BLOCK_ZEROES
};

static uint64_t mix(uint64_t a, uint64_t b)
{
    uint64_t x = (a ^ b << 20) * 0xff51afd7ed558ccdu;

    x = (x ^ x >> 33) * 0xc4ceb9fe1a85ec53u;
    return x ^ x >> 33;
}

/* kind_of() - how a block of the memory file is stored: holes are ranges of 64 KiB or single ones, stored zeroes single */
static enum block_kind kind_of(const struct image *image, uint64_t block)
{
    if (image->dense || block < GUEST_PROGRAM_BLOCKS)
        return BLOCK_DATA;
    if (mix(image->seed * 4 + 1, block >> 4) % 5 == 0 || mix(image->seed * 4 + 2, block) % 16 == 0)
        return BLOCK_HOLE;
    return mix(image->seed * 4 + 3, block) % 32 == 0 ? BLOCK_ZEROES : BLOCK_DATA;
}

uint64_t ram_seed(const struct image *image)
{
    return (image->seed * 0xa0761d6478bd642fu + 0x1234567) | 1;
}

/* word_of() - what guest.h says */
static uint64_t word_of(const struct image *image, uint64_t block, unsigned word, uint32_t state)
{
    if (state & STATE_ZERO)
        return 0;
    return ram_seed(image) + (block * GUEST_BLOCK_WORDS + word) * GUEST_STEP +
           (state >> STATE_GENERATION_SHIFT) * GUEST_CHANGE;
}

static uint32_t state_of_file(const struct image *image, uint64_t block)
{
    return kind_of(image, block) == BLOCK_DATA ? 0 : STATE_ZERO;
}

/* file_block() - a block of the memory file; the first ones are nothing, code, a table of each level */
static void file_block(const struct image *image, uint64_t block, uint64_t words[GUEST_BLOCK_WORDS])
{
    unsigned i;

    if (block >= GUEST_PROGRAM_BLOCKS) {
        for (i = 0; i < GUEST_BLOCK_WORDS; i++)
            words[i] = word_of(image, block, i, state_of_file(image, block));
        return;
    }
    memset(words, 0, BLOCK_BYTES);
    if (block == GUEST_CODE_BLOCK) {
        memcpy(words, guest_code, guest_code_bytes);
    } else if (block == GUEST_TABLES_BLOCK || block == GUEST_TABLES_BLOCK + 1) {
        words[0] = (block + 1) * BLOCK_BYTES | PTE_PRESENT_USER;
    } else if (block == GUEST_TABLES_BLOCK + 2) {
        for (i = 0; i < GUEST_BLOCK_WORDS; i++)
            words[i] = (uint64_t)i << 21 | PTE_LARGE | PTE_PRESENT_USER;
    }
}

void ram_make_file(const struct image *image, const char *path, uint64_t n_blocks)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
    uint64_t block, words[GUEST_BLOCK_WORDS];

    if (fd < 0 || ftruncate(fd, (off_t)(n_blocks * BLOCK_BYTES)) < 0)
        peer_die(PEER_EXIT_ABSENT, errno, "cannot make %s", path);
    for (block = 0; block < n_blocks; block++) {
        if (kind_of(image, block) == BLOCK_HOLE)
            continue;
        file_block(image, block, words);
        if (pwrite(fd, words, sizeof(words), (off_t)(block * BLOCK_BYTES)) != sizeof(words))
            peer_die(PEER_EXIT_ABSENT, errno, "cannot write %s", path);
    }
    if (close(fd) < 0)
        peer_die(PEER_EXIT_ABSENT, errno, "cannot write %s", path);
}

void ram_fill(const struct ram *ram)
{
    uint64_t block;

    for (block = 0; block < ram->n_blocks; block++)
        file_block(&ram->image, block, (uint64_t *)ram_block(ram, block));
}

static void *must_map(void *at, uint64_t len_bytes, int prot, int flags)
{
    void *p = mmap(at, len_bytes, prot, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | flags, -1, 0);

    if (p == MAP_FAILED)
        peer_die(PEER_EXIT_ABSENT, errno, "cannot map %llu bytes", (unsigned long long)len_bytes);
    return p;
}

static void map_regions(struct ram *ram)
{
    uint64_t unit_bytes = 1ull << ram->unit_shift,
             n_units = ram->n_blocks * BLOCK_BYTES >> ram->unit_shift;
    uint64_t span = ram->n_blocks * BLOCK_BYTES + (ram->n_regions + 1) * GAP_BYTES, gpa = 0;
    uint8_t *at = must_map(NULL, span + unit_bytes, PROT_NONE, 0);
    unsigned i;

    at += -(uintptr_t)at & (unit_bytes - 1);
    at += span;
    for (i = 0; i < ram->n_regions; i++) {
        struct ram_region *r = &ram->regions[i];

        r->gpa = gpa;
        r->len_bytes = (n_units / ram->n_regions + (i < n_units % ram->n_regions))
                       << ram->unit_shift;
        gpa += r->len_bytes;
        at -= GAP_BYTES + r->len_bytes;
        r->hva = must_map(at, r->len_bytes, PROT_READ | PROT_WRITE,
                          MAP_FIXED | (ram->unit_shift > 12 ? MAP_HUGETLB : 0));
    }
}

void ram_map(struct ram *ram)
{
    uint64_t block, table_bytes = ram->n_blocks * sizeof(*ram->states);

    map_regions(ram);
    table_bytes = (table_bytes + BLOCK_BYTES - 1) & ~(uint64_t)(BLOCK_BYTES - 1);
    ram->states_bytes = table_bytes + BLOCK_BYTES;
    ram->states = must_map(NULL, ram->states_bytes, PROT_READ | PROT_WRITE, 0);
    ram->doing = ram->states + table_bytes / sizeof(*ram->states);
    ram->touched = must_map(NULL, ram->n_blocks, PROT_READ | PROT_WRITE, 0);
    for (block = GUEST_PROGRAM_BLOCKS; block < ram->n_blocks; block++)
        atomic_store(&ram->states[block], state_of_file(&ram->image, block));
}

void ram_attach(struct ram *ram, const char *socket_path)
{
    size_t len;
    char *text = NULL;
    FILE *f = open_memstream(&text, &len);
    unsigned i;
    int r;

    if (!f)
        peer_die(PEER_EXIT_ABSENT, errno, "open_memstream");
    ram->uffd = peer_uffd_new(O_NONBLOCK, 0);
    for (i = 0; i < ram->n_regions; i++) {
        const struct ram_region *region = &ram->regions[i];

        peer_uffd_register(ram->uffd, region->hva, region->len_bytes);
        fprintf(f,
                "%c{\"base_host_virt_addr\":%llu,\"size\":%llu,\"offset\":%llu,\"page_size\":%llu}",
                i ? ',' : '[', (unsigned long long)(uintptr_t)region->hva,
                (unsigned long long)region->len_bytes, (unsigned long long)region->gpa,
                1ull << ram->unit_shift);
    }
    fputc(']', f);
    fclose(f);
    ram->sock = peer_connect(socket_path);
    if (ram->sock < 0)
        peer_die(PEER_EXIT_ABSENT, -ram->sock, "cannot connect to %s", socket_path);
    r = peer_send(ram->sock, text, len, &ram->uffd, 1);
    if (r < 0)
        peer_die(PEER_EXIT_ABSENT, -r, "cannot send the handshake");
    free(text);
}

uint8_t *ram_at(const struct ram *ram, uint64_t gpa)
{
    unsigned i;

    for (i = 0; i < ram->n_regions; i++) {
        const struct ram_region *r = &ram->regions[i];

        if (gpa >= r->gpa && gpa - r->gpa < r->len_bytes)
            return r->hva + (gpa - r->gpa);
    }
    return NULL;
}

uint8_t *ram_block(const struct ram *ram, uint64_t block)
{
    return ram_at(ram, block * BLOCK_BYTES);
}

static void check_program(struct actor *a, uint64_t block, const uint64_t *found)
{
    uint64_t words[GUEST_BLOCK_WORDS], ignored = block < GUEST_TABLES_BLOCK ? 0 : PTE_SET_BY_USE;
    unsigned i;

    file_block(&a->m->ram->image, block, words);
    for (i = 0; i < GUEST_BLOCK_WORDS; i++) {
        if ((found[i] ^ words[i]) & ~(words[i] ? ignored : 0))
            actor_error(a, "the VMM", block, i, 0, words[i], found[i]);
    }
}

void ram_check(struct actor *a, uint64_t block)
{
    const struct ram *ram = a->m->ram;
    const volatile uint64_t *at = (const uint64_t *)ram_block(ram, block);
    uint32_t state = atomic_load(&ram->states[block]);
    uint64_t found[GUEST_BLOCK_WORDS], expected;
    unsigned i;

    for (i = 0; i < GUEST_BLOCK_WORDS; i++)
        found[i] = at[i];
    atomic_store(&ram->touched[block], 1);
    a->tally.blocks++;
    if (block < GUEST_PROGRAM_BLOCKS) {
        check_program(a, block, found);
        return;
    }
    if (state & STATE_CHANGING)
        peer_die(PEER_EXIT_USAGE, 0, "block %llu is still being changed",
                 (unsigned long long)block);
    for (i = 0; i < GUEST_BLOCK_WORDS; i++) {
        expected = word_of(&ram->image, block, i, state);
        if (found[i] != expected) {
            actor_error(a, "the VMM", block, i, state, expected, found[i]);
            return;
        }
    }
}

/* claim_blocks() - become the one who changes these. Return: false, and none is claimed, if somebody else is at one */
static bool claim_blocks(struct ram *ram, uint64_t first, uint64_t n)
{
    uint64_t i;

    for (i = 0; i < n; i++) {
        uint32_t state = atomic_load(&ram->states[first + i]);

        if (state & STATE_CHANGING || !atomic_compare_exchange_strong(
                                          &ram->states[first + i], &state, state | STATE_CHANGING))
            break;
    }
    if (i == n)
        return true;
    while (i-- > 0)
        atomic_fetch_and(&ram->states[first + i], ~(uint32_t)STATE_CHANGING);
    return false;
}

uint64_t ram_discard(struct actor *a, uint64_t unit, uint64_t n)
{
    struct ram *ram = a->m->ram;
    uint64_t each = 1ull << (ram->unit_shift - 12), first = unit * each, claimed = 0, b;
    const struct ram_region *r = ram->regions;

    while (first * BLOCK_BYTES >= r->gpa + r->len_bytes)
        r++;
    while (claimed < n && (first + claimed * each) * BLOCK_BYTES < r->gpa + r->len_bytes &&
           claim_blocks(ram, first + claimed * each, each))
        claimed++;
    if (claimed == 0)
        return 0;
    if (madvise(ram_block(ram, first), claimed << ram->unit_shift, MADV_DONTNEED) < 0)
        peer_die(PEER_EXIT_ABSENT, errno, "MADV_DONTNEED of %llu units from %llu",
                 (unsigned long long)claimed, (unsigned long long)unit);
    for (b = first; b < first + claimed * each; b++) {
        uint32_t generation = (atomic_load(&ram->states[b]) >> STATE_GENERATION_SHIFT) + 1;

        atomic_store(&ram->states[b], generation << STATE_GENERATION_SHIFT | STATE_ZERO);
    }
    a->tally.discards++;
    a->tally.units_discarded += claimed;
    return claimed;
}

void ram_judge(struct actor *a, uint64_t block, unsigned word, uint32_t state, uint64_t found)
{
    const struct image *image = &a->m->ram->image;
    uint32_t now = atomic_load(&a->m->ram->states[block]);
    uint32_t generation = state >> STATE_GENERATION_SHIFT,
             last = (now >> STATE_GENERATION_SHIFT) + 1;

    a->tally.raced++;
    if (found == 0 || found == word_of(image, block, word, state))
        return; /* 0: either it was zero, or a discard can have come between */
    while (++generation <= last) {
        if (found == word_of(image, block, word, generation << STATE_GENERATION_SHIFT))
            return;
    }
    actor_error(a, "a racing virtual CPU", block, word, state, word_of(image, block, word, state),
                found);
}
