/* SPDX-License-Identifier: Apache-2.0 */
/* balloon.c - `thaw balloon`: how much memory a sandbox's guest leaves to the host */
#include <inttypes.h>
#include <stdio.h>

#include "base/err.h"
#include "cli/cli.h"
#include "cli/sandbox/sandbox.h"

#define VERB        "balloon"
#define DEADLINE_MS 5000u

static const char help[] =
    "usage: thaw balloon NAME [MIB] [--store DIR]\n"
    "\n"
    "Asks the guest of a sandbox to leave MIB of its memory to the host, and does not wait until "
    "it\n"
    "has. Without MIB: prints how much it was asked for, and how much it has left.\n"
    "\n" SANDBOX_HELP;

static void print_number(const char *what, uint64_t mib, const char *end)
{
    if (mib == UINT64_MAX)
        (void)printf("%s unknown%s", what, end);
    else
        (void)printf("%s %" PRIu64 " MiB%s", what, mib, end);
}

/* act() - @mib: NULL: only look */
static int act(struct sandbox *s, const uint64_t *mib)
{
    _cleanup_(vmm_freep) struct vmm *vmm = NULL;
    struct vmm_balloon b;
    int r = sandbox_vm(s, &vmm);

    if (r == 0 && mib)
        return vmm_balloon_set(vmm, (unsigned)*mib, DEADLINE_MS);
    if (r == 0)
        r = vmm_balloon_get(vmm, &b, DEADLINE_MS);
    if (r == 0) {
        print_number("target", b.target_mib, ", ");
        print_number("actual", b.actual_mib, "\n");
    }
    return r;
}

int cli_balloon(int argc, char **argv)
{
    static const struct option options[] = {SANDBOX_OPTIONS};
    struct sandbox_verb v = {.name = VERB, .help = help, .shorts = "h", .options = options};
    _cleanup_(sandbox_closep) struct sandbox *s = NULL;
    uint64_t mib = 0;
    int status;
    int n;

    if (!sandbox_parse(&v, argc, argv, &status))
        return status;
    n = argc - optind;
    if (n < 1 || n > 2)
        return cli_usage_error(VERB, "expected the name of a sandbox, and a number of MiB");
    if (n == 2 && cli_parse_u64(argv[optind + 1], TEMPLATE_MEMORY_MIB_MAX, &mib) < 0)
        return cli_usage_error(VERB, "%s: expected a number of MiB", argv[optind + 1]);
    if (sandbox_open(&s, v.store, argv[optind], SANDBOX_RECONCILED, SANDBOX_LOCK_MS) < 0 ||
        act(s, n == 2 ? &mib : NULL) < 0)
        return cli_error(VERB, "%s", err_text());
    return cli_flush(VERB, CLI_OK);
}
