/* SPDX-License-Identifier: Apache-2.0 */
#ifndef VMM_FC_MODEL_H
#define VMM_FC_MODEL_H

/*
 * fc_model.h - what Firecracker is told and answers, as structs: the models of fc_schema.def
 *
 *     struct fc_balloon balloon = {
 *         .amount_mib = 0,
 *         .deflate_on_oom = true,
 *         .has_free_page_reporting = true,
 *         .free_page_reporting = true,
 *     };
 *
 * What is required is always sent. What is optional is sent if its pointer is not NULL, or, where it is no pointer, if has_NAME
 * says so; a zeroed struct has none of it. Lists have n_NAME elements.
 *
 * In a request everything is borrowed for the call. In an answer everything was allocated: fc_model_clear() frees it.
 */

#include <jansson.h>

#include "base/base.h"

#define FC_ENUM_BEGIN(name, any_case) \
    enum fc_##name                    \
    {
#define FC_VALUE(enumeration, name, text, since, meaning) FC_##name,
#define FC_ENUM_END(name) \
    }                     \
    ;
#include "vmm/fc_schema.def"

/* A member of each kind, and what says that it is there. */
#define FC_MEMBER_BOOL(name, type) bool name
#define FC_MEMBER_UINT(name, type) uint64_t name
#define FC_MEMBER_STR(name, type)  const char *name
#define FC_MEMBER_STRS(name, type) const char *const *name
#define FC_MEMBER_ENUM(name, type) enum fc_##type name
#define FC_MEMBER_OBJ(name, type)  struct fc_##type name
#define FC_MEMBER_LIST(name, type) const struct fc_##type *name
#define FC_MEMBER_JSON(name, type) json_t *name

#define FC_HAS_BOOL_REQ(name)
#define FC_HAS_UINT_REQ(name)
#define FC_HAS_ENUM_REQ(name)
#define FC_HAS_OBJ_REQ(name)
#define FC_HAS_BOOL_OPT(name) bool has_##name;
#define FC_HAS_UINT_OPT(name) bool has_##name;
#define FC_HAS_ENUM_OPT(name) bool has_##name;
#define FC_HAS_OBJ_OPT(name)  bool has_##name;
#define FC_HAS_STR_REQ(name)
#define FC_HAS_STR_OPT(name)
#define FC_HAS_JSON_REQ(name)
#define FC_HAS_JSON_OPT(name)
#define FC_HAS_STRS_REQ(name)          size_t n_##name;
#define FC_HAS_STRS_OPT(name)          size_t n_##name;
#define FC_HAS_LIST_REQ(name)          size_t n_##name;
#define FC_HAS_LIST_OPT(name)          size_t n_##name;

#define FC_MODEL_BEGIN(model, meaning) struct fc_##model {
#define FC_FIELD(model, member, json, kind, type, presence, dflt, min, max, since, meaning) \
    FC_HAS_##kind##_##presence(member) FC_MEMBER_##kind(member, type);
#define FC_MODEL_END(model) \
    }                       \
    ;
#include "vmm/fc_schema.def"

/** enum fc_endpoint_id - the endpoints, in the table's order */
enum fc_endpoint_id {
#define FC_ENDPOINT(id, name, method, path, phase, hotplug, body, request, answer, since, meaning) \
    FC_##id,
#include "vmm/fc_schema.def"
    FC_N_ENDPOINTS
};

#endif
