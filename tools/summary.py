#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""summary.py - what became of a `make check`

    summary.py LEDGER [--allowed FILE] [--line]

LEDGER is what tools/check.sh wrote: one JSON object a line, {"step", "status", "seconds", "log"}, where log names the
JSON log of a Meson test run or is empty, and at the end {"end": true}. A step with a log counts as the tests in it; a
step without one counts as one test. Inside a log, TAP and pytest tests count one by one, any other test as one.

Prints a table of the steps, each failed test, and each skipped test with its reason. With --line the last line is
`N passed, N failed, N skipped`. Each skip, written as "test (reason)", must match a line of the allowed list
(GLOB | WHY). Exit status: 0 when nothing failed and every skip is allowed, else 1.
"""

import argparse
import fnmatch
import json
import pathlib
import re
import sys
import xml.etree.ElementTree as ElementTree

PASSED, FAILED, SKIPPED = "passed", "failed", "skipped"

TAP_PLAN = re.compile(r"^1\.\.\d+", re.MULTILINE)
TAP_LINE = re.compile(r"^(not )?ok\b\s*\d*\s*(?:-\s*)?(.*)$")
TAP_DIRECTIVE = re.compile(r"\s*#\s*(SKIP|TODO)\S*\s*(.*)$", re.IGNORECASE)


class Result:
    """One test's end: its name, PASSED, FAILED or SKIPPED, and why."""

    def __init__(self, name, state, reason=""):
        self.name = name
        self.state = state
        self.reason = reason


def tap_results(name, text):
    """The results in TAP output; an empty list if it is no TAP."""
    results = []
    if not TAP_PLAN.search(text):
        return results
    for line in text.splitlines():
        match = TAP_LINE.match(line)
        if not match:
            continue
        what, reason = match.group(2), ""
        state = FAILED if match.group(1) else PASSED
        directive = TAP_DIRECTIVE.search(what)
        if directive:
            what, reason = what[:directive.start()], directive.group(2)
            state = SKIPPED
        results.append(Result(f"{name}: {what or reason}", state, reason))
    return results


def pytest_results(name, report):
    """The results in a JUnit file."""
    results = []
    for case in ElementTree.parse(report).getroot().iter("testcase"):
        state, reason = PASSED, ""
        for child in case:
            if child.tag == "skipped":
                state, reason = SKIPPED, child.get("message", "")
            elif child.tag in ("failure", "error"):
                state, reason = FAILED, child.get("message", "")
        results.append(Result(f"{name}: {case.get('name')}", state, reason.split("\n")[0]))
    return results


def junit_file(record, build):
    """The JUnit file of a test that ran through tools/run_pytest.py in this run, or None."""
    command = record.get("command") or []
    if "--name" not in command or not any("run_pytest.py" in word for word in command):
        return None
    name = command[command.index("--name") + 1]
    folder = pathlib.Path((record.get("env") or {}).get("THAW_JUNIT_DIR", "meson-logs/pytest"))
    path = build / folder / (name + ".xml")
    if path.exists() and path.stat().st_mtime >= record["starttime"] - 1:
        return path
    return None


def reason_of(record):
    """One line of a test's output: the first that speaks of an error, else the last."""
    lines = [line.strip() for line in (record.get("stdout") or "").splitlines() if line.strip()]
    errors = [line for line in lines if "error" in line]
    return (errors or lines[-1:] or [""])[0]


def test_results(record, build):
    """The results of one Meson test."""
    name, verdict = record["name"], record["result"]
    report = junit_file(record, build)
    if report:
        results = pytest_results(name, report)
    else:
        results = tap_results(name, record.get("stdout") or "")
    if not results:
        state = {"OK": PASSED, "EXPECTEDFAIL": PASSED, "SKIP": SKIPPED}.get(verdict, FAILED)
        results = [Result(name, state, reason_of(record))]
    elif verdict not in ("OK", "SKIP", "EXPECTEDFAIL") and not any(r.state == FAILED for r in results):
        results.append(Result(name, FAILED, f"ended as {verdict}"))
    return results


def step_results(step):
    """The results of one line of the ledger."""
    results = []
    if step["log"]:
        log = pathlib.Path(step["log"])
        if log.exists():
            for line in log.read_text(encoding="utf-8").splitlines():
                results += test_results(json.loads(line), log.parent.parent)
        failed = any(r.state == FAILED for r in results)
        if (step["status"] != 0 and not failed) or not results:
            results.append(Result(step["step"], FAILED, f"no result, exit status {step['status']}"))
    elif step["status"] == 77:
        results.append(Result(step["step"], SKIPPED, "cannot run here"))
    else:
        state = PASSED if step["status"] == 0 else FAILED
        results.append(Result(step["step"], state, f"exit status {step['status']}"))
    return results


def read_ledger(path):
    """The steps of a ledger; one failed step more if the run was cut off."""
    steps = []
    ended = False
    if path.exists():
        for line in path.read_text(encoding="utf-8").splitlines():
            entry = json.loads(line)
            if entry.get("end"):
                ended = True
            else:
                steps.append(entry)
    if not ended:
        steps.append({"step": "the run was cut off", "status": 1, "seconds": 0, "log": ""})
    return steps


def read_allowed(path):
    """The globs of the skips that are no failure."""
    globs = []
    if path:
        for line in path.read_text(encoding="utf-8").splitlines():
            if line.strip() and not line.startswith("#"):
                globs.append(line.split("|")[0].strip())
    return globs


def count(results, state):
    return sum(1 for r in results if r.state == state)


def print_steps(rows):
    print(f"{'step':<34}{'passed':>8}{'failed':>8}{'skipped':>9}{'seconds':>9}")
    for step, results in rows:
        print(f"{step['step']:<34}{count(results, PASSED):>8}{count(results, FAILED):>8}"
              f"{count(results, SKIPPED):>9}{step['seconds']:>9}")


def main():
    parser = argparse.ArgumentParser(description="what became of a make check")
    parser.add_argument("ledger", type=pathlib.Path)
    parser.add_argument("--allowed", type=pathlib.Path, help="file with the skips that are no failure")
    parser.add_argument("--line", action="store_true", help="end with the one line that counts everything")
    options = parser.parse_args()

    rows = [(step, step_results(step)) for step in read_ledger(options.ledger)]
    results = [(step["step"], r) for step, step_res in rows for r in step_res]
    allowed = read_allowed(options.allowed)
    print_steps(rows)
    unexpected = 0
    for where, r in results:
        if r.state == FAILED:
            print(f"failed: {where}: {r.name} ({r.reason})")
    for where, r in results:
        if r.state == SKIPPED:
            listed = any(fnmatch.fnmatchcase(f"{r.name} ({r.reason})", glob) for glob in allowed)
            unexpected += not listed
            print(f"skipped{'' if listed else ' and not on the list of allowed skips'}: "
                  f"{where}: {r.name} ({r.reason})")
    every = [r for _, r in results]
    n_failed = count(every, FAILED)
    if options.line:
        sys.stdout.flush()
        print(f"{count(every, PASSED)} passed, {n_failed} failed, {count(every, SKIPPED)} skipped")
    return 1 if n_failed or unexpected else 0


if __name__ == "__main__":
    sys.exit(main())
