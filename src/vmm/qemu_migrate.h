/* SPDX-License-Identifier: Apache-2.0 */
#ifndef VMM_QEMU_MIGRATE_H
#define VMM_QEMU_MIGRATE_H

/* qemu_migrate.h - the devices' state out of a QEMU and into another one, as a migration without the RAM */

#include "vmm/qmp.h"

/** qemu_save() - into the file @path. Return: 0 or a negative errno with a text; then there is no such file */
int qemu_save(struct qmp *qmp, const char *path, uint64_t deadline_ns);

/** qemu_load() - out of the file @path, into a QEMU that waits for it. Return: 0 or a negative errno with a text */
int qemu_load(struct qmp *qmp, const char *path, uint64_t deadline_ns);

#endif
