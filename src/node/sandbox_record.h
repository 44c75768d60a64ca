/* SPDX-License-Identifier: Apache-2.0 */
#ifndef NODE_SANDBOX_RECORD_H
#define NODE_SANDBOX_RECORD_H

/*
 * sandbox_record.h - what sandbox.json says
 *
 * Written as a whole, durably, by whoever holds the sandbox's lock; read by anybody at any time. What is read is not trusted
 * (record.h).
 *
 * Process numbers are not in it: they are in files that are written before a process runs (vmm/child.h), so there is none that
 * nobody knows of. They mean something only until the machine is started again: so the record has the kernel's boot id.
 */

#include "node/places.h"
#include "node/record.h"
#include "node/sandbox_jail.h"
#include "image/manifest.h"

#define SANDBOX_NAME_MAX 64u

/** enum sandbox_state - see sandbox_states.def */
enum sandbox_state {
#define SANDBOX_STATE(state, name, meaning) SANDBOX_##state,
#include "node/sandbox_states.def"
    N_SANDBOX_STATES,
};

/** sandbox_state_name() */
const char *sandbox_state_name(enum sandbox_state state);

/** sandbox_state_is_busy() - in this state somebody is at work, or has died at it */
bool sandbox_state_is_busy(enum sandbox_state state);

/** struct sandbox_record - see above. The texts are owned */
struct sandbox_record {
    char *name;
    char *template_name; /* for people: the template may have gone */
    char *forked_from;   /* the same; NULL: it was not */
    unsigned state;      /* enum sandbox_state; changed by sandbox_record_step() only */
    unsigned generation; /* of the last pause that was acknowledged; 0: none */
    char *image;         /* id of its memory then; the template's if there was no pause */
    char *base;          /* id of the template's image: what layers are laid on */
    uint64_t created_ms; /* CLOCK_REALTIME */
    uint64_t changed_ms; /* of the state */
    char *boot_id;       /* of the kernel on which the record was written */
    char *state_dir;     /* of its pagers; NULL: where they have it by themselves */
    struct sandbox_jail jail;
    char *end; /* dead: how it ended; NULL: it is not */
};

/** sandbox_name_check() - letters, digits, '-', '_', beginning with a letter or digit. Return: 0 or -EINVAL with a text */
int sandbox_name_check(const char *name);

/**
 * sandbox_record_read() - of the sandbox @name in @folder
 * @out: (give) sandbox_record_deinit() it
 *
 * Return: 0 or a negative errno with a text: -ENOENT: there is no record; -EINVAL: it is broken
 */
int sandbox_record_read(struct sandbox_record *out, const char *folder, const char *name);

/**
 * sandbox_record_write() - replace it, durably; boot id and time are set
 *
 * Return: 0 or a negative errno with a text
 */
int sandbox_record_write(struct sandbox_record *record, const char *folder);

/** sandbox_record_step() - the only one that changes a state. The record is not written */
void sandbox_record_step(struct sandbox_record *record, enum sandbox_state to);

/** sandbox_record_may_step() - is there such an edge? */
bool sandbox_record_may_step(enum sandbox_state from, enum sandbox_state to);

/** sandbox_record_set_text() - a text of the record is another one. Return: 0 or -ENOMEM with a text; then it is as it was */
int sandbox_record_set_text(char **member, const char *text);

/**
 * sandbox_record_is_of_this_boot() - may processes that it knows of still be there?
 *
 * Return: 0, or a negative errno with a text: it cannot be told, and nobody may take them for gone
 */
int sandbox_record_is_of_this_boot(const struct sandbox_record *record, bool *out);

/** sandbox_record_json() - for whoever prints it. Return: (give) NULL: there is no memory */
json_t *sandbox_record_json(const struct sandbox_record *record);

void sandbox_record_deinit(struct sandbox_record *record);

#endif
