/* SPDX-License-Identifier: Apache-2.0 */
#ifndef UNIT_FC_SAMPLES_H
#define UNIT_FC_SAMPLES_H

/* fc_samples.h - JSON bodies for the endpoints of fc_schema.def, made from its table */

#include <jansson.h>

#include "testing.h"
#include "vmm/fc_schema.h"

#define SAMPLE_ID "disk_1" /* of every field that is a name in a path */

/** fc_sample_value() - one that the field takes, the smallest there is. Return: (give) */
json_t *fc_sample_value(const struct fc_field *f);

/** fc_sample() - of a model: @full: with all fields that may stand together, else with what is required. Return: (give) */
json_t *fc_sample(const struct fc_model *model, bool full);

/** fc_sample_random() - any values; what must hold between fields may not. Return: (give) */
json_t *fc_sample_random(const struct fc_model *model, struct rng *rng);

/** fc_version() - of a text that is one; of a list of them the first */
struct thaw_version fc_version(const char *text);

#endif
