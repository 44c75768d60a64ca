/* SPDX-License-Identifier: Apache-2.0 */
/*
 * make_chain.c - an image as the last of a long chain leaves it: DEPTH packs, of each of them a part of the pages
 *
 *     make_chain MEMFILE STORE NAME DEPTH
 *
 * To pack a thousand layers takes minutes. What a pager sees of them is one manifest: it is made here by itself, as if layer
 * i had written every page whose number leaves the remainder i. The parents that it names are in no store.
 */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/err.h"
#include "base/fd.h"
#include "image/digest.h"
#include "image/frame.h"
#include "image/store.h"

#define FRAME_PAGES 16u

static __attribute__((noreturn)) void die(const char *what)
{
    (void)fprintf(stderr, "make_chain: %s: %s\n", what, err_text());
    exit(1);
}

struct chain {
    const char *memory;
    uint64_t n_pages;
    uint64_t depth;
    struct store *store;
    struct frame_coder *coder;
    struct manifest *m;
};

static bool is_zero(const char *page)
{
    return page[0] == 0 && memcmp(page, page + 1, IMAGE_PAGE - 1) == 0;
}

/* add_frame() - of @n pages of the guest, @pages, behind what the pack has already */
static void add_frame(struct chain *c, struct store_file *pack, struct digest *digest,
                      uint32_t layer, const uint64_t *pages, unsigned n)
{
    static char bytes[FRAME_PAGES * IMAGE_PAGE];
    static char stored[FRAME_PAGES * IMAGE_PAGE];
    struct manifest_frame *frame = &c->m->frames[c->m->n_frames];

    *frame = (struct manifest_frame){
        .pack = layer, .n_pages = (uint16_t)n, .off = c->m->packs[layer].bytes};
    for (unsigned i = 0; i < n; i++) {
        memcpy(bytes + i * IMAGE_PAGE, c->memory + pages[i] * IMAGE_PAGE, IMAGE_PAGE);
        c->m->runs[c->m->n_runs++] =
            (struct manifest_run){.first = pages[i], .n = 1, .frame = c->m->n_frames, .index = i};
    }
    if (frame_encode(c->coder, frame, bytes, stored, FRAME_LZ4, 0) < 0 ||
        fd_write_all(pack->fd, stored, frame->stored_bytes) < 0)
        die("frame");
    digest_add(digest, stored, frame->stored_bytes);
    c->m->packs[layer].bytes += frame->stored_bytes;
    c->m->n_frames++;
}

static void add_layer(struct chain *c, uint32_t layer)
{
    const struct pack_header header = {
        .magic = PACK_MAGIC, .version = PACK_VERSION, .header_bytes = sizeof(header)};
    uint64_t pages[FRAME_PAGES];
    struct store_file pack;
    struct digest digest;
    unsigned n = 0;

    digest_init(&digest);
    digest_add(&digest, &header, sizeof(header));
    if (store_file_init(&pack, c->store) < 0 || fd_write_all(pack.fd, &header, sizeof(header)) < 0)
        die("pack");
    c->m->packs[layer].bytes = sizeof(header);
    for (uint64_t page = layer; page < c->n_pages; page += c->depth) {
        if (!is_zero(c->memory + page * IMAGE_PAGE))
            pages[n++] = page;
        if (n == FRAME_PAGES || (n > 0 && page + c->depth >= c->n_pages)) {
            add_frame(c, &pack, &digest, layer, pages, n);
            n = 0;
        }
    }
    digest_end(&digest, c->m->packs[layer].sha256);
    if (store_put_pack(&pack, c->m->packs[layer].sha256, c->m->packs[layer].bytes) < 0)
        die("pack");
    store_file_deinit(&pack);
}

static int compare_runs(const void *a, const void *b)
{
    return compare_u64(&((const struct manifest_run *)a)->first,
                       &((const struct manifest_run *)b)->first);
}

static void make(struct chain *c, const char *name)
{
    int fd = -1;

    if (manifest_new(&c->m, c->n_pages * IMAGE_PAGE) < 0 || frame_coder_new(&c->coder) < 0)
        die("memory");
    c->m->packs = calloc(c->depth, sizeof(*c->m->packs));
    c->m->parents = calloc(c->depth, sizeof(*c->m->parents));
    c->m->frames = calloc(c->n_pages, sizeof(*c->m->frames));
    c->m->runs = calloc(c->n_pages, sizeof(*c->m->runs));
    if (!c->m->packs || !c->m->parents || !c->m->frames || !c->m->runs)
        die("memory");
    for (uint32_t layer = 0; layer < c->depth; layer++)
        add_layer(c, layer);
    for (uint32_t parent = 0; parent + 1 < c->depth; parent++)
        digest_of(&parent, sizeof(parent), c->m->parents[parent]);
    qsort(c->m->runs, c->m->n_runs, sizeof(*c->m->runs), compare_runs);
    c->m->n_packs = (uint32_t)c->depth;
    c->m->n_parents = (uint32_t)c->depth - 1;
    c->m->has_own_pack = true;
    if (store_put_manifest(c->store, c->m, &fd) < 0 ||
        store_put_name(c->store, name, c->m->id, false) < 0)
        die("manifest");
    (void)fd_close(fd);
    c->m = manifest_free(c->m);
    c->coder = frame_coder_free(c->coder);
}

int main(int argc, char **argv)
{
    struct chain c = {0};
    struct stat st;
    void *memory;
    int fd;

    if (argc != 5)
        return 2;
    fd = open(argv[1], O_RDONLY | O_CLOEXEC);
    if (fd < 0 || fstat(fd, &st) < 0)
        die(argv[1]);
    memory = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
    if (memory == MAP_FAILED)
        die(argv[1]);
    c.memory = memory;
    c.n_pages = (uint64_t)st.st_size / IMAGE_PAGE;
    c.depth = strtoull(argv[4], NULL, 10);
    if (store_open(&c.store, argv[2], true) < 0)
        die(argv[2]);
    make(&c, argv[3]);
    c.store = store_close(c.store);
    (void)munmap(memory, (size_t)st.st_size);
    (void)fd_close(fd);
    return 0;
}
