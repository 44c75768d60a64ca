#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# fuzz.sh - let libFuzzer look for new inputs that break a target
#
#     fuzz.sh TARGET CORPUS MAX_LEN [DICTIONARY]
#
# For $FUZZ_SECONDS (default 10), beginning with the files in CORPUS, which stays as it is. An input that breaks the
# target stays in the current folder as found-TARGET-...; its place is tests/fuzz/crashes/TARGET/, where it is replayed
# for ever. With $FUZZ_KEEP=FOLDER, what reaches new code is kept there.

set -euo pipefail

target=$1 corpus=$2 max_len=$3 dictionary=${4:-}
seconds=${FUZZ_SECONDS:-10}
name=$(basename "$target")
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

options=(-max_total_time="$seconds" -max_len="$max_len" -timeout=20 -rss_limit_mb=2048
    -artifact_prefix="found-$name-" -print_final_stats=1 -verbosity=0)
[ -z "$dictionary" ] || options+=(-dict="$dictionary")
timeout $((seconds + 120)) "$target" "${options[@]}" "${FUZZ_KEEP:-$work}" "$corpus"
