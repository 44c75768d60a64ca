/* SPDX-License-Identifier: Apache-2.0 */
/*
 * fakevmm_oracle.c - what every byte is
 *
 * Content is a function of (seed, block, word), so nothing has to be stored to check it, and the memory file is
 * written by the same function that later judges what was read. A data word is never 0: a block that was wrongly
 * zeroed is wrong in every word.
 *
 * A memory file has, in fixed proportions and at all scales that a pager treats specially: 2 MiB ranges that are
 * holes, 64 KiB ranges that are holes, single holes, and single blocks of stored zeroes.
 */
#include "fakevmm.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

#include "uffd_peer.h"

static uint64_t mix(uint64_t a, uint64_t b)
{
    uint64_t x = a * 0x9e3779b97f4a7c15u ^ (b + 0x632be59bd9b4e019u);

    x ^= x >> 32;
    x *= 0xd6e8feb86659fd93u;
    x ^= x >> 29;
    x *= 0xa0761d6478bd642fu;
    return x ^ x >> 32;
}

enum block_kind oracle_kind(const struct oracle *o, uint64_t block)
{
    if (o->dense)
        return BLOCK_DATA;
    if (mix(o->seed ^ 1, block >> 9) % 8 == 0 || mix(o->seed ^ 2, block >> 4) % 5 == 0 ||
        mix(o->seed ^ 3, block) % 16 == 0)
        return BLOCK_HOLE;
    if (mix(o->seed ^ 4, block) % 32 == 0)
        return BLOCK_ZEROES;
    return BLOCK_DATA;
}

static uint64_t data_word(const struct oracle *o, uint64_t block, unsigned word)
{
    return mix(o->seed + block * 0x100000001b3u, word) | 1;
}

uint64_t oracle_image(const struct oracle *o, uint64_t block, unsigned word)
{
    return oracle_kind(o, block) == BLOCK_DATA ? data_word(o, block, word) : 0;
}

uint64_t oracle_own(const struct oracle *o, uint64_t block, unsigned word, uint32_t op)
{
    return mix(o->seed ^ ((uint64_t)op << 32 | 0x5eed), block * BLOCK_WORDS + word) | 1;
}

void oracle_make_file(const struct oracle *o, const char *path, uint64_t n_blocks)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
    uint64_t block, words[BLOCK_WORDS];
    enum block_kind kind;
    unsigned i;

    if (fd < 0 || ftruncate(fd, (off_t)(n_blocks * BLOCK_BYTES)) < 0)
        peer_die(PEER_EXIT_ABSENT, errno, "cannot make %s", path);
    for (block = 0; block < n_blocks; block++) {
        kind = oracle_kind(o, block);
        if (kind == BLOCK_HOLE)
            continue;
        for (i = 0; i < BLOCK_WORDS; i++)
            words[i] = kind == BLOCK_DATA ? data_word(o, block, i) : 0;
        if (pwrite(fd, words, sizeof(words), (off_t)(block * BLOCK_BYTES)) != sizeof(words))
            peer_die(PEER_EXIT_ABSENT, errno, "cannot write %s", path);
    }
    if (close(fd) < 0)
        peer_die(PEER_EXIT_ABSENT, errno, "cannot write %s", path);
}
