/* SPDX-License-Identifier: Apache-2.0 */
#ifndef NODE_CONSOLE_H
#define NODE_CONSOLE_H

/*
 * console.h - a guest's serial console: wait for what it says, run a command in its shell
 *
 * What the guest writes is in `console.log` (vmm/driver.h); what is typed goes through the driver. A command is typed as one line,
 * between two others that write tags:
 *
 *     echo "thaw-b""egin-N"; eval 'COMMAND' </dev/null; echo "thaw-e""nd-N" $?
 *
 * The terminal writes back what is typed, so the tags are typed in two pieces: they come up whole only in the answer. What is
 * between them is the command's output, and behind the second is its exit status. Carriage returns are the terminal's and are
 * left out.
 *
 * In front of it is a Ctrl-U: somebody may have typed half a line and gone away, or may have been paused with the guest, before
 * all of what he typed was read.
 *
 * It runs in the shell that is there, which keeps what it does: `cd` moves it, `exit` ends it, and what is no command at all
 * makes it forget the rest of the line, so that no end is heard of. In a child of that shell, (eval 'COMMAND'), it does nothing
 * to the shell, and always has a status; but to make one the guest touches more of its memory.
 *
 * A guest without a shell does not answer, and one that asks for a name and a password takes the line for a name. That is the
 * caller's to know.
 */

#include "vmm/driver.h"

#define CONSOLE_LINE_MAX   1000u /* some shells keep no more than 1024 of a line */
#define CONSOLE_OUTPUT_MAX (16 * MIB)

/**
 * struct console_wait - how long, and who else has a say
 * @nap_ns:  between two looks at what the guest has written; 0: 5 ms
 * @stopped: asked all the time; not 0, a negative errno with a text: the waiting ends with that. NULL: nobody has
 */
struct console_wait {
    unsigned timeout_ms;
    uint64_t nap_ns;
    int (*stopped)(void *ctx);
    void *ctx;
};

/** struct console_result - what a command has done */
struct console_result {
    int status;   /* its exit status */
    char *output; /* owned, with a NUL behind it */
    size_t len;
};

/**
 * console_nap() - between two looks at a guest of which nothing has come yet
 * @what: is waited for, in an error's text
 *
 * Return: 0: look again; -ETIMEDOUT (no text): it is too late; with a text: what @wait->stopped() says; -ESRCH: the VMM has ended
 */
int console_nap(const struct vmm *vm, const struct console_wait *wait, uint64_t deadline_ns,
                const char *what);

/**
 * console_wait_text() - until the guest has written @text
 *
 * Return: 0; -ETIMEDOUT; -ESRCH: the VMM has ended; others; with a text
 */
int console_wait_text(struct vmm *vm, const char *text, const struct console_wait *wait);

/**
 * console_wait_shell() - until a shell answers; it is asked again and again, since what is typed before it is there may be lost
 *
 * Return: as console_wait_text()
 */
int console_wait_shell(struct vmm *vm, const struct console_wait *wait);

/** enum console_shell - which one runs a command */
enum console_shell {
    CONSOLE_SHELL_ITSELF,
    CONSOLE_SHELL_CHILD,
};

/**
 * console_run() - run a command and wait for its end
 * @command: one line
 * @sink:    called with the output as it comes; NULL: it is kept in @out. Return: 0, or a negative errno with a text, which
 *           ends the waiting
 * @out:     (give) console_result_deinit() it
 *
 * Return: 0, whatever the command's status; -EINVAL: it cannot be typed; -EFBIG: more than CONSOLE_OUTPUT_MAX; others as
 * console_wait_text(); with a text
 */
int console_run(struct vmm *vm, const char *command, enum console_shell shell,
                const struct console_wait *wait,
                int (*sink)(void *ctx, const char *bytes, size_t len), void *ctx,
                struct console_result *out);

void console_result_deinit(struct console_result *r);

/* ---- what is typed and what comes back, without a VM (console_answer.c) ---- */

/** console_line() - what is typed for a command. @out: (give). Return: 0 or -EINVAL, -ENOMEM with a text */
int console_line(const char *command, enum console_shell shell, const char *tag, char **out);

/** struct console_answer - on its way */
struct console_answer {
    const char *tag; /* (borrow) */
    char *text;      /* what has come and was not handed on */
    size_t len;
    bool begun;
    bool ended;
    int status;
};

/** console_answer_add() - what has come. Return: 0 or a negative errno with a text */
int console_answer_add(struct console_answer *a, const char *bytes, size_t len);

/**
 * console_answer_take() - output that is surely the command's
 * @out: (give) NULL: there is none at the moment
 */
int console_answer_take(struct console_answer *a, char **out, size_t *len);

void console_answer_deinit(struct console_answer *a);

#endif
