/* SPDX-License-Identifier: Apache-2.0 */

/*
 * fuzz_fc_response.c - whatever Firecracker answers is an error in one line, or a struct that says what the JSON said
 *
 * The first line is "METHOD PATH STATUS", the rest the answer's body. What was understood is written as JSON and read again:
 * that must say the same. What was not leaves a zeroed struct.
 */

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "fuzz.h"
#include "vmm/fc_answer.h"
#include "vmm/fc_json.h"

static void use(bool truth)
{
    if (!truth)
        abort();
}

static bool has_line(void)
{
    return err_text()[0] != '\0' && !strpbrk(err_text(), "\r\n");
}

/* say_again() - a struct, as JSON. Return: (give) */
static json_t *say_again(const struct fc_model *model, const void *s)
{
    json_t *json = NULL;

    use(fc_encode(model, s, &json) == 0 && json);
    return json;
}

static void understand(const struct fc_model *model, json_t *json)
{
    static const uint8_t zeros[4096];
    json_t *once, *twice;
    void *s;

    use(model->bytes <= sizeof(zeros));
    s = malloc(model->bytes);
    use(s != NULL);
    memset(s, 0xa5, model->bytes);
    err_clear();
    if (fc_decode(model, json, "the answer", s) < 0) {
        use(has_line() && strncmp(err_text(), "the answer", strlen("the answer")) == 0);
        use(memcmp(s, zeros, model->bytes) == 0);
        free(s);
        return;
    }
    once = say_again(model, s);
    fc_model_clear(model, s);
    use(memcmp(s, zeros, model->bytes) == 0);
    use(fc_decode(model, once, "the answer", s) == 0);
    twice = say_again(model, s);
    use(json_equal(once, twice));
    fc_model_clear(model, s);
    json_decref(once);
    json_decref(twice);
    free(s);
}

static void answer(const struct fc_endpoint *e, unsigned status, const char *body, size_t len)
{
    bool well = status >= 200 && status < 300;
    json_t *json = NULL;
    int r;

    err_clear();
    r = fc_answer_read(e, e->path, status, len > 0 ? body : NULL, len, &json);
    if (r == 0) {
        use(well && !json == (e->answer->n_fields == 0));
        if (json)
            understand(e->answer, json);
    } else {
        use(r == -EPROTO || (!well && (r == -EBUSY || r == -EREMOTEIO)));
        use(!json && has_line());
    }
    json_decref(json);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const uint8_t *end = size > 0 ? memchr(data, '\n', size) : NULL;
    size_t line_len = end ? (size_t)(end - data) : size;
    size_t len = end ? size - line_len - 1 : 0;
    const struct fc_endpoint *e = NULL;
    char method[16], path[64];
    unsigned status;
    char *line = strndup((const char *)data, line_len);
    char *body = malloc(len + 1); /* a 0 follows, as from the HTTP side */
    char *id = NULL;

    use(line && body);
    if (end)
        memcpy(body, end + 1, len);
    body[len] = '\0';
    if (sscanf(line, "%15s %63s %5u", method, path, &status) == 3) {
        err_clear();
        if (fc_endpoint_find(method, path, &e, &id) == 0)
            answer(e, status, body, len);
        else
            use(has_line() && !id);
    }
    free(id);
    free(line);
    free(body);
    return 0;
}
