/* SPDX-License-Identifier: Apache-2.0 */
#ifndef CLI_MAP_SIZE_TEXT_H
#define CLI_MAP_SIZE_TEXT_H

/*
 * size_text.h - numbers as people read them
 *
 * Both return one of a few buffers of the calling thread, in turn: a result is good until the
 * eighth call after it.
 */

#include "base/base.h"

/** size_text() - bytes in the largest unit that leaves 1 or more: "512 bytes", "3.25 GiB" */
const char *size_text(uint64_t bytes);

/** count_text() - a number with its thousands set apart: "16,777,216" */
const char *count_text(uint64_t count);

#endif
