/* SPDX-License-Identifier: Apache-2.0 */
#include "node/layer_vm.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#include "base/err.h"
#include "base/fd.h"
#include "base/procfs.h"

#define PIECE_PAGES 8192u /* entries of pagemap that are read at once */

static void file_closep(FILE **f)
{
    if (*f)
        (void)fclose(*f);
}

static int pid_of(const struct layer_vm *vm)
{
    return vm->state->block.header->vmm_pid;
}

/* ---- whose memory --------------------------------------------------------------------------------------------- */

/* check_alive() - does the pager of this state serve, and the process that it serves? */
static int check_alive(const struct state_copy *s, const char *path)
{
    const struct block_header *h = s->block.header;
    uint64_t ticks;

    if (s->stale)
        return err_origin(-ESRCH,
                          "no pager holds %s any more: what the guest removed since is "
                          "not known",
                          path);
    if (procfs_start_ticks(h->vmm_pid, &ticks) < 0 ||
        (h->vmm_start_ticks != 0 && h->vmm_start_ticks != ticks))
        return err_origin(-ESRCH, "process %d, whose memory is wanted, has ended", h->vmm_pid);
    return 0;
}

/* same_memory() - are both states of the same process, with its memory at the same addresses? */
static bool same_memory(const struct block *a, const struct block *b)
{
    return a->header->vmm_pid == b->header->vmm_pid &&
           a->header->vmm_start_ticks == b->header->vmm_start_ticks &&
           a->geom.page_shift == b->geom.page_shift && a->geom.n_regions == b->geom.n_regions &&
           memcmp(a->geom.regions, b->geom.regions, a->geom.n_regions * sizeof(*a->geom.regions)) ==
               0;
}

/* read_state() - once more; it takes the place of the one before */
static int read_state(struct layer_vm *vm)
{
    _cleanup_(state_freep) struct state_copy *s = NULL;
    int r = layer_state_read(vm->state_path, &s);

    if (r == 0)
        r = check_alive(s, vm->state_path);
    if (r == 0)
        r = layer_state_init(&vm->meaning, &s->block, vm->state_path, vm->parent);
    if (r == 0 && vm->state && !same_memory(&vm->state->block, &s->block))
        r = err_origin(-EIO, "%s became the state of another VM", vm->state_path);
    if (r < 0)
        return r;
    vm->state = state_free(vm->state);
    vm->state = TAKE(s);
    vm->meaning.block = &vm->state->block;
    return 0;
}

/* find_shared() - is any of the memory mapped in a way that other processes may share? */
static int find_shared(struct layer_vm *vm)
{
    _cleanup_(file_closep) FILE *maps = NULL;
    const struct geom *g = &vm->state->block.geom;
    char line[4096 + 128];
    char path[64];

    (void)snprintf(path, sizeof(path), "/proc/%d/maps", pid_of(vm));
    maps = fopen(path, "re");
    if (!maps)
        return err_origin_errno(-errno, "cannot open %s", path);
    while (fgets(line, sizeof(line), maps)) {
        uint64_t from;
        uint64_t end;
        char mode[5];

        if (sscanf(line, "%" SCNx64 "-%" SCNx64 " %4s", &from, &end, mode) != 3 || mode[3] != 's')
            continue;
        for (unsigned i = 0; i < g->n_regions; i++)
            vm->shared |=
                from < g->regions[i].hva + g->regions[i].len_bytes && g->regions[i].hva < end;
    }
    return ferror(maps) ? err_origin_errno(-EIO, "cannot read %s", path) : 0;
}

int layer_vm_open(struct layer_vm *vm, const char *state_path, const struct image *parent)
{
    char path[64];
    int r;

    *vm = (struct layer_vm){.state_path = state_path, .parent = parent, .pagemap_fd = -1};
    r = read_state(vm);
    if (r < 0)
        goto failed;
    (void)snprintf(vm->name, sizeof(vm->name), "the memory of process %d", pid_of(vm));
    (void)snprintf(path, sizeof(path), "/proc/%d/pagemap", pid_of(vm));
    vm->pagemap_fd = open(path, O_RDONLY | O_CLOEXEC);
    if (vm->pagemap_fd < 0)
        r = err_origin_errno(-errno, "cannot look at %s", vm->name);
    if (r == 0)
        r = find_shared(vm);
failed:
    if (r < 0)
        layer_vm_close(vm);
    return r;
}

void layer_vm_close(struct layer_vm *vm)
{
    vm->pagemap_fd = fd_close(vm->pagemap_fd);
    vm->parents_pages = page_reader_free(vm->parents_pages);
    vm->state = state_free(vm->state);
}

/* ---- what is known of each page ------------------------------------------------------------------------------- */

/* look_at() - @n times 4096 bytes from @hva on, which are in page @p and those behind it; what they are goes to @kinds */
static int look_at(struct layer_vm *vm, const struct geom_region *region, uint64_t at, uint64_t n,
                   uint8_t *kinds)
{
    static uint64_t entries[PIECE_PAGES];
    const struct geom *g = &vm->state->block.geom;
    hva_t hva = region->hva + at * IMAGE_PAGE;
    ssize_t got = pread(vm->pagemap_fd, entries, n * sizeof(*entries),
                        (off_t)(hva / IMAGE_PAGE * sizeof(*entries)));

    if (got != (ssize_t)(n * sizeof(*entries)))
        return err_origin_errno(got < 0 ? -errno : -EIO, "cannot look at %s", vm->name);
    for (uint64_t i = 0; i < n; i++) {
        pgno_t p = geom_page_of(g, region, hva + i * IMAGE_PAGE);

        kinds[i] = (uint8_t)layer_state_vm(&vm->meaning, pagetab_get(&vm->state->block.pages, p),
                                           entries[i], vm->shared);
    }
    return 0;
}

static int look(void *ctx, uint8_t *kinds)
{
    struct layer_vm *vm = ctx;
    const struct geom *g;
    int r = read_state(vm);

    memset(kinds, KIND_PARENT, vm->parent->manifest->image_bytes / IMAGE_PAGE);
    g = &vm->state->block.geom;
    for (unsigned i = 0; i < g->n_regions; i++) {
        const struct geom_region *region = &g->regions[i];
        uint64_t n_pages = region->len_bytes / IMAGE_PAGE;

        for (uint64_t at = 0; at < n_pages && r == 0; at += PIECE_PAGES)
            r = look_at(vm, region, at, min_u64(PIECE_PAGES, n_pages - at),
                        kinds + region->imgoff / IMAGE_PAGE + at);
    }
    return r;
}

/* ---- what is in them ------------------------------------------------------------------------------------------ */

/* copy() - @len bytes at @hva */
static int copy(const struct layer_vm *vm, char *buf, size_t len, hva_t hva)
{
    size_t done = 0;

    while (done < len) {
        struct iovec to = {.iov_base = buf + done, .iov_len = len - done};
        struct iovec from = {
            .iov_base =
                (void *)(hva + done), /* NOLINT(performance-no-int-to-ptr): of another process */
            .iov_len = len - done,
        };
        ssize_t n = process_vm_readv(pid_of(vm), &to, 1, &from, 1, 0);

        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return err_origin_errno(n < 0 ? -errno : -EIO, "cannot read %s at address %#" PRIx64,
                                    vm->name, hva + done);
        done += (size_t)n;
    }
    return 0;
}

static int read_pages(void *ctx, void *buf, size_t len, uint64_t off)
{
    const struct layer_vm *vm = ctx;
    const struct geom *g = &vm->state->block.geom;
    size_t done = 0;
    int r = 0;

    while (done < len && r == 0) {
        const struct geom_region *region = geom_find_imgoff(g, off + done);
        uint64_t at = off + done - region->imgoff;
        size_t n = min_u64(len - done, region->len_bytes - at);

        r = copy(vm, (char *)buf + done, n, region->hva + at);
        done += n;
    }
    return r;
}

static int check(void *ctx)
{
    return read_state(ctx);
}

static int read_parent(void *ctx, void *page, uint64_t number)
{
    struct layer_vm *vm = ctx;
    int r = vm->parents_pages ? 0 : page_reader_new(&vm->parents_pages, vm->parent);

    return r < 0 ? r : page_reader_read(vm->parents_pages, page, number, 1);
}

struct page_source layer_vm_source(struct layer_vm *vm)
{
    struct timespec now = {0};

    (void)clock_gettime(CLOCK_REALTIME, &now);
    return (struct page_source){
        .name = vm->name,
        .bytes = vm->parent->manifest->image_bytes,
        .created_s = (uint64_t)now.tv_sec,
        .look = look,
        .read = read_pages,
        .check = check,
        .read_parent = read_parent,
        .ctx = vm,
    };
}
