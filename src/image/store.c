/* SPDX-License-Identifier: Apache-2.0 */

/*
 * store.c - a folder of images: opened, looked through; store.h has the layout
 *
 * `lock` is made last, when all folders are there and synced: a folder that has it is a store. So one whose making was
 * interrupted is none, and the next one who makes an image completes it.
 *
 * All that follows goes through the descriptors of its folders: the store may be moved meanwhile, and nothing follows a
 * symbolic link out of it. Who opens an image reads its name, opens its manifest, locks it, and only then makes sure that it
 * was not removed in between. The lock is waited for: who holds it alone may find that the image has another name, and leave it.
 */

#include "image/store.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/err.h"
#include "base/fd.h"
#include "image/frame.h"
#include "image/store_private.h"

#define ID_DIGITS          ((size_t)IMAGE_ID_TEXT - 1)
#define MANIFEST_BYTES_MAX (64 * GIB)
#define LOCK_WAIT_NS       (5 * NS_PER_S) /* for who removes it, or decides not to */

static const char *const folder_names[N_STORE_FOLDERS] = {
    [STORE_NAMES] = "names",
    [STORE_MANIFESTS] = "manifests",
    [STORE_PACKS] = "packs",
    [STORE_TMP] = "tmp",
};

const char *store_folder_name(enum store_folder folder)
{
    return folder_names[folder];
}

/* #syscalls:start fsync */
static int sync_folder(int fd, const char *path, const char *name)
{
    int r = folder_sync(fd);

    return r < 0 ? err_origin_errno(r, "cannot write the folder %s%s to the disk", path, name) : 0;
}

int store_sync(struct store *s, enum store_folder folder)
{
    char name[16];

    (void)snprintf(name, sizeof(name), "/%s", folder_names[folder]);
    return sync_folder(s->folders[folder], s->path, name);
}

/* #syscalls:start flock */
int store_flock(int fd, int how)
{
    return flock(fd, how) < 0 ? -errno : 0;
}

/* #syscalls:start newfstatat fstat */
bool store_is_there(struct store *s, enum store_folder folder, const char *name, int fd)
{
    struct stat open_one;
    struct stat named;

    return fstat(fd, &open_one) == 0 &&
           fstatat(s->folders[folder], name, &named, AT_SYMLINK_NOFOLLOW) == 0 &&
           open_one.st_ino == named.st_ino && open_one.st_dev == named.st_dev;
}

/* ---- opening -------------------------------------------------------------------------------------------------- */

/* #syscalls:start mkdir mkdirat */
static int make_folder(int at, const char *name, const char *path, mode_t mode)
{
    if (mkdirat(at, name, mode) < 0 && errno != EEXIST)
        return err_origin_errno(-errno, "cannot make the store %s", path);
    return 0;
}

/* make_top() - the store's own folder, in one that is there */
static int make_top(const char *path)
{
    _cleanup_fd_ int above = -1;
    int r;

    if (mkdir(path, 0700) < 0) /* what a guest had in its memory is for few */
        return errno == EEXIST ? 0 : err_origin_errno(-errno, "cannot make the store %s", path);
    above = folder_open(path);
    r = above < 0 ? above : sync_folder(above, path, "/..");
    return r == 0 ? 0 : err_origin_errno(r, "cannot make the store %s", path);
}

/* make_inside() - what a store consists of, `lock` last */
/* #syscalls:start openat open faccessat faccessat2 */
static int make_inside(int top, const char *path)
{
    _cleanup_fd_ int lock = -1;
    int r = 0;

    for (unsigned i = 0; i < N_STORE_FOLDERS && r == 0; i++)
        r = make_folder(top, folder_names[i], path, 0755);
    if (r == 0)
        r = sync_folder(top, path, "");
    if (r < 0)
        return r;
    lock = openat(top, "lock", O_RDONLY | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0644);
    if (lock < 0)
        return err_origin_errno(-errno, "cannot make the store %s", path);
    return sync_folder(top, path, "");
}

static int open_parts(struct store *s, int top)
{
    s->lock_fd = openat(top, "lock", O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
    if (s->lock_fd < 0 && errno == ENOENT)
        return err_origin(-ENOENT, "%s is not a store of images: it has no file 'lock'", s->path);
    if (s->lock_fd < 0)
        return err_origin_errno(-errno, "cannot open the store %s", s->path);
    for (unsigned i = 0; i < N_STORE_FOLDERS; i++) {
        s->folders[i] =
            openat(top, folder_names[i], O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
        if (s->folders[i] < 0)
            return err_origin_errno(-errno, "cannot open the folder %s of the store %s",
                                    folder_names[i], s->path);
    }
    return 0;
}

/* plain_path() - @path without slashes at its end. Return: (give) */
static char *plain_path(const char *path)
{
    char *plain = strdup(path);
    size_t n = plain ? strlen(plain) : 0;

    while (n > 1 && plain[n - 1] == '/')
        plain[--n] = '\0';
    return plain;
}

int store_open(struct store **out, const char *path, bool create)
{
    _cleanup_(store_closep) struct store *s = calloc(1, sizeof(*s));
    _cleanup_fd_ int top = -1;
    int r;

    if (!s)
        return err_origin_errno(-ENOMEM, "cannot open the store %s", path);
    s->lock_fd = -1;
    for (unsigned i = 0; i < N_STORE_FOLDERS; i++)
        s->folders[i] = -1;
    s->path = plain_path(path);
    if (!s->path)
        return err_origin_errno(-ENOMEM, "cannot open the store %s", path);
    r = create ? make_top(s->path) : 0;
    if (r < 0)
        return r;
    top = open(s->path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (top < 0)
        return err_origin_errno(-errno, "cannot open the store %s", s->path);
    if (create && faccessat(top, "lock", F_OK, AT_SYMLINK_NOFOLLOW) < 0)
        r = make_inside(top, s->path);
    if (r == 0)
        r = open_parts(s, top);
    if (r == 0)
        *out = TAKE(s);
    return r;
}

struct store *store_close(struct store *s)
{
    if (!s)
        return NULL;
    for (unsigned i = 0; i < N_STORE_FOLDERS; i++)
        s->folders[i] = fd_close(s->folders[i]);
    s->lock_fd = fd_close(s->lock_fd);
    free(s->path);
    free(s);
    return NULL;
}

/* ---- names and ids -------------------------------------------------------------------------------------------- */

int store_check_name(const char *name)
{
    size_t n = strspn(name, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-");

    if (name[0] == '\0' || name[n] != '\0' || name[0] == '.' || name[0] == '-' ||
        n > STORE_NAME_MAX)
        return err_origin(
            -EINVAL,
            "'%s' is no name of an image: expected up to %u letters, digits, '.', '_' "
            "and '-', not beginning with '.' or '-'",
            name, STORE_NAME_MAX);
    return 0;
}

static int digit_value(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

bool store_id_parse(const char *text, uint8_t id[IMAGE_ID_BYTES])
{
    for (unsigned i = 0; i < ID_DIGITS; i++) {
        int v = digit_value(text[i]);

        if (v < 0)
            return false;
        id[i / 2] = (uint8_t)(i % 2 == 0 ? v << 4 : id[i / 2] | v);
    }
    return true;
}

/* #syscalls:start pread64 */
int store_find_name(struct store *s, const char *name, uint8_t id[IMAGE_ID_BYTES])
{
    char text[ID_DIGITS + 2] = "";
    _cleanup_fd_ int fd = -1;
    ssize_t n;
    int r = store_check_name(name);

    if (r < 0)
        return r;
    fd = openat(s->folders[STORE_NAMES], name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
    if (fd < 0 && errno == ENOENT)
        return err_origin(-ENOENT, "no image %s in the store %s", name, s->path);
    n = fd < 0 ? -1 : pread(fd, text, sizeof(text), 0);
    if (n < 0)
        return err_origin_errno(-errno, "cannot read %s/names/%s", s->path, name);
    if (n != ID_DIGITS + 1 || text[ID_DIGITS] != '\n' || !store_id_parse(text, id))
        return err_origin(-EINVAL, "%s/names/%s is damaged: expected %zu digits and a line end",
                          s->path, name, ID_DIGITS);
    return 0;
}

/* #syscalls:start getdents64 lseek */
int store_each(struct store *s, enum store_folder folder, int (*fn)(void *ctx, const char *entry),
               void *ctx)
{
    int fd = openat(s->folders[folder], ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *dir = fd < 0 ? NULL : fdopendir(fd);
    struct dirent *entry;
    int r = 0;

    if (!dir) {
        r = err_origin_errno(-errno, "cannot read %s/%s", s->path, folder_names[folder]);
        (void)fd_close(fd);
        return r;
    }
    while (r == 0 && (errno = 0, entry = readdir(dir)) != NULL) {
        if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0)
            r = fn(ctx, entry->d_name);
    }
    if (r == 0 && errno != 0)
        r = err_origin_errno(-errno, "cannot read %s/%s", s->path, folder_names[folder]);
    (void)closedir(dir);
    return r;
}

/* struct search - for the image whose id begins with some digits */
struct search {
    const char *digits;
    size_t n_digits;
    unsigned n_found;
    uint8_t id[IMAGE_ID_BYTES];
};

static int compare_digits(void *ctx, const char *entry)
{
    struct search *search = ctx;
    uint8_t id[IMAGE_ID_BYTES];

    if (strlen(entry) != ID_DIGITS || !store_id_parse(entry, id) ||
        strncmp(entry, search->digits, search->n_digits) != 0)
        return 0;
    search->n_found++;
    memcpy(search->id, id, sizeof(id));
    return 0;
}

int store_find(struct store *s, const char *name, uint8_t id[IMAGE_ID_BYTES])
{
    struct search search = {.digits = name, .n_digits = strlen(name)};
    bool digits = strspn(name, "0123456789abcdef") == search.n_digits;
    int r = store_find_name(s, name, id);

    if (r != -ENOENT || !digits || search.n_digits > ID_DIGITS)
        return r;
    r = store_each(s, STORE_MANIFESTS, compare_digits, &search);
    if (r < 0)
        return r;
    if (search.n_found == 0)
        return err_origin(-ENOENT, "no image %s in the store %s", name, s->path);
    if (search.n_found > 1)
        return err_origin(-EINVAL, "%u images of the store %s have an id that begins with %s",
                          search.n_found, s->path, name);
    memcpy(id, search.id, IMAGE_ID_BYTES);
    return 0;
}

/* ---- manifests and images ------------------------------------------------------------------------------------- */

/* read_whole() - a file of @len bytes. @bytes: (give) */
static int read_whole(int fd, const char *path, size_t len, char **bytes)
{
    char *all = malloc(len > 0 ? len : 1);
    size_t done = 0;
    ssize_t n = 1;

    if (!all)
        return err_origin_errno(-ENOMEM, "cannot read %s", path);
    while (done < len && n > 0) {
        n = pread(fd, all + done, len - done, (off_t)done);
        if (n < 0 && errno == EINTR)
            n = 1;
        else if (n > 0)
            done += (size_t)n;
    }
    if (done < len) {
        int r = n < 0 ? err_origin_errno(-errno, "cannot read %s", path)
                      : err_origin(-EINVAL, "%s ends at %zu, expected %zu bytes", path, done, len);

        free(all);
        return r;
    }
    *bytes = all;
    return 0;
}

/* parse_file() - an open manifest; a file that is something else is not read whole */
static int parse_file(struct manifest **out, int fd, const char *path)
{
    uint64_t magic = 0;
    char *bytes = NULL;
    struct stat st;
    int r;

    if (fstat(fd, &st) < 0)
        return err_origin_errno(-errno, "cannot read %s", path);
    if (!S_ISREG(st.st_mode))
        return err_origin(-EINVAL, "%s is not a regular file", path);
    if (pread(fd, &magic, sizeof(magic), 0) == (ssize_t)sizeof(magic) && magic != MANIFEST_MAGIC)
        return err_origin(-EINVAL, "%s is not the manifest of an image", path);
    if ((uint64_t)st.st_size > MANIFEST_BYTES_MAX)
        return err_origin(-EFBIG, "%s has %ju bytes, this thaw reads %llu at most", path,
                          (uintmax_t)st.st_size, MANIFEST_BYTES_MAX);
    r = read_whole(fd, path, (size_t)st.st_size, &bytes);
    if (r == 0)
        r = manifest_parse(out, path, bytes, (size_t)st.st_size);
    free(bytes);
    return r;
}

/* open_locked() - a manifest that is there, and its shared lock. Return: the fd (give) or a negative errno with a text */
static int open_locked(struct store *s, const char *id, const char *path)
{
    _cleanup_fd_ int fd =
        openat(s->folders[STORE_MANIFESTS], id, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
    int r;

    if (fd < 0)
        return err_origin_errno(-errno, "cannot open %s", path);
    r = fd_lock(fd, LOCK_SH, clock_now_ns() + LOCK_WAIT_NS);
    if (r == -EWOULDBLOCK)
        return err_origin(-EBUSY, "the image %s is being removed", path);
    if (r < 0)
        return err_origin_errno(r, "cannot lock %s", path);
    if (!store_is_there(s, STORE_MANIFESTS, id, fd))
        return err_origin_errno(-ENOENT, "cannot open %s", path);
    return TAKE_FD(fd);
}

int store_read_manifest(struct store *s, const uint8_t id[IMAGE_ID_BYTES], struct manifest **out,
                        int *fd)
{
    _cleanup_(manifest_freep) struct manifest *m = NULL;
    char text[IMAGE_ID_TEXT];
    _cleanup_fd_ int opened = -1;
    char *path = NULL;
    int r;

    if (asprintf(&path, "%s/manifests/%s", s->path, image_id_text(id, text)) < 0)
        return err_origin_errno(-ENOMEM, "cannot open image %s", text);
    if (fd) {
        opened = open_locked(s, text, path);
    } else {
        opened = openat(s->folders[STORE_MANIFESTS], text,
                        O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
        opened = opened < 0 ? err_origin_errno(-errno, "cannot open %s", path) : opened;
    }
    r = opened < 0 ? opened : parse_file(&m, opened, path);
    assert(r < 0 || m);
    if (r == 0 && memcmp(m->id, id, IMAGE_ID_BYTES) != 0)
        r = err_origin(-EINVAL, "%s is another image's manifest: %s", path,
                       image_id_text(m->id, text));
    free(path);
    if (r < 0)
        return r;
    if (fd)
        *fd = TAKE_FD(opened);
    *out = TAKE(m);
    return 0;
}

int store_open_pack(struct store *s, const struct manifest_pack *pack, int *fd, char **name)
{
    char text[IMAGE_ID_TEXT];
    struct stat st;

    *fd = -1;
    if (asprintf(name, "%s/packs/%s", s->path, image_id_text(pack->sha256, text)) < 0) {
        *name = NULL;
        return err_origin_errno(-ENOMEM, "cannot open pack %s", text);
    }
    *fd = openat(s->folders[STORE_PACKS], text, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
    if (*fd < 0 || fstat(*fd, &st) < 0)
        return err_origin_errno(-errno, "cannot open pack %s", *name);
    if (!S_ISREG(st.st_mode))
        return err_origin(-EIO, "pack %s is not a regular file", *name);
    if ((uint64_t)st.st_size != pack->bytes)
        return err_origin(-EIO, "pack %s is damaged: it has %ju bytes, expected %" PRIu64, *name,
                          (uintmax_t)st.st_size, pack->bytes);
    return pack_check_header(*fd, *name);
}

/* open_packs() - all of the manifest's */
static int open_packs(struct image *img, struct store *s)
{
    uint32_t n;
    int r = 0;

    assert(img->manifest);
    n = img->manifest->n_packs;
    img->pack_fds = calloc(n + 1, sizeof(*img->pack_fds));
    img->pack_names = calloc(n + 1, sizeof(*img->pack_names));
    if (!img->pack_fds || !img->pack_names)
        return err_origin_errno(-ENOMEM, "cannot open image %s", img->name);
    for (uint32_t i = 0; i < n; i++)
        img->pack_fds[i] = -1;
    for (uint32_t i = 0; i < n && r == 0; i++)
        r = store_open_pack(s, &img->manifest->packs[i], &img->pack_fds[i], &img->pack_names[i]);
    return r < 0 ? err_origin(r, "image %s: %s", img->name, err_text()) : 0;
}

int image_open(struct image **out, struct store *store, const char *name)
{
    _cleanup_(image_closep) struct image *img = calloc(1, sizeof(*img));
    uint8_t id[IMAGE_ID_BYTES];
    int r;

    if (!img)
        return err_origin_errno(-ENOMEM, "cannot open image %s", name);
    img->manifest_fd = -1;
    img->name = strdup(name);
    if (!img->name)
        return err_origin_errno(-ENOMEM, "cannot open image %s", name);
    r = store_find(store, name, id);
    if (r == 0)
        r = store_read_manifest(store, id, &img->manifest, &img->manifest_fd);
    if (r == 0)
        r = open_packs(img, store);
    if (r == 0)
        *out = TAKE(img);
    return r;
}

struct image *image_close(struct image *img)
{
    if (!img)
        return NULL;
    for (uint32_t i = 0; img->manifest && i < img->manifest->n_packs; i++) {
        if (img->pack_fds)
            (void)fd_close(img->pack_fds[i]);
        if (img->pack_names)
            free(img->pack_names[i]);
    }
    free(img->pack_fds);
    free((void *)img->pack_names);
    img->manifest_fd = fd_close(img->manifest_fd);
    (void)manifest_free(img->manifest);
    free(img->name);
    free(img);
    return NULL;
}
