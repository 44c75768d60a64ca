#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# setup.sh - install what is missing on this Debian 12 machine
#
#     tools/setup.sh [--dry-run] [GROUP]...      groups: see tools/packages.txt; none: build
#
# Asks dpkg which packages of the groups are not there and installs exactly those with apt-get, through sudo when not
# root. Where nothing is missing it changes nothing and needs neither network nor rights.

set -euo pipefail
export LC_ALL=C

list=$(dirname "$0")/packages.txt

fail()
{
    echo "setup: $*" >&2
    exit 1
}

# The packages of the groups given, without repetition.
packages_of()
{
    local group
    for group in "$@"; do
        awk -v g="$group" '$1 == g { print $2; n++ } END { exit n == 0 }' "$list" ||
            fail "no group '$group' in $list"
    done | sort -u
}

is_installed()
{
    [ "$(dpkg-query -W -f '${db:Status-Status}' "$1" 2>/dev/null)" = installed ]
}

# Runs apt-get quietly; its output is shown only when it fails.
apt()
{
    local out last
    local -a as_root=()
    [ "$(id -u)" = 0 ] || as_root=(sudo)
    if ! out=$("${as_root[@]}" env DEBIAN_FRONTEND=noninteractive \
        apt-get -q -y -o DPkg::Lock::Timeout=120 "$@" 2>&1 </dev/null); then
        printf '%s\n' "$out" >&2
        last=$(printf '%s\n' "$out" | grep '^E:' | head -n 1)
        fail "apt-get $1 failed: ${last:-see above}"
    fi
}

dry_run=no
groups=()
for arg in "$@"; do
    case $arg in
    --dry-run) dry_run=yes ;;
    -*) fail "unknown option '$arg'" ;;
    *) groups+=("$arg") ;;
    esac
done
[ ${#groups[@]} -gt 0 ] || groups=(build)

for tool in dpkg-query apt-get; do
    command -v $tool >/dev/null ||
        fail "no $tool here: not a Debian system; install what $list names by other means"
done

wanted=$(packages_of "${groups[@]}")
missing=()
for package in $wanted; do
    is_installed "$package" || missing+=("$package")
done
[ ${#missing[@]} -gt 0 ] || exit 0

echo "setup: installing ${missing[*]}"
[ $dry_run = no ] || exit 0
[ "$(id -u)" = 0 ] || command -v sudo >/dev/null ||
    fail "must be root or have sudo to install: ${missing[*]}"
apt update
apt install --no-install-recommends "${missing[@]}"
