#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# variant.sh - the ways in which Thaw is built, and which suites run in each
#
#     tools/variant.sh build VARIANT
#     tools/variant.sh test VARIANT [SUITE]...       no suite: the variant's own
#     tools/variant.sh dir VARIANT
#
#     gcc    gcc, optimised, with assertions: what `make` builds
#     asan   clang with AddressSanitizer, UndefinedBehaviorSanitizer and the fuzz targets
#     tsan   clang with ThreadSanitizer
#     cov    gcc, counting the lines that run
#
# A test run's log is meson-logs/check-SUITE....json in the variant's build folder. Run from the root of the tree.

set -euo pipefail

fail()
{
    echo "variant: $*" >&2
    exit 2
}

[ $# -ge 2 ] || fail "usage: variant.sh build|test|dir gcc|asan|tsan|cov [SUITE]..."
task=$1 variant=$2
shift 2

compiler=clang
sanitizer=
case $variant in
gcc)
    dir=build compiler=gcc
    options=()
    suites=(unit trace model process stress kvm guest)
    ;;
asan)
    dir=build-asan sanitizer=address
    # Every object carries the fuzzer's counters, so that the fuzz targets see where they go.
    options=("-Db_sanitize=address,undefined" -Db_lundef=false -Dfuzz=true -Dc_args=-fsanitize=fuzzer-no-link)
    suites=(unit trace process stress kvm fuzz)
    ;;
tsan)
    dir=build-tsan sanitizer=thread
    options=(-Db_sanitize=thread -Db_lundef=false)
    suites=(unit process stress)
    ;;
cov)
    dir=build-cov compiler=gcc
    # Threads count the same lines: without atomic counters some get lost, and some turn negative, which gcovr refuses.
    options=(-Db_coverage=true -Dbuildtype=debug -Dc_args=-fprofile-update=atomic)
    suites=(unit trace)
    ;;
*) fail "no variant '$variant'" ;;
esac
[ "$variant" = gcc ] || options+=(-Dman=disabled)

build()
{
    if [ ! -e $dir/build.ninja ]; then
        command -v meson >/dev/null || fail "meson is not installed; tools/setup.sh build installs what is missing"
        CC=$compiler meson setup "${options[@]}" $dir ||
            fail "cannot configure $dir; tools/setup.sh build check installs what is missing"
    fi
    if [ -t 1 ]; then
        ninja -C $dir
    else
        ninja -C $dir --quiet
    fi
    # What earlier runs counted is about earlier programs.
    [ "$variant" != cov ] || find $dir -name '*.gcda' -delete
}

# clang 14's sanitizers want parts of the address space that a kernel with much randomisation gives away.
run()
{
    if [ -n "$sanitizer" ] && setarch -R true 2>/dev/null; then
        setarch -R "$@"
    else
        "$@"
    fi
}

run_tests()
{
    local suite log=check
    local -a chosen=()
    local processes=$(($(nproc) + 1)) # many tests wait for most of their time
    [ $# -gt 0 ] || set -- "${suites[@]}"
    for suite in "$@"; do
        chosen+=(--suite "$suite")
        log+=-$suite
        case $suite in
        fuzz | stress) processes=$(nproc) ;; # busy for a given time: a processor each
        esac
    done
    # For tests that cannot run in a sanitized process, or would take too long there.
    export THAW_SANITIZER=$sanitizer
    export ASAN_OPTIONS=${ASAN_OPTIONS:-detect_stack_use_after_return=1}
    export UBSAN_OPTIONS=${UBSAN_OPTIONS:-halt_on_error=1:print_stacktrace=1}
    export TSAN_OPTIONS=${TSAN_OPTIONS:-halt_on_error=1:second_deadlock_stack=1}
    run meson test -C $dir --no-rebuild --num-processes "$processes" --logbase "$log" --print-errorlogs "${chosen[@]}"
}

case $task in
build) build ;;
test) run_tests "$@" ;;
dir) echo $dir ;;
*) fail "no task '$task'" ;;
esac
