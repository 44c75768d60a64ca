/* SPDX-License-Identifier: Apache-2.0 */
/* main.c - the command line: finds the verb and hands over */
#include <stdio.h>
#include <string.h>

#include <thaw/thaw.h>

#include "cli/cli.h"

static const struct verb {
    const char *name;
    int (*run)(int argc, char **argv);
    const char *what;
} verbs[] = {
    {"run", cli_run, "make sandboxes of a template"},
    {"ps", cli_ps, "list sandboxes"},
    {"exec", cli_exec, "run a command in a sandbox"},
    {"logs", cli_logs, "print what a sandbox has written"},
    {"pause", cli_pause, "write sandboxes down, end their processes"},
    {"resume", cli_resume, "let sandboxes go on where they were paused"},
    {"fork", cli_fork, "make sandboxes of one that is paused"},
    {"balloon", cli_balloon, "ask a sandbox's guest to leave memory to the host"},
    {"kill", cli_kill, "end sandboxes' processes"},
    {"rm", cli_rm, "remove sandboxes"},
    {"serve", cli_serve, "serve one VM's memory from a snapshot, page by page"},
    {"ready", cli_ready, "tell a pager that its guest is ready: a record of its working set ends"},
    {"map", cli_map, "draw the memory of a VM that is being served"},
    {"bench", cli_bench, "measure page-fault handlers against each other"},
    {"template", cli_template, "boot a VM once, to resume it many times"},
    {"image", cli_image, "pack memory files into images, look after them"},
    {"workingset", cli_workingset, "look at working sets, make one of several"},
    {"fc", cli_fc, "send one request to a Firecracker, looked at before"},
    {"doctor", cli_doctor, "say what this host can do, and what to do about the rest"},
};

static void print_help(FILE *to)
{
    (void)fprintf(to, "usage: thaw VERB [ARGUMENTS]\n\n"
                      "Resumes frozen virtual machines one page at a time.\n\n");
    for (size_t i = 0; i < ARRAY_LEN(verbs); i++)
        (void)fprintf(to, "  %-10s %s\n", verbs[i].name, verbs[i].what);
    (void)fprintf(to, "  %-10s %s\n  %-10s %s\n\nthaw VERB --help and thaw-VERB(1) say more.\n",
                  "help", "this text", "version", "the version");
}

/* end() - what was printed has arrived, or the exit status says that it has not */
static int end(const char *name, int status)
{
    return status == CLI_OK ? cli_flush(name, status) : status;
}

int main(int argc, char **argv)
{
    const char *name = argc > 1 ? argv[1] : "";

    for (size_t i = 0; i < ARRAY_LEN(verbs); i++) {
        if (strcmp(name, verbs[i].name) == 0)
            return end(name, verbs[i].run(argc - 1, argv + 1));
    }
    if (strcmp(name, "help") == 0 || strcmp(name, "--help") == 0 || strcmp(name, "-h") == 0) {
        print_help(stdout);
        return end(name, CLI_OK);
    }
    if (strcmp(name, "version") == 0 || strcmp(name, "--version") == 0) {
        (void)printf("thaw %s\n", thaw_version());
        return end(name, CLI_OK);
    }
    if (argc < 2) {
        print_help(stderr);
        return CLI_USAGE;
    }
    return cli_usage_error("", "no such verb: %s", name);
}
