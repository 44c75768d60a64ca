#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""run_pytest.py - run pytest as one Meson test, with an answer that Meson and tools/summary.py understand

    run_pytest.py --name NAME FILE... [-- PYTEST-ARGUMENT...]

Writes NAME.xml (JUnit) to $THAW_JUNIT_DIR, else to meson-logs/pytest under the current folder, which is the build
folder when Meson runs a test. Exit status: pytest's, with two exceptions: no test collected is a failure (1), and
all tests skipped is Meson's skip (77).
"""

import argparse
import os
import pathlib
import subprocess
import sys
import xml.etree.ElementTree as ElementTree

PYTHON = "/usr/bin/python3"
SKIPPED = 77
NO_TESTS = 5


def parse_arguments(argv):
    parser = argparse.ArgumentParser(description="run pytest as one Meson test")
    parser.add_argument("--name", required=True, help="name of the result file")
    parser.add_argument("files", nargs="+", help="test files or folders")
    ours, theirs = argv, []
    if "--" in argv:
        at = argv.index("--")
        ours, theirs = argv[:at], argv[at + 1:]
    return parser.parse_args(ours), theirs


def all_skipped(report):
    cases = list(ElementTree.parse(report).getroot().iter("testcase"))
    return bool(cases) and all(case.find("skipped") is not None for case in cases)


def main(argv):
    options, extra = parse_arguments(argv)
    folder = pathlib.Path(os.environ.get("THAW_JUNIT_DIR", "meson-logs/pytest"))
    folder.mkdir(parents=True, exist_ok=True)
    report = folder / (options.name + ".xml")
    report.unlink(missing_ok=True)
    command = [PYTHON, "-B", "-m", "pytest", "-q", "-rs", "-p", "no:cacheprovider",
               "--junitxml", str(report.resolve()), *extra, *options.files]
    sys.stdout.flush()
    status = subprocess.run(command, stdin=subprocess.DEVNULL, check=False).returncode
    if status == NO_TESTS:
        print("run_pytest: no tests found in", *options.files)
        return 1
    if status == 0 and all_skipped(report):
        return SKIPPED
    return status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
