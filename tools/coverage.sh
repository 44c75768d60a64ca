#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# coverage.sh - which lines the unit and trace tests ran; fails below the floors
#
# Reads what the cov variant's tests left behind. Writes coverage.txt and coverage/index.html into its build folder.
# Run from the root of the tree.

set -euo pipefail

floor=90 # percent of lines, in each of the layers below
layers=(core source)

dir=$(tools/variant.sh dir cov)
data=$dir/coverage.json

mkdir -p "$dir/coverage"
# Lists (.def) are code where they are expanded; there they are counted.
gcovr --root . --filter src/ --exclude '.*\.def$' --json "$data" "$dir" 2>"$dir/gcovr.log" || {
    cat "$dir/gcovr.log"
    exit 1
}
gcovr --root . --add-tracefile "$data" --txt "$dir/coverage.txt" --html-details "$dir/coverage/index.html"
cat "$dir/coverage.txt"

status=0
for layer in "${layers[@]}"; do
    percent=$(gcovr --root . --add-tracefile "$data" --filter "src/$layer/" --json-summary |
        /usr/bin/python3 -c 'import json, sys; print(json.load(sys.stdin)["line_percent"])')
    verdict=good
    if awk -v p="$percent" -v f=$floor 'BEGIN { exit !(p < f) }'; then
        verdict="below the floor of $floor %"
        status=1
    fi
    echo "coverage: src/$layer: $percent % of lines, $verdict"
done
echo "coverage: details in $dir/coverage/index.html"
exit $status
