/* SPDX-License-Identifier: Apache-2.0 */
/*
 * vmm.c - a VMM reduced to its memory: 64 MiB that come from a pager, page by page
 *
 *     head -c 64M /dev/urandom >memory
 *     thaw serve --socket /tmp/thaw.sock --memory memory &
 *     cc -o vmm vmm.c $(pkg-config --cflags --libs libthaw) && ./vmm /tmp/thaw.sock
 */

#include <stdio.h>
#include <sys/mman.h>
#include <thaw/vmm.h>

#define MEMORY_BYTES (64ul << 20)
#define PAGE_BYTES   4096ul

static unsigned long page_sum(const unsigned char *page)
{
    unsigned long sum = 0;

    for (unsigned long i = 0; i < PAGE_BYTES; i++)
        sum += page[i];
    return sum;
}

int main(int argc, char **argv)
{
    struct thaw_attachment *attachment;
    unsigned char *memory;

    if (argc != 2) {
        fprintf(stderr, "usage: vmm SOCKET\n");
        return 2;
    }
    memory = mmap(NULL, MEMORY_BYTES, PROT_READ | PROT_WRITE,
                  MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (memory == MAP_FAILED) {
        perror("mmap");
        return 1;
    }

    struct thaw_region region = {memory, MEMORY_BYTES, 0, PAGE_BYTES};
    if (thaw_vmm_attach(&attachment, argv[1], &region, 1) < 0) {
        fprintf(stderr, "vmm: %s\n", thaw_last_error());
        return 1;
    }

    /* Each first touch is a page fault that the pager answers with the snapshot's bytes. */
    for (unsigned long at = 0; at < MEMORY_BYTES; at += MEMORY_BYTES / 8)
        printf("page at %8lu: sum %lu\n", at, page_sum(memory + at));

    /* What is given back reads as zero, whatever the snapshot has there. */
    madvise(memory, PAGE_BYTES, MADV_DONTNEED);
    printf("page at %8d: sum %lu after it was given back\n", 0, page_sum(memory));
    return 0; /* the pager sees the connection end */
}
