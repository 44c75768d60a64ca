#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# purity.sh - what core asks of the world
#
#     tools/purity.sh LIBCORE.a LIBBASE.a
#
# src/core/ is pure: no system call, thread, clock, allocation or log message. So its library may leave undefined only
# the functions listed here (work on memory and strings that the caller owns, and the assertion's end) and those of
# base's equally pure objects.

set -euo pipefail
export LC_ALL=C

core=$1 base=$2

allowed=(memcpy memmove memset memcmp memchr strlen strnlen strcmp strncmp strchr
    __memcpy_chk __memmove_chk __memset_chk __assert_fail __stack_chk_fail _GLOBAL_OFFSET_TABLE_
    snprintf vsnprintf __snprintf_chk __vsnprintf_chk strtoull
    __popcountdi2 # the compiler's own, counts bits
    qsort)        # may allocate; orders the regions when a session starts, never later
pure_objects='bitset|hist'

names_of()
{
    awk 'NF { print $NF }' | sort -u
}

undefined=$(nm --undefined-only "$core" 2>/dev/null | awk '$1 == "U"' | names_of)
own=$(nm --defined-only --extern-only "$core" 2>/dev/null | awk 'NF == 3' | names_of)
ofbase=$(nm --print-file-name --defined-only --extern-only "$base" 2>/dev/null |
    grep -E "[/:_]($pure_objects)\.c\.o" | names_of)
[ -n "$own" ] || {
    echo "purity: no symbols in $core" >&2
    exit 1
}

status=0
for symbol in $undefined; do
    if ! printf '%s\n' "${allowed[@]}" "$own" "$ofbase" | grep -Fqx -- "$symbol"; then
        users=$(nm --print-file-name --undefined-only "$core" 2>/dev/null |
            awk -v s="$symbol" '$NF == s { sub(/: .*|:$/, "", $1); sub(/.*[:\/]/, "", $1); print $1 }' | tr '\n' ' ')
        echo "purity: core may not use $symbol (in ${users% })"
        status=1
    fi
done
echo "purity: $(printf '%s\n' "$undefined" | wc -l) undefined symbols looked at"
exit $status
