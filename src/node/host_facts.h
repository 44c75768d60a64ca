/* SPDX-License-Identifier: Apache-2.0 */
#ifndef NODE_HOST_FACTS_H
#define NODE_HOST_FACTS_H

/*
 * host_facts.h - what a snapshot knows of the host that it was taken on
 *
 * A guest that runs on the host's own processor has asked it what it can do, once, when it booted. So it can only be resumed
 * where the processor is the same model and has all that it had. How the kernel's KVM presents a processor, and what it
 * keeps in a VM's state, changes with the kernel's version; so that must be the same up to its second number.
 *
 * An emulated guest (QEMU's tcg) has a processor made of software: neither matters.
 *
 * Facts are read from /proc/cpuinfo and uname(2).
 */

#include "node/record.h"
#include "node/reasons.h"

/** struct host_facts - of one host; texts are owned */
struct host_facts {
    char *arch;         /* "x86_64" */
    char *cpu;          /* "AuthenticAMD family 25 model 17 stepping 1" */
    char *cpu_features; /* words, sorted, with a blank between them */
    char *kernel;       /* "6.18" */
};

/** host_facts_fields - for a part of a record */
extern const struct record_field host_facts_fields[];

/** host_facts_read() - of this host. @out: (give) host_facts_deinit() it. Return: 0 or a negative errno with a text */
int host_facts_read(struct host_facts *out);

/**
 * host_facts_parse() - the same, from texts
 * @cpuinfo: as /proc/cpuinfo has it; the first processor counts
 */
int host_facts_parse(struct host_facts *out, const char *arch, const char *release,
                     const char *cpuinfo);

void host_facts_deinit(struct host_facts *f);

/**
 * host_facts_compare() - can a guest of @then go on at @here? Adds a sentence for each reason against it
 * @emulated: the guest's processor is software
 */
void host_facts_compare(const struct host_facts *then, const struct host_facts *here, bool emulated,
                        struct reasons *why_not);

/** host_huge_pages_free() - pages of 2 MiB that are there to be had; 0 if the kernel has no such pool */
uint64_t host_huge_pages_free(void);

/** host_has_kvm() - may this process use /dev/kvm? */
bool host_has_kvm(void);

#endif
