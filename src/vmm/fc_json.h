/* SPDX-License-Identifier: Apache-2.0 */
#ifndef VMM_FC_JSON_H
#define VMM_FC_JSON_H

/*
 * fc_json.h - the structs of fc_model.h as JSON, and back
 *
 * Writing does not check (fc_check.h does, on the JSON). Reading is for answers: a field that is not in the table is passed
 * over, because a newer Firecracker may say more; null is as if it were not there; a value of an optional enumeration that is
 * not in the table counts as not there. What is there must be of the right type, and what is required must be there.
 */

#include <jansson.h>

#include "vmm/fc_schema.h"

/**
 * fc_encode() - a struct as JSON
 * @in:  (borrow) of the model's type
 * @out: (give)
 *
 * Return: 0, or -EINVAL or -ENOMEM with a text.
 */
int fc_encode(const struct fc_model *model, const void *in, json_t **out);

/**
 * fc_decode() - JSON as a struct
 * @what: begins the text of an error: "the answer to GET /balloon"
 * @out:  (give) of the model's type: fc_model_clear() it. Zeroed on an error
 *
 * Return: 0, -EPROTO with a text that names the field and what was expected, or -ENOMEM.
 */
int fc_decode(const struct fc_model *model, json_t *in, const char *what, void *out);

/** fc_model_clear() - free what a struct that fc_decode() has filled in points to, zero it */
void fc_model_clear(const struct fc_model *model, void *s);

/** fc_field_is_there() - is an optional field of this struct set? Required ones always are */
bool fc_field_is_there(const struct fc_field *f, const void *s);

#endif
