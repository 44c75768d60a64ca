/* SPDX-License-Identifier: Apache-2.0 */

/*
 * mutant.c - does the oracle find the mistake in this engine?
 *
 *     mutant [FIRST [COUNT]]
 *
 * Linked with an engine that mutate.py spoilt. Runs COUNT random schedules from number FIRST on in a child (an assertion
 * of the engine is a way of being found) and succeeds when one of them fails. The schedules are always the same ones: a
 * mistake that was found once is found again.
 */

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "schedule.h"
#include "sim.h"

#define WATCHDOG_S 100u

/* struct findings - what the child found, in memory that outlives it */
struct findings {
    uint64_t number; /* of the schedule that runs */
    char text[256];
};

static int run_schedules(struct findings *f, uint64_t first, uint64_t count)
{
    static uint8_t bytes[SCHEDULE_BYTES_MAX];

    for (f->number = first; f->number < first + count; f->number++) {
        const char *wrong = sim_run(bytes, schedule_fill(f->number, bytes), NULL);

        if (wrong) {
            (void)snprintf(f->text, sizeof(f->text), "%s", wrong);
            return 1;
        }
    }
    return 0;
}

int main(int argc, char **argv)
{
    uint64_t first = argc > 1 ? strtoull(argv[1], NULL, 0) : 1;
    uint64_t count = argc > 2 ? strtoull(argv[2], NULL, 0) : 20000;
    const struct rlimit none = {0};
    struct findings *f;
    int status = 0;
    pid_t child;

    f = mmap(NULL, sizeof(*f), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (f == MAP_FAILED)
        return 2;
    child = fork();
    if (child < 0)
        return 2;
    if (child == 0) {
        (void)setrlimit(RLIMIT_CORE, &none);
        (void)alarm(WATCHDOG_S);
        if (!freopen("/dev/null", "w", stderr))
            return 2;
        return run_schedules(f, first, count);
    }
    while (waitpid(child, &status, 0) < 0)
        continue;
    if (WIFEXITED(status) && WEXITSTATUS(status) == 1) {
        printf("found by schedule %llu: %s\n", (unsigned long long)f->number, f->text);
        return 0;
    }
    if (WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT) {
        printf("found by schedule %llu: an assertion\n", (unsigned long long)f->number);
        return 0;
    }
    printf("not found in %llu schedules (status %d)\n", (unsigned long long)count, status);
    return 1;
}
