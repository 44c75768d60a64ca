/* SPDX-License-Identifier: Apache-2.0 */
#include "pager/stats.h"

#include <ctype.h>
#include <errno.h>

#include <jansson.h>

#include <thaw/thaw.h>

#include "base/err.h"

static json_t *states_json(const struct block *b)
{
    json_t *o = json_object();
    uint64_t counts[N_PAGE_STATES];
    char key[16];

    pagetab_count(&b->pages, 0, b->geom.n_pages, counts);
    for (unsigned s = 0; s < N_PAGE_STATES; s++) {
        unsigned i;

        for (i = 0; page_state_names[s][i] != '\0' && i < sizeof(key) - 1; i++)
            key[i] = (char)tolower(page_state_names[s][i]);
        key[i] = '\0';
        json_object_set_new(o, key, json_integer((json_int_t)counts[s]));
    }
    return o;
}

static json_t *counters_json(const struct counters *c)
{
    json_t *o = json_object();

#define COUNTER(name, unit, meaning) \
    json_object_set_new(o, #name, json_integer((json_int_t)c->name));
#include "core/counters.def"
    return o;
}

static json_t *hist_json(const struct hist *h)
{
    json_t *o = json_object();

    json_object_set_new(o, "n", json_integer((json_int_t)h->n));
    json_object_set_new(o, "p50", json_integer((json_int_t)hist_quantile(h, 0.50)));
    json_object_set_new(o, "p90", json_integer((json_int_t)hist_quantile(h, 0.90)));
    json_object_set_new(o, "p99", json_integer((json_int_t)hist_quantile(h, 0.99)));
    json_object_set_new(o, "max", json_integer((json_int_t)h->max));
    return o;
}

static json_t *ahead_json(const struct thaw_progress *p)
{
    json_t *o = json_object();

    json_object_set_new(o, "working_set_pages", json_integer((json_int_t)p->working_set_pages));
    json_object_set_new(o, "working_set_done", json_integer((json_int_t)p->working_set_done));
    json_object_set_new(o, "fill_pages", json_integer((json_int_t)p->fill_pages));
    json_object_set_new(o, "fill_done", json_integer((json_int_t)p->fill_done));
    json_object_set_new(o, "over", json_boolean(p->over));
    return o;
}

/* The first JSON object of a process reads /dev/urandom. A handshake is one, but who adopts a VM has had none. */
/* #syscalls:start openat open read close */
void stats_prepare(void)
{
    json_object_seed(0);
}

int stats_json(char **out, const struct block *b, enum stop_reason end,
               const struct thaw_progress *ahead)
{
    const struct block_header *h = b->header;
    json_t *o = json_object();
    char *text;

    json_object_set_new(o, "version", json_string(THAW_VERSION));
    json_object_set_new(o, "pager_pid", json_integer(h->pager_pid));
    json_object_set_new(o, "vmm_pid", json_integer(h->vmm_pid));
    json_object_set_new(o, "vmm_uid", json_integer(h->vmm_uid));
    json_object_set_new(o, "page_bytes", json_integer(1LL << h->page_shift));
    json_object_set_new(o, "pages", json_integer((json_int_t)h->n_pages));
    json_object_set_new(o, "regions", json_integer(h->n_regions));
    json_object_set_new(o, "track", json_string(h->track == THAW_TRACK_WP ? "wp" : "none"));
    json_object_set_new(o, "end", json_string(stop_reason_name(end)));
    json_object_set_new(o, "states", states_json(b));
    json_object_set_new(o, "counters", counters_json(&h->counters));
    json_object_set_new(o, "ahead", ahead_json(ahead));
    json_object_set_new(o, "fault_ns", hist_json(&h->fault_ns));
    text = json_dumps(o, JSON_COMPACT);
    json_decref(o);
    if (!text)
        return err_origin_errno(-ENOMEM, "cannot write the statistics");
    *out = text;
    return 0;
}
