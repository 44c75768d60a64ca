/* SPDX-License-Identifier: Apache-2.0 */
#include "node/host_facts.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/utsname.h>
#include <unistd.h>

#include "base/err.h"
#include "base/procfs.h"

#define CPUINFO_BYTES_MAX (64 * KIB) /* of the first processor there is less */
#define FEATURES_MAX      1024u
#define HUGE_FREE         "/sys/kernel/mm/hugepages/hugepages-2048kB/free_hugepages"

const struct record_field host_facts_fields[] = {
    {.name = "arch", .type = RECORD_TEXT, .offset = offsetof(struct host_facts, arch), .max = 64},
    {.name = "cpu", .type = RECORD_TEXT, .offset = offsetof(struct host_facts, cpu), .max = 256},
    {.name = "cpu_features",
     .type = RECORD_TEXT,
     .offset = offsetof(struct host_facts, cpu_features),
     .max = 16384},
    {.name = "kernel",
     .type = RECORD_TEXT,
     .offset = offsetof(struct host_facts, kernel),
     .max = 64},
    {.name = NULL},
};

/* ---- reading -------------------------------------------------------------------------------------------------- */

/* find_field() - what stands behind "NAME : " in the first processor's part. Return: (give) "" if there is none; NULL: no memory */
static char *find_field(const char *cpuinfo, const char *name)
{
    size_t n = strlen(name);

    for (const char *line = cpuinfo; *line != '\0' && *line != '\n';) {
        const char *end = line + strcspn(line, "\n");
        const char *colon = memchr(line, ':', (size_t)(end - line));

        if (colon && strncmp(line, name, n) == 0 &&
            strspn(line + n, " \t") == (size_t)(colon - line) - n) {
            colon += 1 + strspn(colon + 1, " \t");
            return strndup(colon, colon < end ? (size_t)(end - colon) : 0);
        }
        line = *end == '\n' ? end + 1 : end;
    }
    return strdup("");
}

static int compare_words(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

/* sort_words() - in place; more than FEATURES_MAX are left where they are */
static char *sort_words(char *text)
{
    char *words[FEATURES_MAX];
    char *rest = NULL;
    char *sorted = calloc(strlen(text) + 2, 1);
    char *at = sorted;
    size_t n = 0;

    if (!sorted)
        return NULL;
    for (char *w = strtok_r(text, " \t", &rest); w && n < FEATURES_MAX;
         w = strtok_r(NULL, " \t", &rest))
        words[n++] = w;
    qsort((void *)words, n, sizeof(*words), compare_words);
    for (size_t i = 0; i < n; i++) {
        if (i > 0)
            *at++ = ' ';
        at = stpcpy(at, words[i]);
    }
    return sorted;
}

/* cpu_text() - the processor's model, as x86 or as Arm says it. Return: (give) NULL: no memory */
static char *cpu_text(const char *cpuinfo)
{
    static const struct {
        const char *vendor, *family, *model, *stepping;
    } kinds[] = {
        {"vendor_id", "cpu family", "model", "stepping"},
        {"CPU implementer", "CPU architecture", "CPU part", "CPU revision"},
    };
    char *text = NULL;

    for (size_t i = 0; i < ARRAY_LEN(kinds) && !text; i++) {
        char *vendor = find_field(cpuinfo, kinds[i].vendor);
        char *family = find_field(cpuinfo, kinds[i].family);
        char *model = find_field(cpuinfo, kinds[i].model);
        char *stepping = find_field(cpuinfo, kinds[i].stepping);

        if (vendor && family && model && stepping && vendor[0] != '\0' &&
            asprintf(&text, "%s family %s model %s stepping %s", vendor, family, model, stepping) <
                0)
            text = NULL;
        free(vendor);
        free(family);
        free(model);
        free(stepping);
    }
    return text ? text : strdup("unknown");
}

/* features_text() - Return: (give) NULL: no memory */
static char *features_text(const char *cpuinfo)
{
    char *words = find_field(cpuinfo, "flags");
    char *sorted;

    if (words && words[0] == '\0') {
        free(words);
        words = find_field(cpuinfo, "Features");
    }
    sorted = words ? sort_words(words) : NULL;
    free(words);
    return sorted;
}

int host_facts_parse(struct host_facts *out, const char *arch, const char *release,
                     const char *cpuinfo)
{
    size_t major = strspn(release, "0123456789");
    size_t minor = release[major] == '.' ? strspn(release + major + 1, "0123456789") + 1 : 0;
    struct host_facts f = {
        .arch = strdup(arch),
        .cpu = cpu_text(cpuinfo),
        .cpu_features = features_text(cpuinfo),
        .kernel = strndup(release, major + minor),
    };

    if (!f.arch || !f.cpu || !f.cpu_features || !f.kernel) {
        host_facts_deinit(&f);
        return err_origin_errno(-ENOMEM, "cannot look at the host");
    }
    *out = f;
    return 0;
}

int host_facts_read(struct host_facts *out)
{
    struct utsname name;
    FILE *file = fopen("/proc/cpuinfo", "re");
    char *text = file ? calloc(CPUINFO_BYTES_MAX + 1, 1) : NULL;
    int r = 0;

    if (!text || (fread(text, 1, CPUINFO_BYTES_MAX, file) == 0 && ferror(file)) || uname(&name) < 0)
        r = err_origin_errno(errno ? -errno : -EIO, "cannot look at /proc/cpuinfo");
    if (r == 0) {
        assert(text);
        r = host_facts_parse(out, name.machine, name.release, text);
    }
    free(text);
    if (file)
        (void)fclose(file);
    return r;
}

void host_facts_deinit(struct host_facts *f)
{
    free(f->arch);
    free(f->cpu);
    free(f->cpu_features);
    free(f->kernel);
    *f = (struct host_facts){0};
}

/* ---- comparing ------------------------------------------------------------------------------------------------ */

/* has_word() - is the word of @len bytes one of @words, which have a blank between them? */
static bool has_word(const char *words, const char *word, size_t len)
{
    for (const char *at = words; *at != '\0'; at += *at == ' ') {
        size_t n = strcspn(at, " ");

        if (n == len && memcmp(at, word, len) == 0)
            return true;
        at += n;
    }
    return false;
}

/* add_missing() - one sentence for all features that are not here any more */
static void add_missing(const char *then, const char *here, struct reasons *why_not)
{
    char text[256] = "";
    size_t at = 0;

    for (const char *word = then; *word != '\0'; word += *word == ' ') {
        size_t n = strcspn(word, " ");

        if (!has_word(here, word, n) && at < sizeof(text))
            at += (size_t)snprintf(text + at, sizeof(text) - at, "%s%.*s", at > 0 ? " " : "",
                                   (int)n, word);
        word += n;
    }
    if (at > 0)
        reasons_add(why_not, "the processor here lacks features that the guest has seen: %s", text);
}

void host_facts_compare(const struct host_facts *then, const struct host_facts *here, bool emulated,
                        struct reasons *why_not)
{
    if (strcmp(then->arch, here->arch) != 0)
        reasons_add(why_not, "it was built on a host of architecture %s, this one is %s",
                    then->arch, here->arch);
    if (emulated)
        return;
    if (strcmp(then->cpu, here->cpu) != 0)
        reasons_add(why_not, "it was built on a processor %s, this one is %s", then->cpu,
                    here->cpu);
    add_missing(then->cpu_features, here->cpu_features, why_not);
    if (strcmp(then->kernel, here->kernel) != 0)
        reasons_add(why_not, "it was built on Linux %s, this is Linux %s", then->kernel,
                    here->kernel);
}

uint64_t host_huge_pages_free(void)
{
    uint64_t n = 0;

    return procfs_read_u64(HUGE_FREE, &n) < 0 ? 0 : n;
}

bool host_has_kvm(void)
{
    return access("/dev/kvm", R_OK | W_OK) == 0;
}
