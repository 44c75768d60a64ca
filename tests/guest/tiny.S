/* SPDX-License-Identifier: Apache-2.0 */
/*
 * tiny.S - a guest that QEMU boots as it is (Multiboot), for a host whose KVM is too slow for Linux
 *
 * It writes words all over DATA_BYTES of memory, says "ready" on the first serial line, then looks at them again and again: each
 * must be what the last pass has left, and is changed for the next one. ZERO_BYTES behind that were never written to and must
 * read as zero. After each pass it says "pass"; a word that is not right is the end: "WRONG".
 *
 *     %ebx  number of the pass         %esi  address of the word         %esp  one page below DATA
 */
#define DATA        0x200000
#define DATA_BYTES  0x400000
#define ZERO        0x2000000
#define ZERO_BYTES  0x400000
#define STEP        256 /* bytes from a word to the next: a software KVM is slow */
#define FACTOR      0x9e3779b1
#define SERIAL_DATA 0x3f8
#define SERIAL_LINE 0x3fd /* bit 5: there is room for a byte */
#define MAGIC       0x1badb002
#define FLAGS       0x3 /* page-aligned; wants to know its memory */

        .text
        .balign 4
        .long   MAGIC, FLAGS, -(MAGIC + FLAGS)

/* %eax: the word at %esi in pass %ebx */
.macro content
        imul    $FACTOR, %esi, %eax
        xor     %ebx, %eax
.endm

        .globl  _start
_start:
        mov     $DATA, %esp
        xor     %ebx, %ebx
        mov     $DATA, %esi
1:      content
        mov     %eax, (%esi)
        add     $STEP, %esi
        cmp     $DATA + DATA_BYTES, %esi
        jb      1b
        mov     $ready, %edi
        call    say
pass:
        mov     $DATA, %esi
1:      content
        cmp     %eax, (%esi)
        jne     wrong
        inc     %ebx
        content
        dec     %ebx
        mov     %eax, (%esi)
        add     $STEP, %esi
        cmp     $DATA + DATA_BYTES, %esi
        jb      1b
        inc     %ebx
        mov     $ZERO, %esi
1:      cmpl    $0, (%esi)
        jne     wrong
        add     $STEP, %esi
        cmp     $ZERO + ZERO_BYTES, %esi
        jb      1b
        mov     $passed, %edi
        call    say
        jmp     pass
wrong:
        mov     $mismatch, %edi
        call    say
        cli
1:      hlt
        jmp     1b

/* say() - the text at %edi */
say:
        mov     $SERIAL_LINE, %dx
1:      in      %dx, %al
        test    $0x20, %al
        jz      1b
        mov     $SERIAL_DATA, %dx
        mov     (%edi), %al
        test    %al, %al
        jz      2f
        out     %al, %dx
        inc     %edi
        jmp     say
2:      ret

ready:  .asciz  "ready\n"
passed: .asciz  "pass\n"
mismatch:
        .asciz  "WRONG\n"

        .section .note.GNU-stack, "", @progbits
