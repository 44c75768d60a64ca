/* SPDX-License-Identifier: Apache-2.0 */

/*
 * replay.c - runs a fuzz target over files
 *
 *     replay FILE|FOLDER...
 *
 * Prints the name of each file before it is run, so that the last one printed is the one that failed.
 */

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "fuzz.h"

#define WATCHDOG_S 60u
#define FILE_MAX   (1 * MIB)

/* replay_file() - Return: false if it could not be read */
static bool replay_file(const char *path)
{
    FILE *f = fopen(path, "re");
    uint8_t *data = malloc(FILE_MAX);
    uint8_t *exact;
    size_t n;

    if (!f || !data) {
        (void)fprintf(stderr, "replay: %s: %s\n", path, strerror(errno));
        free(data);
        return false;
    }
    n = fread(data, 1, FILE_MAX, f);
    (void)fclose(f);
    printf("%s\n", path);
    (void)fflush(stdout);
    exact = malloc(n + (n == 0)); /* a sanitizer sees a step beyond its end */
    if (exact) {
        memcpy(exact, data, n);
        (void)LLVMFuzzerTestOneInput(exact, n);
    }
    free(exact);
    free(data);
    return exact != NULL;
}

/* replay_path() - a file, or the files of a folder. Return: how many could not be read */
static unsigned replay_path(const char *path, unsigned *n_files)
{
    struct dirent **names = NULL;
    unsigned n_failed = 0;
    struct stat st;
    int n;

    if (stat(path, &st) == 0 && !S_ISDIR(st.st_mode)) {
        ++*n_files;
        return replay_file(path) ? 0 : 1;
    }
    n = scandir(path, &names, NULL, alphasort);
    for (int i = 0; i < n; i++) {
        char file[4096];

        (void)snprintf(file, sizeof(file), "%s/%s", path, names[i]->d_name);
        if (names[i]->d_name[0] != '.') {
            ++*n_files;
            n_failed += replay_file(file) ? 0 : 1;
        }
        free(names[i]);
    }
    free(names);
    return n < 0 ? 1 : n_failed;
}

int main(int argc, char **argv)
{
    unsigned n_failed = 0;
    unsigned n_files = 0;

    (void)alarm(WATCHDOG_S);
    for (int i = 1; i < argc; i++)
        n_failed += replay_path(argv[i], &n_files);
    printf("%u files, %u not read\n", n_files, n_failed);
    return n_failed == 0 && n_files > 0 ? 0 : 1;
}
