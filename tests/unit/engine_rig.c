/* SPDX-License-Identifier: Apache-2.0 */
#include "engine_rig.h"

#include <stdlib.h>

int rig_init(struct rig *r, const struct rig_spec *spec)
{
    struct geom_region regions[RIG_MAX_REGIONS];
    struct geom geom;
    hva_t bad;
    int e;

    *r = (struct rig){0};
    assert(spec->n_regions > 0 && spec->n_regions <= RIG_MAX_REGIONS);
    for (unsigned i = 0; i < spec->n_regions; i++) {
        const struct rig_region *from = &spec->regions[i];
        uint64_t image = from->image == RIG_IMAGE_SAME ? from->from : from->image;

        regions[i] = (struct geom_region){
            .hva = RIG_HVA + (from->from << spec->page_shift),
            .len_bytes = (from->to - from->from) << spec->page_shift,
            .imgoff = image << spec->page_shift,
        };
    }
    e = geom_init(&geom, regions, spec->n_regions, spec->page_shift, &bad);
    if (e != 0)
        return e;
    r->mem = calloc(1, block_bytes(geom.n_regions, geom.n_pages));
    assert(r->mem);
    block_format(&r->block, r->mem, &geom);
    engine_init(&r->engine, &r->block, &spec->config);
    return 0;
}

void rig_deinit(struct rig *r)
{
    free(r->mem);
    *r = (struct rig){0};
}

void rig_restart(struct rig *r)
{
    struct engine_config config = r->engine.config;

    engine_init(&r->engine, &r->block, &config);
}

hva_t rig_hva(const struct rig *r, pgno_t p)
{
    return geom_hva_of(&r->block.geom, geom_find_page(&r->block.geom, p), p);
}
