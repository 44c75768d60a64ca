/* SPDX-License-Identifier: Apache-2.0 */
#include "node/sandbox_jail.h"

#include <ctype.h>
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <unistd.h>

#include "base/err.h"

#define ID_MAX        (UINT32_MAX - 1) /* the last number means "leave it as it is" */
#define RANDOM_CHARS  9u               /* of an id: "-01234567" */
#define NAME_PLACE    "{name}"

#define FIELD(member) .name = #member, .offset = offsetof(struct sandbox_jail, member)

const struct record_field sandbox_jail_fields[] = {
    {FIELD(id), .type = RECORD_TEXT, .max = SANDBOX_JAIL_ID_MAX},
    {FIELD(uid), .type = RECORD_NUMBER, .min = 1, .max = ID_MAX},
    {FIELD(gid), .type = RECORD_NUMBER, .min = 1, .max = ID_MAX},
    {FIELD(jailer), .type = RECORD_TEXT, .optional = true},
    {FIELD(netns), .type = RECORD_TEXT, .optional = true},
    {FIELD(cgroup_version), .type = RECORD_NUMBER, .max = 2},
    {FIELD(cgroups), .type = RECORD_TEXTS, .max = SANDBOX_JAIL_CGROUPS_MAX, .optional = true},
    {.name = NULL},
};

static int set_text(char **member, const char *text)
{
    char *copy = text ? strdup(text) : NULL;

    if (text && !copy)
        return err_origin(-ENOMEM, "no memory for a jail");
    free(*member);
    *member = copy;
    return 0;
}

/* parse_id() - up to @end. Return: is it one? */
static bool parse_id(const char *text, char end, unsigned *out)
{
    char *rest;
    unsigned long long n;

    if (!isdigit((unsigned char)*text))
        return false;
    errno = 0;
    n = strtoull(text, &rest, 10);
    *out = (unsigned)n;
    return errno == 0 && *rest == end && n >= 1 && n <= ID_MAX;
}

int sandbox_jail_set_user(struct sandbox_jail *jail, const char *text)
{
    const char *colon = strchr(text, ':');

    if (!parse_id(text, colon ? ':' : '\0', &jail->uid) ||
        !parse_id(colon ? colon + 1 : text, '\0', &jail->gid))
        return err_origin(-EINVAL, "%.80s: expected UID or UID:GID, numbers other than root's",
                          text);
    jail->given = true;
    return 0;
}

int sandbox_jail_set_jailer(struct sandbox_jail *jail, const char *program)
{
    char here[PATH_MAX];
    char *path = NULL;
    int r;

    /* It is run in another folder than we are. */
    if (program[0] == '/' || !strchr(program, '/'))
        return set_text(&jail->jailer, program);
    if (!getcwd(here, sizeof(here)) || asprintf(&path, "%s/%s", here, program) < 0)
        return err_origin_errno(-errno, "cannot find the jailer %s", program);
    r = set_text(&jail->jailer, path);
    free(path);
    return r;
}

int sandbox_jail_set_netns(struct sandbox_jail *jail, const char *path)
{
    if (path[0] != '/')
        return err_origin(-EINVAL, "%.200s: expected the absolute path of a network namespace",
                          path);
    return set_text(&jail->netns, path);
}

int sandbox_jail_add_cgroup(struct sandbox_jail *jail, const char *setting)
{
    const char *equals = strchr(setting, '=');
    size_t key = equals ? (size_t)(equals - setting) : 0;

    if (key == 0 || equals[1] == '\0' || strchr(equals + 1, '=') || memchr(setting, '/', key) ||
        memmem(setting, key, "..", 2) || !memchr(setting, '.', key))
        return err_origin(-EINVAL, "%.80s: expected KEY=VALUE, such as memory.max=1073741824",
                          setting);
    if (jail->cgroups.n == SANDBOX_JAIL_CGROUPS_MAX)
        return err_origin(-EINVAL, "%.80s: expected no more than %u settings of cgroups", setting,
                          SANDBOX_JAIL_CGROUPS_MAX);
    return record_texts_add(&jail->cgroups, setting);
}

int sandbox_jail_set_id(struct sandbox_jail *jail, const char *name)
{
    char id[SANDBOX_JAIL_ID_MAX + 1];
    uint32_t random;

    /* A store has one sandbox of that name only, but another store may have one, too. */
    if (getrandom(&random, sizeof(random), 0) != sizeof(random))
        return err_origin_errno(-errno, "cannot invent the id of a jail");
    (void)snprintf(id, sizeof(id), "%.*s-%08x", (int)(SANDBOX_JAIL_ID_MAX - RANDOM_CHARS), name,
                   random);
    for (char *c = id; *c != '\0'; c++) {
        if (*c == '_')
            *c = '-';
    }
    return set_text(&jail->id, id);
}

int sandbox_jail_netns(const struct sandbox_jail *jail, const char *name, char *buf, size_t len)
{
    const char *from = jail->netns;
    const char *place;
    size_t at = 0;

    buf[0] = '\0';
    while ((place = strstr(from, NAME_PLACE)) != NULL && at < len) {
        at += (size_t)snprintf(buf + at, len - at, "%.*s%s", (int)(place - from), from, name);
        from = place + strlen(NAME_PLACE);
    }
    if (at < len)
        at += (size_t)snprintf(buf + at, len - at, "%s", from);
    return at < len
               ? 0
               : err_origin(-ENAMETOOLONG, "the name of the network namespace %.80s is too long",
                            jail->netns);
}

int sandbox_jail_copy(struct sandbox_jail *to, const struct sandbox_jail *from)
{
    int r = set_text(&to->jailer, from->jailer);

    if (r == 0)
        r = set_text(&to->netns, from->netns);
    for (size_t i = 0; r == 0 && i < from->cgroups.n; i++)
        r = record_texts_add(&to->cgroups, from->cgroups.texts[i]);
    to->uid = from->uid;
    to->gid = from->gid;
    to->cgroup_version = from->cgroup_version;
    to->given = from->given;
    return r;
}

void sandbox_jail_deinit(struct sandbox_jail *jail)
{
    free(jail->id);
    free(jail->jailer);
    free(jail->netns);
    record_texts_deinit(&jail->cgroups);
    *jail = (struct sandbox_jail){0};
}
