#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# lint.sh - the checks that read the source and do not run it
#
#     tools/lint.sh CHECK [BUILD]     run from the root of the tree; BUILD: a configured build folder
#
#     format    C files are laid out as .clang-format says
#     tidy      clang-tidy, see .clang-tidy (needs BUILD)
#     cppcheck  a second opinion
#     spelling  codespell, see .codespellrc
#     shell     shellcheck over the scripts
#     licence   every source names its licence in SPDX form
#     paths     no path of a developer's machine is in the tree
#
# Exit status 0: nothing found; 1: something; 77: the tool is not installed.

set -euo pipefail
export LC_ALL=C.UTF-8

check=$1 build=${2:-}

need()
{
    command -v "$1" >/dev/null && return
    echo "$1 is not installed; tools/setup.sh lint installs it"
    exit 77
}

c_files()
{
    find src include tests examples -name '*.[ch]' | sort
}

# Everything that a person wrote: no build folders, no version control.
all_files()
{
    find . \( -name .git -o -name 'build*' -o -name __pycache__ -o -name .pytest_cache \) -prune -o -type f -print | sort
}

scripts()
{
    all_files | while read -r f; do
        case $(head -n 1 "$f" | tr -d '\0') in
        '#!'*/bash* | '#!'*/sh*) echo "$f" ;;
        esac
    done
}

case $check in
format)
    need clang-format
    wrong=$({ c_files | xargs clang-format --dry-run -Werror 2>&1 || true; } |
        sed -n 's/^\([^: ]*\):[0-9]*:[0-9]*: error:.*/\1/p' | sort -u)
    if [ -n "$wrong" ]; then
        printf '%s\n' "$wrong" 'are not laid out as .clang-format says; make format does it'
        exit 1
    fi
    ;;
tidy)
    need clang-tidy
    # The product's files that this build compiles: their flags are known.
    /usr/bin/python3 -c '
import json, os, sys
entries = json.load(open(sys.argv[1] + "/compile_commands.json"))
files = {os.path.relpath(os.path.join(e["directory"], e["file"])) for e in entries}
print("\n".join(sorted(f for f in files if f.startswith(("src/", "examples/")))))
' "$build" |
        xargs -P 2 -n 2 clang-tidy --quiet --warnings-as-errors='*' -p "$build" 2>&1 |
        { grep -v -E '^[0-9]+ warnings generated' || true; }
    ;;
cppcheck)
    need cppcheck
    cppcheck --quiet -j 2 --std=c11 --language=c --error-exitcode=1 --inline-suppr \
        --enable=warning,performance,portability --suppressions-list=tools/cppcheck.txt \
        -I src -I include -D_GNU_SOURCE -DTHAW_VERSION='"0"' src examples tests
    ;;
spelling)
    need codespell
    all_files | xargs codespell
    ;;
shell)
    need shellcheck
    scripts | xargs shellcheck
    ;;
licence)
    missing=0
    while read -r f; do
        if ! head -n 3 "$f" | grep -q 'SPDX-License-Identifier: Apache-2.0'; then
            echo "$f: no SPDX line within its first three lines"
            missing=1
        fi
    done < <({
        all_files | grep -E '\.(c|h|def|py|sh|pml)$'
        scripts
    } | sort -u)
    exit $missing
    ;;
paths)
    if all_files | xargs grep -n -I -E '(^|[^A-Za-z0-9_.}])/(home|root|work|Users)/' ; then
        echo 'paths of one machine have no place in the tree'
        exit 1
    fi
    ;;
*)
    echo "lint: no check '$check'" >&2
    exit 2
    ;;
esac
