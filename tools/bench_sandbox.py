#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""
bench_sandbox.py - what the working set of a paused sandbox does for a real Linux guest

    bench_sandbox.py [--thaw FILE] [--rounds N] [--dir DIR] [--light]

Builds a template of a guest in QEMU, makes a sandbox, has it do its work after some resumes, and pauses it. Then, in shuffled rounds, a
fork of it goes on with the working set that its layer has, and one whose layer is the same without a working set. Times are from
the command `thaw resume` on: to the answer to a command, and to the end of the work (24 MiB are summed up, a list is sorted; with
--light there is no work but the command); then how long the next pause takes. Faults and pages are the pager's counts. Exit status 77: what
a guest needs is not here.
"""

import argparse
import os
import pathlib
import random
import statistics
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "tests/lib"), str(ROOT / "tools")]

import guest_image  # noqa: E402
import sandboxlib  # noqa: E402

MEMORY_MIB = 384
PREPARE = ("dd if=/dev/urandom of=/tmp/kept bs=1M count=24 2>/dev/null; md5sum /tmp/kept >/tmp/kept.sum; "
           "ls -R /usr /proc/sys >/tmp/list 2>/dev/null; sort /tmp/list >/tmp/sorted")
WORK = "md5sum -c /tmp/kept.sum && sort /tmp/list | md5sum"
RESUMES = 18  # before it is measured: what was only touched in the beginning is forgotten by then
ROWS = [("to the answer, ms", "answer_ms"), ("to the end of the work, ms", "work_ms"), ("faults to the answer", "faults"),
        ("faults in all", "work_faults"), ("pages installed in all", "pages"), ("the next pause, ms", "pause_ms")]


def goes_on(node, name, work):
    """Resume it, have it answer and work, pause it. Return: what was measured."""
    begin = time.monotonic()
    node.ok("resume", name, "--wait")
    node.exec(name, "echo here")
    answer = time.monotonic()
    faults = sandboxlib.counters(node, name)["faults"]
    counted = time.monotonic()
    node.exec(name, work)
    end = time.monotonic()
    counters = sandboxlib.counters(node, name)
    pausing = time.monotonic()
    node.ok("pause", name)
    return {"answer_ms": (answer - begin) * 1e3, "work_ms": (end - counted + answer - begin) * 1e3, "faults": faults,
            "work_faults": counters["faults"], "pages": counters["pages_installed"],
            "pause_ms": (time.monotonic() - pausing) * 1e3}


def measure(node, rounds, work):
    """{case: [what was measured]}, and how many pages the working set has."""
    cases, n_hot = {"with": [], "without": []}, 0
    for _ in range(rounds):
        for case in random.sample(list(cases), 2):
            node.ok("fork", "a", "--name", case, "--paused")
            if case == "without":
                n_hot = sandboxlib.take_working_set_out(node, case)
            cases[case].append(goes_on(node, case, work))
            node.ok("rm", case)
    return cases, n_hot


def main():
    parser = argparse.ArgumentParser(description="what the working set of a paused sandbox does for a guest")
    parser.add_argument("--thaw", type=pathlib.Path, default=ROOT / "build/thaw")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--dir", default=os.environ.get("TMPDIR") or "/var/tmp")
    parser.add_argument("--light", action="store_true")
    arguments = parser.parse_args()
    os.environ["THAW"] = str(arguments.thaw.resolve())
    try:
        image = guest_image.guest_image()
    except guest_image.GuestImageError as e:
        print(f"bench_sandbox: no guest: {e}")
        sys.exit(77)
    work = "true" if arguments.light else WORK
    with tempfile.TemporaryDirectory(prefix="thaw-", dir=arguments.dir) as folder:
        node = sandboxlib.Node(pathlib.Path(folder) / "node")
        try:
            node.ok("template", "build", "guest", "--vmm", "qemu", "--accel", "tcg", "--kernel", image.kernel, "--initrd",
                    image.initrd, "--memory", MEMORY_MIB)
            node.ok("run", "guest", "--name", "a", "--wait")
            node.exec("a", PREPARE)
            node.ok("pause", "a")
            for _ in range(RESUMES):
                goes_on(node, "a", work)
            cases, n_hot = measure(node, arguments.rounds, work)
        finally:
            node.close()
    print(f"working set: {n_hot} pages; medians of {arguments.rounds} rounds\n\n| | without | with | ratio |\n|---|---:|---:|---:|")
    for text, key in ROWS:
        without, with_it = (statistics.median(one[key] for one in cases[case]) for case in ("without", "with"))
        print(f"| {text} | {without:.0f} | {with_it:.0f} | {with_it / without:.2f} |")


if __name__ == "__main__":
    main()
