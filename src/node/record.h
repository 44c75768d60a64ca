/* SPDX-License-Identifier: Apache-2.0 */
#ifndef NODE_RECORD_H
#define NODE_RECORD_H

/*
 * record.h - structs as JSON files: read strictly, written whole or not at all
 *
 * A table says which fields a struct has and what each may be. Reading and writing follow the table, so both agree. What a
 * file has and the table does not is an error, as is what is missing, said twice or out of its range: the text names the file,
 * the field, what is there and what was expected.
 *
 * A record begins with what it is and the version of its form:
 *
 *     { "kind": "template", "version": 1, ... }
 */

#include <jansson.h>

#include "base/base.h"

#define RECORD_BYTES_MAX (1 * MIB)
#define RECORD_TEXT_MAX  4096u

/** enum record_type - what a field is in JSON, and in the struct */
enum record_type {
    RECORD_TEXT, /* a string of printable characters and no more than @max bytes (0: RECORD_TEXT_MAX); char *, owned */
    RECORD_NUMBER, /* a whole number from @min to @max; unsigned */
    RECORD_LONG,   /* the same; uint64_t */
    RECORD_FLAG,   /* true or false; bool */
    RECORD_WORD,   /* one of @words; unsigned: which one */
    RECORD_PART,   /* an object with fields of its own; a struct */
    RECORD_TEXTS,  /* an array of up to @max strings, such as texts; struct record_texts, owned */
};

/**
 * struct record_field - one of a struct's fields; a table of them ends with a name that is NULL
 * @optional: it may be missing, then the struct keeps what it has; a text that is NULL is not written, nor an empty array. The
 *            struct of a part begins with a bool: is it there?
 * @words:    ends with NULL; places that are not in use are ""
 * @fields:   of the part
 */
struct record_field {
    const char *name;
    size_t offset;
    uint64_t min, max;
    const char *const *words;
    const struct record_field *fields;
    enum record_type type;
    bool optional;
};

/** struct record_texts - @n of them */
struct record_texts {
    char **texts;
    size_t n;
};

/** record_texts_add() - a copy of @text. Return: 0 or -ENOMEM with a text */
int record_texts_add(struct record_texts *list, const char *text);

void record_texts_deinit(struct record_texts *list);

/** struct record_form - a kind of record */
struct record_form {
    const char *kind; /* NULL: for people to write; neither kind nor version are in it */
    unsigned version;
    const struct record_field *fields;
};

/**
 * record_read() - a record from a file
 * @out: (give) record_deinit() it, also after an error
 *
 * Return: 0; -ENOENT; -EINVAL if it is not what it should be; others; with a text
 */
int record_read(const struct record_form *form, const char *path, void *out);

/** record_parse() - the same, from memory. @name: what an error's text calls it */
int record_parse(const struct record_form *form, const char *name, const char *text, size_t len,
                 void *out);

/** record_write() - into a file, durable, whole or not at all. Return: 0 or a negative errno with a text */
int record_write(const struct record_form *form, const char *path, const void *in);

/** record_json() - for whoever prints it. Return: (give) json_decref() it; NULL if there is no memory, or a text is not UTF-8 */
json_t *record_json(const struct record_form *form, const void *in);

/** record_deinit() - free the texts */
void record_deinit(const struct record_form *form, void *record);

/**
 * record_check_text() - may a text be in a record?
 * @name: of the field, for the error's text
 *
 * Return: 0 or -EINVAL with a text
 */
int record_check_text(const char *where, const char *name, const char *text, uint64_t max);

/** record_word() - which of @words is @text? Return: its place, or -EINVAL (no text) */
int record_word(const char *const *words, const char *text);

/** record_words() - "a, b or c", for the text of an error. Return: @buf */
const char *record_words(const char *const *words, char *buf, size_t len);

#endif
