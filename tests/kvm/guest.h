/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TESTS_KVM_GUEST_H
#define TESTS_KVM_GUEST_H

/*
 * guest.h - what the guest's code (guest.S) and the VMM around it agree on
 *
 * Guest memory is counted in blocks of 4 KiB, whatever the host's pages are. The first GUEST_PROGRAM_BLOCKS of the memory file
 * are the guest's program: nothing, its code, its page tables. All others are data:
 *
 *     word w of block b  =  0                                              if STATE_ZERO is set in the block's state
 *                           seed + (b * 512 + w) * GUEST_STEP + generation * GUEST_CHANGE                    if not
 *
 * seed is odd and the factors are even, so a word of data is never 0, and no two words of the memory file are the same.
 *
 * The state of each block is in a table that the guest and the VMM share and no pager knows of: 32 bits a block, the generation
 * (how often the block was changed) from bit STATE_GENERATION_SHIFT on. Whoever changes a block sets STATE_CHANGING first, with a compare
 * and exchange, and writes the new state when the change is complete; who comes second goes elsewhere. So nobody waits for
 * somebody who waits for the pager, and a read that saw the same state, without STATE_CHANGING, before and after overlapped no
 * change: it must be right to the bit.
 */

#define GUEST_PROGRAM_BLOCKS 5
#define GUEST_CODE_BLOCK \
    1 /* not 0: there is a KVM that does not run ring 3 code in the first page */
#define GUEST_TABLES_BLOCK     2 /* and the two behind it: one table of each level, for the first GiB */

#define GUEST_BLOCK_WORDS      512
#define GUEST_STEP             0x9e3779b97f4a7c16
#define GUEST_CHANGE           0xd6e8feb86659fd92

#define STATE_ZERO             1
#define STATE_CHANGING         2
#define STATE_GENERATION_SHIFT 2

/* The guest speaks by writing to a port: it is done, a word is wrong, a read overlapped a change. */
#define PORT_DONE  0x10
#define PORT_WRONG 0x11
#define PORT_RACED 0x12

#ifndef __ASSEMBLER__
#    include <stdint.h>

/* The code as it is in the program; it is copied to the beginning of its block of the memory file. */
extern const unsigned char guest_code[];
extern const uint32_t guest_code_bytes;
extern const uint32_t guest_walk, guest_fill; /* where to begin, in bytes from the beginning */
#endif

#endif
