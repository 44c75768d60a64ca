/* SPDX-License-Identifier: Apache-2.0 */
/* inspect_print.c - an image in words, and as JSON */
#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <time.h>

#include "cli/image/inspect.h"
#include "cli/map/size_text.h"

#define ID_DIGITS 12 /* of an id, in a line for people */

/* ratio() - how many times smaller; 0: nothing is stored */
static double ratio(uint64_t bytes, uint64_t stored_bytes)
{
    return stored_bytes > 0 ? (double)bytes / (double)stored_bytes : 0;
}

static uint64_t n_hot(const struct image_stat *s)
{
    return s->by_page[IMAGE_PAGE_HOT_ZERO] + s->by_page[IMAGE_PAGE_HOT_PARENT] +
           s->by_page[IMAGE_PAGE_HOT_OWN];
}

/* all_of() - pages of a kind, in the working set or not */
static uint64_t all_of(const struct image_stat *s, enum image_page cold)
{
    return s->by_page[cold] + s->by_page[cold + IMAGE_PAGE_HOT_ZERO];
}

/* ---- words ------------------------------------------------------------------------------------------------------ */

/* stored_text() - "210 MiB, 4.88 times smaller than the memory, 3.05 times than what is not zero" */
static void stored_text(const struct inspection *x, char *buf, size_t len)
{
    const struct image_frames *f = &x->stat.frames;

    if (f->n == 0)
        (void)snprintf(buf, len, "nothing");
    else
        (void)snprintf(buf, len,
                       "%s, %.2f times smaller than the memory, %.2f times than what is not zero",
                       size_text(f->stored_bytes), ratio(x->manifest->image_bytes, f->stored_bytes),
                       ratio(f->n_pages * IMAGE_PAGE, f->stored_bytes));
}

/* frames_text() - "16,384 of 16.0 pages on average: zstd 16,300, none 84" */
static void frames_text(const struct inspection *x, char *buf, size_t len)
{
    const struct image_stat *s = &x->stat;
    const char *before = ": ";
    int n;

    if (s->frames.n == 0) {
        (void)snprintf(buf, len, "none");
        return;
    }
    n = snprintf(buf, len, "%s of %.1f pages on average", count_text(s->frames.n),
                 (double)s->frames.n_pages / (double)s->frames.n);
    for (unsigned i = N_FRAME_CODECS; i-- > 0;) {
        if (s->by_codec[i].n == 0 || n < 0 || (size_t)n >= len)
            continue;
        n += snprintf(buf + n, len - (size_t)n, "%s%s %s", before, frame_codec_name(i),
                      count_text(s->by_codec[i].n));
        before = ", ";
    }
}

static void hot_text(const struct inspection *x, char *buf, size_t len)
{
    uint64_t n = n_hot(&x->stat);

    if (n == 0)
        (void)snprintf(buf, len, "none");
    else
        (void)snprintf(buf, len, "%s page%s (%s) in %s run%s, %s of them zero", count_text(n),
                       n == 1 ? "" : "s", size_text(n * IMAGE_PAGE), count_text(x->manifest->n_hot),
                       x->manifest->n_hot == 1 ? "" : "s",
                       count_text(x->stat.by_page[IMAGE_PAGE_HOT_ZERO]));
}

static void memory_text(const struct inspection *x, char *buf, size_t len)
{
    const struct manifest *m = x->manifest;
    time_t t = (time_t)m->created_s;
    char when[40] = "";
    struct tm tm;

    if (m->created_s > 0 && localtime_r(&t, &tm))
        (void)strftime(when, sizeof(when), ", of %Y-%m-%d %H:%M:%S", &tm);
    (void)snprintf(buf, len, "%s in %s pages%s", size_text(m->image_bytes),
                   count_text(x->stat.n_pages), when);
}

static void print_kind(const struct inspection *x, const char *name, enum image_page cold)
{
    uint64_t n = all_of(&x->stat, cold);

    (void)printf("  %-12s %14s  %6.2f %%  %11s  hot %s\n", name, count_text(n),
                 100.0 * (double)n / (double)x->stat.n_pages, size_text(n * IMAGE_PAGE),
                 count_text(x->stat.by_page[cold + IMAGE_PAGE_HOT_ZERO]));
}

/* print_pack() - what of an image is in a pack, and who made it */
static void print_pack(const struct inspection *x, uint32_t number)
{
    const struct image_pack_stat *s = &x->stat.packs[number];
    uint32_t maker = x->makers[number];
    char id[IMAGE_ID_TEXT] = "";
    const char *name = "not known";

    if (maker != NO_MAKER) {
        const struct relative *rel = &x->relatives[maker];

        (void)image_id_text(rel->id, id);
        id[ID_DIGITS] = '\0';
        name = rel->name ? rel->name : "(no name)";
    }
    (void)printf("  %-24s %-*s %12s %11s %9s %11s of %s\n", name, ID_DIGITS, id,
                 count_text(s->n_pages), size_text(s->n_pages * IMAGE_PAGE),
                 count_text(s->frames.n), size_text(s->frames.stored_bytes),
                 size_text(x->manifest->packs[number].bytes));
}

void inspect_print(const struct inspection *x)
{
    const struct manifest *m = x->manifest;
    char id[IMAGE_ID_TEXT];
    char text[240];

    (void)printf("%s\n  id           %s\n", x->relatives[0].name ? x->relatives[0].name : x->asked,
                 image_id_text(m->id, id));
    memory_text(x, text, sizeof(text));
    (void)printf("  memory       %s\n", text);
    stored_text(x, text, sizeof(text));
    (void)printf("  stored       %s\n", text);
    frames_text(x, text, sizeof(text));
    (void)printf("  frames       %s\n", text);
    hot_text(x, text, sizeof(text));
    (void)printf("  working set  %s\n", text);
    (void)printf("  parents      %s\n\n", m->n_parents > 0 ? count_text(m->n_parents) : "none");
    print_kind(x, "zero", IMAGE_PAGE_ZERO);
    print_kind(x, "own", IMAGE_PAGE_OWN);
    print_kind(x, "parents'", IMAGE_PAGE_PARENT);
    if (m->n_packs > 0)
        (void)printf("\n  %-24s %-*s %12s %11s %9s %11s\n", "PACK OF", ID_DIGITS, "ID", "PAGES",
                     "MEMORY", "FRAMES", "STORED");
    for (uint32_t i = 0; i < m->n_packs; i++)
        print_pack(x, i);
}

void inspect_caption(struct caption *c, const struct inspection *x, const struct picture *p)
{
    uint32_t n_parents = x->manifest->n_parents;
    char id[IMAGE_ID_TEXT];
    char first[160];
    char second[160];

    (void)snprintf(c->title, sizeof(c->title), "Image %s",
                   x->relatives[0].name ? x->relatives[0].name : x->asked);
    memory_text(x, first, sizeof(first));
    (void)snprintf(c->lines[0], CAPTION_BYTES, "%s, %s parent%s, id %s", first,
                   n_parents > 0 ? count_text(n_parents) : "no", n_parents == 1 ? "" : "s",
                   image_id_text(x->manifest->id, id));
    stored_text(x, first, sizeof(first));
    (void)snprintf(c->lines[1], CAPTION_BYTES, "stored: %s", first);
    frames_text(x, first, sizeof(first));
    hot_text(x, second, sizeof(second));
    (void)snprintf(c->lines[2], CAPTION_BYTES, "frames: %.100s; working set: %.100s", first,
                   second);
    caption_scale(p, c->lines[3]);
}

/* ---- JSON ------------------------------------------------------------------------------------------------------- */

static json_t *frames_json(const struct image_frames *f)
{
    return json_pack("{s:I, s:I, s:I}", "frames", (json_int_t)f->n, "pages", (json_int_t)f->n_pages,
                     "stored_bytes", (json_int_t)f->stored_bytes);
}

static json_t *codecs_json(const struct image_stat *s)
{
    json_t *codecs = json_object();

    for (unsigned i = 0; i < N_FRAME_CODECS; i++)
        (void)json_object_set_new(codecs, frame_codec_name(i), frames_json(&s->by_codec[i]));
    return codecs;
}

static json_t *parents_json(const struct inspection *x)
{
    json_t *parents = json_array();
    char id[IMAGE_ID_TEXT];

    for (uint32_t i = 1; i <= x->manifest->n_parents; i++)
        (void)json_array_append_new(parents, json_pack("{s:s, s:s?}", "id",
                                                       image_id_text(x->relatives[i].id, id),
                                                       "name", x->relatives[i].name));
    return parents;
}

static json_t *packs_json(const struct inspection *x)
{
    json_t *packs = json_array();
    char sha256[IMAGE_ID_TEXT];
    char id[IMAGE_ID_TEXT];

    for (uint32_t i = 0; i < x->manifest->n_packs; i++) {
        const struct image_pack_stat *s = &x->stat.packs[i];
        uint32_t maker = x->makers[i];
        const char *image = maker == NO_MAKER ? NULL : image_id_text(x->relatives[maker].id, id);

        (void)json_array_append_new(
            packs,
            json_pack("{s:s, s:I, s:s?, s:b, s:I, s:I, s:I, s:I, s:I}", "sha256",
                      image_id_text(x->manifest->packs[i].sha256, sha256), "bytes",
                      (json_int_t)x->manifest->packs[i].bytes, "image", image, "own", maker == 0,
                      "pages", (json_int_t)s->n_pages, "hot_pages", (json_int_t)s->n_hot, "frames",
                      (json_int_t)s->frames.n, "frame_pages", (json_int_t)s->frames.n_pages,
                      "stored_bytes", (json_int_t)s->frames.stored_bytes));
    }
    return packs;
}

static json_t *pages_json(const struct image_stat *s, bool hot)
{
    unsigned by = hot ? IMAGE_PAGE_HOT_ZERO : 0;
    uint64_t zero = hot ? s->by_page[by] : all_of(s, IMAGE_PAGE_ZERO);
    uint64_t own = hot ? s->by_page[by + IMAGE_PAGE_OWN] : all_of(s, IMAGE_PAGE_OWN);
    uint64_t parents = hot ? s->by_page[by + IMAGE_PAGE_PARENT] : all_of(s, IMAGE_PAGE_PARENT);

    uint64_t all = zero + own + parents;

    return json_pack("{s:I, s:I, s:I, s:I}", "all", (json_int_t)all, "zero", (json_int_t)zero,
                     "own", (json_int_t)own, "parents", (json_int_t)parents);
}

int inspect_print_json(const struct inspection *x)
{
    const struct manifest *m = x->manifest;
    const struct image_frames *f = &x->stat.frames;
    char id[IMAGE_ID_TEXT];
    json_t *top = json_pack(
        "{s:s?, s:s, s:I, s:I, s:I, s:o, s:o, s:I, s:o, s:o, s:f, s:f, s:o, s:o}", "name",
        x->relatives[0].name, "id", image_id_text(m->id, id), "created_s", (json_int_t)m->created_s,
        "image_bytes", (json_int_t)m->image_bytes, "page_bytes", (json_int_t)IMAGE_PAGE, "pages",
        pages_json(&x->stat, false), "working_set", pages_json(&x->stat, true), "working_set_runs",
        (json_int_t)m->n_hot, "stored", frames_json(f), "codecs", codecs_json(&x->stat),
        "frame_ratio", ratio(f->n_pages * IMAGE_PAGE, f->stored_bytes), "ratio",
        ratio(m->image_bytes, f->stored_bytes), "parents", parents_json(x), "packs", packs_json(x));
    int r = top ? json_dumpf(top, stdout, JSON_COMPACT) : -1;

    (void)putchar('\n');
    json_decref(top);
    return r;
}
