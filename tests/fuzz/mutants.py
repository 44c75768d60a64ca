#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""mutants.py - run the engines that mutate.py spoilt; each must be found out

    mutants.py MUTATE.PY MUTANT...      the mutants in the order of `mutate.py --list`

TAP on stdout, one test a mistake.
"""

import pathlib
import subprocess
import sys


def main(argv):
    mutate, mutants = argv[0], argv[1:]
    listed = subprocess.run([sys.executable, mutate, "--list"], check=True, capture_output=True, text=True)
    names = [line.partition(":")[2] for line in listed.stdout.splitlines()]
    print(f"1..{len(names)}")
    worst = 0
    for number, (name, mutant) in enumerate(zip(names, mutants, strict=True), 1):
        # A relative name without a folder would be looked up in $PATH.
        run = subprocess.run([pathlib.Path(mutant).resolve()], capture_output=True, text=True, timeout=120, check=False)
        found = run.returncode == 0
        print(f"# {run.stdout.strip()}")
        print(f"{'ok' if found else 'not ok'} {number} - it {name}", flush=True)
        worst = worst if found else 1
    return worst


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
