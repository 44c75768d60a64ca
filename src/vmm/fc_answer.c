/* SPDX-License-Identifier: Apache-2.0 */
#include "vmm/fc_answer.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/err.h"

#define FAULT_BYTES 320 /* of Firecracker's words, in an error */

const char *fc_endpoint_text(const struct fc_endpoint *e, char *buf, size_t len)
{
    (void)snprintf(buf, len, "%s %s", fc_method_name(e->method), e->path);
    return buf;
}

/* one_line() - a copy without control characters: spaces are in their place. Return: (give), NULL without memory */
static char *one_line(const char *text, size_t len)
{
    char *line = malloc(len + 1);

    if (!line)
        return NULL;
    memcpy(line, text, len);
    for (size_t i = 0; i < len; i++) {
        if ((unsigned char)line[i] < 0x20 || line[i] == 0x7f)
            line[i] = ' ';
    }
    line[len] = '\0';
    return line;
}

/* cut() - to what has room in an error; not within a character of several bytes */
static void cut(char *text)
{
    size_t n = strlen(text);

    if (n > FAULT_BYTES) {
        n = FAULT_BYTES;
        while (n > 0 && ((unsigned char)text[n] & 0xc0) == 0x80)
            n--;
    }
    while (n > 0 && text[n - 1] == ' ')
        n--;
    text[n] = '\0';
}

/* fault_text() - Firecracker's words. Return: (give), NULL without memory */
static char *fault_text(const char *body, size_t len)
{
    char *line = one_line(body ? body : "", body ? len : 0);
    json_t *json = line ? json_loads(line, 0, NULL) : NULL;
    const char *words = json_string_value(json_object_get(json, "fault_message"));
    char *text = NULL;

    if (!words)
        words = json_string_value(json_object_get(json, "error"));
    if (words) {
        text = one_line(words, strlen(words));
        free(line);
    } else {
        text = line;
    }
    json_decref(json);
    if (text)
        cut(text);
    return text;
}

static int fault(const char *what, unsigned status, const char *body, size_t len)
{
    char *text = fault_text(body, len);
    const char *words = !text ? "?" : text[0] != '\0' ? text : "it does not say why";
    int r;

    if (status == 503)
        r = err_origin(-EBUSY, "Firecracker has too many connections for %s: %s", what, words);
    else if (status >= 400 && status < 600)
        r = err_origin(-EREMOTEIO, "Firecracker refused %s (%u): %s", what, status, words);
    else
        r = err_origin(-EPROTO, "Firecracker answered %s with status %u, expected 200 or 204: %s",
                       what, status, words);
    free(text);
    return r;
}

int fc_answer_read(const struct fc_endpoint *e, const char *path, unsigned status, const char *body,
                   size_t len, json_t **out)
{
    json_error_t error;
    char what[128];
    json_t *json;

    (void)snprintf(what, sizeof(what), "%s %s", fc_method_name(e->method), path);
    if (status < 200 || status >= 300)
        return fault(what, status, body, len);
    *out = NULL;
    if (e->answer->n_fields == 0)
        return 0;
    if (!body)
        return err_origin(-EPROTO, "Firecracker answered %s with nothing, expected %s", what,
                          e->answer->meaning);
    json = json_loadb(body, len, 0, &error);
    if (!json)
        return err_origin(-EPROTO, "Firecracker answered %s with what is no JSON: %.120s", what,
                          error.text);
    *out = json;
    return 0;
}
