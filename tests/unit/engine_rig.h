/* SPDX-License-Identifier: Apache-2.0 */
#ifndef UNIT_ENGINE_RIG_H
#define UNIT_ENGINE_RIG_H

/*
 * engine_rig.h - an engine over a block in ordinary memory, for tests
 *
 * Pages of the address space are counted from RIG_HVA. A region is given by the pages that it covers there; its image
 * offset is its distance from RIG_HVA unless it says otherwise, so that gaps in memory are gaps in the image.
 */

#include "core/engine.h"

#define RIG_HVA         0x7f0000000000ull
#define RIG_MAX_REGIONS 16u
#define RIG_IMAGE_SAME  UINT64_MAX

/** struct rig_region - pages [from, to) of the address space, whose bytes begin at page image of the image */
struct rig_region {
    uint64_t from;
    uint64_t to;
    uint64_t image; /* RIG_IMAGE_SAME: at from */
};

/** struct rig_spec - what to build */
struct rig_spec {
    unsigned page_shift; /* 12 or 21 */
    unsigned n_regions;
    struct rig_region regions[RIG_MAX_REGIONS];
    struct engine_config config;
};

/** struct rig - a block and an engine over it */
struct rig {
    void *mem; /* (own) the block's */
    struct block block;
    struct engine engine;
};

/** rig_init() - build it. Return: 0 or GEOM_E_* */
int rig_init(struct rig *r, const struct rig_spec *spec);

/** rig_deinit() - free the block's memory; a zeroed rig is fine */
void rig_deinit(struct rig *r);

/** rig_restart() - the pager dies and another one finds the block: fetches and timers are lost, pages are not */
void rig_restart(struct rig *r);

/** rig_hva() - address of page @p (a page number, not a page of the address space) */
hva_t rig_hva(const struct rig *r, pgno_t p);

#endif
