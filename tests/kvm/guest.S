/* SPDX-License-Identifier: Apache-2.0 */
/*
 * guest.S - all that the virtual CPUs run
 *
 * Two programs in 64-bit code, without a stack, interrupts or memory of their own; they run in ring 3 as well as in ring 0.
 * guest.h says what they read and write.
 *
 *     walk    reads all words of a number of blocks and compares each with what it must be
 *     fill    changes all words of blocks that nobody else changes, and compares them
 *
 * In registers, set by the VMM:
 *
 *     %rdi  block to begin with              %rbx  first block of the range, %rbp  the one behind its last
 *     %r10  how many blocks to go through    %r15  from one to the next: a step below the length of the range
 *     %r11  GUEST_CHANGE                     %r12  GUEST_STEP
 *     %r13  seed                             %r14  address of the table of states
 *     %gs:0 the block under way, for who wants to know why it takes so long
 *
 * At PORT_WRONG and PORT_RACED: block %rdi, address %rsi, found %r9, state before the read %r8d; at PORT_WRONG also what
 * was expected in %rax.
 */
#include "guest.h"

        .section .rodata
        .globl  guest_code, guest_code_bytes, guest_walk, guest_fill
        .balign 16
guest_code_bytes:
        .long   code_end - guest_code
guest_walk:
        .long   walk - guest_code
guest_fill:
        .long   fill - guest_code
guest_code:

/* %rax: word 0 of block %rdi in state %r8d, %rcx: how much more each next word is */
.macro content
        xor     %eax, %eax
        xor     %ecx, %ecx
        test    $STATE_ZERO, %r8d
        jnz     1f
        mov     %r8d, %ecx
        shr     $STATE_GENERATION_SHIFT, %ecx
        imul    %r11, %rcx
        mov     %rdi, %rax
        shl     $9, %rax
        imul    %r12, %rax
        add     %rcx, %rax
        add     %r13, %rax
        mov     %r12, %rcx
1:
.endm

/* To \differs as soon as a word is not what "content" said. */
.macro compare differs
        mov     %rdi, %rsi
        shl     $12, %rsi
        mov     $GUEST_BLOCK_WORDS, %edx
2:      mov     (%rsi), %r9
        cmp     %rax, %r9
        jne     \differs
        add     %rcx, %rax
        add     $8, %rsi
        dec     %edx
        jnz     2b
.endm

/* On to the next block, or done. */
.macro next again
        add     %r15, %rdi
        cmp     %rbp, %rdi
        jb      3f
        sub     %rbp, %rdi
        add     %rbx, %rdi
3:      dec     %r10
        jnz     \again
        out     %al, $PORT_DONE
.endm

walk:
        mov     %edi, %gs:0
        mov     (%r14,%rdi,4), %r8d
        test    $STATE_CHANGING, %r8d
        jnz     walk_touch
        content
        compare walk_differs
walk_next:
        next    walk

walk_differs:
        cmp     (%r14,%rdi,4), %r8d
        jne     walk_raced
        out     %al, $PORT_WRONG

/* Somebody is changing the block: one word of it, so that there is a fault in the middle of the change. */
walk_touch:
        mov     %rdi, %rsi
        shl     $9, %rsi
        mov     %r10d, %eax
        and     $(GUEST_BLOCK_WORDS - 1), %eax
        add     %rax, %rsi
        shl     $3, %rsi
        mov     (%rsi), %r9
walk_raced:
        out     %al, $PORT_RACED
        jmp     walk_next

/* A change adds: words that were not right before are not right afterwards. */
fill:
        mov     %edi, %gs:0
        mov     (%r14,%rdi,4), %eax
        test    $STATE_CHANGING, %eax
        jnz     fill_next
        mov     %eax, %r9d
        mov     %eax, %ecx
        or      $STATE_CHANGING, %ecx
        lock cmpxchg %ecx, (%r14,%rdi,4)
        jne     fill_next
        lea     1 << STATE_GENERATION_SHIFT(%r9), %r8d
        and     $~STATE_ZERO, %r8d
        mov     %r11, %rax
        xor     %ecx, %ecx
        test    $STATE_ZERO, %r9d
        jz      fill_add
        content
fill_add:
        mov     %rdi, %rsi
        shl     $12, %rsi
        mov     $GUEST_BLOCK_WORDS, %edx
4:      add     %rax, (%rsi)
        add     %rcx, %rax
        add     $8, %rsi
        dec     %edx
        jnz     4b
        content
        compare fill_differs
        mov     %r8d, (%r14,%rdi,4)
fill_next:
        next    fill

fill_differs:
        out     %al, $PORT_WRONG
code_end:

        .section .note.GNU-stack, "", @progbits
