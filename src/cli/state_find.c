/* SPDX-License-Identifier: Apache-2.0 */
#include "cli/state_find.h"

#include <limits.h>
#include <stdio.h>

#include "base/err.h"
#include "cli/cli.h"
#include "cli/map/size_text.h"
#include "node/state_copy.h"
#include "node/state_find.h"
#include "pager/state_dir.h"

/* One line a pager, for people who must choose. */
static void print_choice(const char *dir, int pid)
{
    _cleanup_(state_freep) struct state_copy *s = NULL;
    char path[PATH_MAX];

    if (state_path(dir, pid, path, sizeof(path)) < 0)
        return;
    if (state_read(path, &s) < 0)
        (void)fprintf(stderr, "  %-8d %s\n", pid, err_text());
    else
        (void)fprintf(stderr, "  %-8d %s of process %d%s\n", pid,
                      size_text(s->block.header->n_pages << s->block.header->page_shift),
                      s->block.header->vmm_pid, s->stale ? ", STALE: the pager has ended" : "");
}

/* The only pager that runs. Errors are printed. */
static int find_only(const char *verb, const char *dir, char *path, size_t len)
{
    _cleanup_(state_list_freep) struct state_list *list = NULL;
    unsigned n_running = 0;

    if (state_list_read(dir, &list) < 0)
        return cli_error(verb, "%s", err_text());
    for (unsigned i = 0; i < list->n; i++) {
        _cleanup_(state_freep) struct state_copy *s = NULL;
        char candidate[PATH_MAX];

        if (state_path(dir, list->pids[i], candidate, sizeof(candidate)) < 0)
            return cli_error(verb, "%s", err_text());
        if (state_read(candidate, &s) < 0 || s->stale)
            continue;
        n_running++;
        if (snprintf(path, len, "%s", candidate) >= (int)len)
            return cli_error(verb, "directory name %s is too long", dir);
    }
    if (n_running == 1)
        return CLI_OK;
    if (list->n == 0)
        return cli_error(verb, "no pager has a state file in %s", dir);
    (void)cli_error(verb, "%u pagers run with state files in %s; say which, by pid:", n_running,
                    dir);
    for (unsigned i = 0; i < list->n; i++)
        print_choice(dir, list->pids[i]);
    return CLI_FAILED;
}

int cli_find_state(const char *verb, const char *which, const char *dir, char *path, size_t len)
{
    char default_dir[PATH_MAX];
    uint64_t pid = 0;

    if (which && cli_parse_u64(which, INT32_MAX, &pid) < 0) {
        if (snprintf(path, len, "%s", which) >= (int)len)
            return cli_error(verb, "file name is too long");
        return CLI_OK;
    }
    if (which)
        return state_find(dir, (int)pid, path, len) < 0 ? cli_error(verb, "%s", err_text())
                                                        : CLI_OK;
    if (!dir) {
        if (state_dir_default(default_dir, sizeof(default_dir)) < 0)
            return cli_error(verb, "%s", err_text());
        dir = default_dir;
    }
    return find_only(verb, dir, path, len);
}
