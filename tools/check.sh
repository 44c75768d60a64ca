#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# check.sh - all that a change must pass: two compilers, two sanitizers, every suite, lint, coverage
#
#     tools/check.sh LEDGER          run from the root of the tree
#
# Goes on after a failure, so that one run tells everything. The end of each step is written to LEDGER, which
# tools/summary.py reads. The exit status is 0 when that of every step was.

set -uo pipefail

ledger=$1
mkdir -p "$(dirname "$ledger")"
: >"$ledger"
worst=0

# step NAME LOG COMMAND...: runs the command; LOG is the Meson log that it writes, or "".
step()
{
    local name=$1 log=$2 start=$SECONDS status=0
    shift 2
    printf '\n=== %s\n' "$name"
    [ -z "$log" ] || rm -f "$log"
    "$@" </dev/null || status=$?
    [ $status -eq 0 ] || worst=1
    printf '{"step": "%s", "status": %d, "seconds": %d, "log": "%s"}\n' \
        "$name" $status $((SECONDS - start)) "$log" >>"$ledger"
    return $status
}

build()
{
    step "build ($1)" '' tools/variant.sh build "$1"
}

# suite VARIANT NAME...: runs the suites, each as a step of its own; those of one "NAME NAME" side by side.
suite()
{
    local variant=$1 names log
    local -a each
    shift
    for names in "$@"; do
        read -ra each <<<"$names"
        log=$(tools/variant.sh dir "$variant")/meson-logs/check-${names// /-}.json
        step "$names ($variant)" "$log" tools/variant.sh test "$variant" "${each[@]}"
    done
}

build gcc && suite gcc static 'unit trace' model process stress 'kvm guest'
build asan && suite asan 'unit trace' process stress 'kvm fuzz'
build tsan && suite tsan unit process stress
build cov && suite cov 'unit trace' && step 'coverage' '' tools/coverage.sh

echo '{"end": true}' >>"$ledger"
exit $worst
