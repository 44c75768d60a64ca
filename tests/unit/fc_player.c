/* SPDX-License-Identifier: Apache-2.0 */
#include "fc_player.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

static const char deep_name[] = "a-folder-whose-name-is-as-long-as-a-name-in-a-jail-may-be";

#define DEEP 3

void player_init(struct player *p, bool deep)
{
    memset(p, 0, sizeof(*p));
    p->listener = -1;
    strcpy(p->dir, "/tmp/thaw-fc-XXXXXX");
    if (!mkdtemp(p->dir))
        fail_msg("no folder: %s", strerror(errno));
    strcpy(p->path, p->dir);
    for (int i = 0; deep && i < DEEP; i++) {
        strcat(strcat(p->path, "/"), deep_name);
        assert_int_equal(mkdir(p->path, 0700), 0);
    }
    strcat(p->path, "/api.sock");
}

/* request_ends() - is there a whole request in these bytes? Return: its length or 0 */
static size_t request_ends(const char *bytes)
{
    const char *head_end = strstr(bytes, "\r\n\r\n");
    const char *length = strcasestr(bytes, "\r\nContent-Length: ");
    size_t n;

    if (!head_end)
        return 0;
    n = (size_t)(head_end + 4 - bytes);
    if (length && length < head_end)
        n += strtoul(length + strlen("\r\nContent-Length: "), NULL, 10);
    return strlen(bytes) >= n ? n : 0;
}

/* take_request() - Return: whether there was one */
static bool take_request(struct player *p, int fd)
{
    static char bytes[1 << 20];
    size_t have = 0;

    bytes[0] = '\0';
    while (have < sizeof(bytes) - 1 && request_ends(bytes) == 0) {
        ssize_t n = read(fd, bytes + have, sizeof(bytes) - 1 - have);

        if (n <= 0)
            return false;
        have += (size_t)n;
        bytes[have] = '\0';
    }
    if (p->n_requests < PLAYER_REQUESTS)
        (void)snprintf(p->requests[p->n_requests], PLAYER_BYTES, "%.*s", (int)PLAYER_BYTES - 1,
                       bytes);
    p->n_requests++;
    return true;
}

static void give_answer(int fd, const char *text, bool bytewise)
{
    const char *star = strstr(text, "Content-Length: *");
    const char *body = star ? strstr(star, "\r\n\r\n") + 4 : NULL;
    size_t len = strlen(text);
    char *answer = malloc(len + 32);
    size_t step;

    assert_non_null(answer);
    if (star)
        (void)sprintf(answer, "%.*sContent-Length: %zu%s", (int)(star - text), text, strlen(body),
                      star + strlen("Content-Length: *"));
    else
        strcpy(answer, text);
    len = strlen(answer);
    step = bytewise ? 1 : max_u64(len, 1);
    for (size_t at = 0; at < len; at += step) {
        if (send(fd, answer + at, step, MSG_NOSIGNAL) < 0)
            break; /* who asked has seen enough */
    }
    free(answer);
}

static void serve(struct player *p, int fd, unsigned *next)
{
    char byte;

    if (*next < p->n_scenes && p->scenes[*next].play == PLAY_FULL) {
        give_answer(fd, p->scenes[(*next)++].answer, false);
        return;
    }
    while (*next < p->n_scenes && take_request(p, fd)) {
        const struct scene *scene = &p->scenes[(*next)++];

        if (scene->answer)
            give_answer(fd, scene->answer, scene->play == PLAY_BYTES);
        if (scene->play == PLAY_CLOSE)
            return;
        if (scene->play == PLAY_HANG) {
            (void)read(fd, &byte, 1);
            return;
        }
    }
}

static void *play(void *context)
{
    struct player *p = context;
    unsigned next = 0;

    for (;;) {
        int fd = accept4(p->listener, NULL, NULL, SOCK_CLOEXEC);

        if (fd < 0)
            return NULL; /* player_stop() has shut it down */
        p->n_connections++;
        serve(p, fd, &next);
        (void)close(fd);
        p->n_closed++;
    }
}

/* listen_at() - the path may be too long for an address */
static void listen_at(struct player *p)
{
    struct sockaddr_un addr = {.sun_family = AF_UNIX};
    char folder[sizeof(p->path)];
    int dir_fd;

    strcpy(folder, p->path);
    *strrchr(folder, '/') = '\0';
    dir_fd = open(folder, O_PATH | O_CLOEXEC);
    (void)snprintf(addr.sun_path, sizeof(addr.sun_path), "/proc/self/fd/%d/api.sock", dir_fd);
    (void)unlink(p->path);
    p->listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (bind(p->listener, (struct sockaddr *)&addr, sizeof(addr)) < 0 || listen(p->listener, 8) < 0)
        fail_msg("cannot listen at %s: %s", p->path, strerror(errno));
    (void)close(dir_fd);
}

void player_start(struct player *p, const struct scene *scenes, unsigned n_scenes)
{
    p->scenes = scenes;
    p->n_scenes = n_scenes;
    listen_at(p);
    assert_int_equal(pthread_create(&p->thread, NULL, play, p), 0);
    p->runs = true;
}

void player_stop(struct player *p)
{
    if (!p->runs)
        return;
    (void)shutdown(p->listener, SHUT_RDWR);
    (void)pthread_join(p->thread, NULL);
    (void)close(p->listener);
    p->runs = false;
}

void player_deinit(struct player *p)
{
    player_stop(p);
    (void)unlink(p->path);
    for (char *slash = strrchr(p->path, '/'); slash && slash >= p->path + strlen(p->dir);
         slash = strrchr(p->path, '/')) {
        *slash = '\0';
        (void)rmdir(p->path);
    }
}
