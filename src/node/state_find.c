/* SPDX-License-Identifier: Apache-2.0 */
#include "node/state_find.h"

#include <limits.h>
#include <stdio.h>
#include <unistd.h>

#include "base/err.h"
#include "node/state_copy.h"
#include "pager/state_dir.h"

int state_find(const char *dir, int pid, char *path, size_t len)
{
    _cleanup_(state_list_freep) struct state_list *list = NULL;
    char default_dir[PATH_MAX];
    int r = dir ? 0 : state_dir_default(default_dir, sizeof(default_dir));

    if (r < 0)
        return err_origin_errno(r, "cannot name the folder of the state files");
    dir = dir ? dir : default_dir;
    r = state_list_read(dir, &list);
    if (r == 0)
        r = state_path(dir, pid, path, len);
    if (r < 0 || access(path, F_OK) == 0)
        return r;
    for (unsigned i = 0; i < list->n; i++) {
        _cleanup_(state_freep) struct state_copy *s = NULL;
        char candidate[PATH_MAX];

        if (state_path(dir, list->pids[i], candidate, sizeof(candidate)) < 0 ||
            state_read(candidate, &s) < 0)
            continue;
        if ((s->block.header->pager_pid == pid || s->block.header->vmm_pid == pid) &&
            snprintf(path, len, "%s", candidate) < (int)len)
            return 0;
    }
    return 0; /* the first name will do to say that there is no such file */
}
