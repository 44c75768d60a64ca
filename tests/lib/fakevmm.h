/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TESTS_FAKEVMM_H
#define TESTS_FAKEVMM_H

/*
 * fakevmm.h - the parts of the fake VMM and what they know of each other
 *
 *     fakevmm_oracle.c   what every byte of the memory file is, and writing such a file
 *     fakevmm_guest.c    guest memory: mapping it, handing it to a pager
 *     fakevmm_pages.c    what each page must read as, and the operations that change that
 *     fakevmm_work.c     the workloads: what threads do to guest memory
 *     fakevmm.c          the command line, the watchdog, the result
 *
 * Pages are numbered in the order of the image. "Page" is a page of the mapping, 4 KiB or 2 MiB; the oracle and
 * the checks work in blocks of 4 KiB, whatever the page size.
 */

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define BLOCK_BYTES 4096u
#define BLOCK_WORDS (BLOCK_BYTES / 8)

/* ---- oracle ---- */

/** enum block_kind - how a block of the memory file is stored; all but DATA read as zero */
enum block_kind {
    BLOCK_DATA,
    BLOCK_HOLE,
    BLOCK_ZEROES
};

/** struct oracle - everything that the content of a memory file depends on */
struct oracle {
    uint64_t seed;
    bool dense; /* no holes, no zero blocks */
};

enum block_kind oracle_kind(const struct oracle *o, uint64_t block);

/** oracle_image() - word @word of block @block of the memory file */
uint64_t oracle_image(const struct oracle *o, uint64_t block, unsigned word);

/** oracle_own() - what the @op-th change of a page writes there; never 0 */
uint64_t oracle_own(const struct oracle *o, uint64_t block, unsigned word, uint32_t op);

/** oracle_make_file() - write a memory file of @n_blocks; dies on error */
void oracle_make_file(const struct oracle *o, const char *path, uint64_t n_blocks);

/* ---- guest memory ---- */

/** enum content - what a page holds */
enum content {
    CONTENT_IMAGE,         /* the memory file's bytes */
    CONTENT_ZERO,          /* zeroes */
    CONTENT_OWN,           /* oracle_own() of the page's last change, all over */
    CONTENT_IMAGE_STAMPED, /* the memory file's, but for one word, which is oracle_own()'s */
    CONTENT_ZERO_STAMPED,  /* zeroes, but for that one word */
};

/** struct region - one mapping of guest memory */
struct region {
    uint8_t *hva;
    uint64_t len_bytes;
    uint64_t imgoff; /* bytes */
    uint64_t first;  /* number of its first page */
};

/** struct canary - memory beside a region that belongs to nobody: no pager may write there */
struct canary {
    uint64_t *word;
    uint64_t n_words;
    bool discarded; /* a discard went over it: it reads zero */
};

/** struct plan - how guest memory is to look like, from the command line */
struct plan {
    uint64_t n_pages;
    unsigned page_shift;
    unsigned n_regions;
    bool adjacent; /* regions touch each other, their order in memory is not that of the image */
    bool shuffle;  /* the handshake names the regions in any order */
    const char *page_field; /* both, new, old, none, kib: how the handshake says the page size */
};

/** struct guest - one VM's memory */
struct guest {
    struct oracle oracle;
    unsigned page_shift;
    uint64_t n_pages;
    unsigned n_regions;
    struct region *regions; /* by image offset */
    struct region **by_hva;
    struct canary *canaries;
    unsigned n_canaries;
    uint8_t *base; /* the address range that regions and gaps lie in */
    uint64_t span_bytes;
    _Atomic uint32_t *state;  /* one a page, see fakevmm_guest.c */
    _Atomic uint8_t *touched; /* one a page: bit 0 accessed, bit 1 written to */
    int uffd;
    int sock;
};

struct worker;

void guest_map(struct guest *g, const struct plan *plan);
void guest_attach(struct guest *g, const struct plan *plan, const char *socket_path);

uint8_t *guest_page(const struct guest *g, uint64_t page);

/** guest_region_end() - number of the page after the last one of the region that @page lies in */
uint64_t guest_region_end(const struct guest *g, uint64_t page);

/** guest_check() - read all of a page and compare; counts an error in @w */
void guest_check(struct worker *w, uint64_t page);

/** guest_peek() - load one word of a page and compare it; the cheapest way to touch a page */
void guest_peek(struct worker *w, uint64_t page, uint64_t block_in_page, unsigned word);

/** guest_claim() - become the one who changes @page. Return: false if somebody else is at it */
bool guest_claim(struct guest *g, uint64_t page);

/** guest_release() - the change is over; the page holds @content. Between the two readers accept either side */
void guest_release(struct guest *g, uint64_t page, enum content content);

/** guest_unclaim() - nothing was changed after all */
void guest_unclaim(struct guest *g, uint64_t page);

/** guest_op() - the number of the change under way, for oracle_own(); the page is claimed */
uint32_t guest_op(const struct guest *g, uint64_t page);
enum content guest_content(const struct guest *g, uint64_t page);

/** guest_fill() and guest_stamp() - claim, write all of a page or one word of it, release. Return: false if busy */
bool guest_fill(struct worker *w, uint64_t page);
bool guest_stamp(struct worker *w, uint64_t page);

/**
 * guest_discard() - MADV_DONTNEED of up to @n pages from @page on, not beyond its region
 *
 * Return: how many pages were discarded: fewer, or 0, where another thread was changing one.
 */
uint64_t guest_discard(struct worker *w, uint64_t page, uint64_t n);

/** guest_discard_span() - MADV_DONTNEED of any address range: over gaps, over several regions. Return: pages */
uint64_t guest_discard_span(struct worker *w, uint64_t first_byte, uint64_t n_bytes);

/** guest_remap() - map fresh anonymous memory over pages, which no userfaultfd event tells. Return: pages */
uint64_t guest_remap(struct worker *w, uint64_t page, uint64_t n);

void guest_check_canaries(struct worker *w);

uint64_t clock_ns(void);

/* ---- workloads ---- */

/** struct op - one step of the command line: what all threads do until it is done */
struct op {
    const char *name;
    void (*run)(struct worker *w, const struct op *op);
    uint64_t first; /* pages [first, end) of the guest */
    uint64_t end;
    uint64_t n; /* rounds; what a round is depends on the workload */
    unsigned n_threads;
    pthread_barrier_t barrier; /* of n_threads */
};

/** struct op_kind - a workload by name, with what it does if the command line does not say how much */
struct op_kind {
    const char *name;
    void (*run)(struct worker *w, const struct op *op);
    unsigned n_threads;
    uint64_t n;
    const char *text;
};

extern const struct op_kind op_kinds[];

/** struct tally - what a worker did; summed up in the result */
struct tally {
    uint64_t checks, writes, discards, pages_discarded, remaps, syscalls;
    uint64_t errors;
    uint64_t n_lat;      /* in worker.lat_ns */
    uint64_t slowest_ns; /* of the touches that a flood is timed by */
};

struct error {
    uint64_t page, addr, expected, got;
    unsigned offset; /* of the first wrong byte in the page */
    uint32_t state;
};

/** struct worker - one thread that uses guest memory */
struct worker {
    struct guest *guest;
    unsigned id;
    uint64_t rng;
    const struct op *op;
    _Atomic(const char *) doing; /* for the watchdog */
    _Atomic uint64_t doing_page;
    atomic_bool done;
    struct tally tally;
    struct error first_error;
    uint32_t *lat_ns; /* NULL: not measured */
    uint64_t cap_lat;
    pthread_t thread;
    uint64_t copy[BLOCK_WORDS];
};

uint64_t worker_random(struct worker *w);

/** worker_error() - note a wrong word and print it at once: the process may be killed before its result */
void worker_error(struct worker *w, uint64_t page, uint64_t block, unsigned word, uint64_t expected,
                  uint64_t got);

#endif
