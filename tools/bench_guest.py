#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""
bench_guest.py - what a recorded working set does for a real Linux guest

    bench_guest.py --thaw FILE --preload FILE [--rounds N] [--json FILE]

Boots a guest in QEMU once, takes a snapshot, and restores it again and again: once to record its working set, then in
shuffled rounds with and without it. Two times are taken from the command to resume: to the first answer on the guest's
console, and to the end of a small piece of work (checksums of 12 MiB of files, a sort). Faults are the pager's count
when that work is done. Exit status 77: what a guest needs is not here.
"""

import argparse
import json
import pathlib
import platform
import random
import shutil
import statistics
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "tests/lib"), str(ROOT / "tools")]

import guest  # noqa: E402
import guest_image  # noqa: E402

MIB = 1024 * 1024
WORK = "md5sum -c /tmp/sums && sort -r /tmp/list | md5sum"
AIM = {"what": "demand faults with the working set / without", "unit": "x", "limit": 0.05, "at_least": False}
MS = "{:.0f}"


def take_snapshot(image, folder):
    """A guest that has files to be read later, and much else in memory."""
    with guest.boot(image, folder, mem_mib=[256], smp=1) as vm:
        vm.console.run("for i in 1 2 3; do dd if=/dev/urandom of=/tmp/file$i bs=1M count=4 2>/dev/null; done")
        vm.console.run("dd if=/dev/urandom of=/tmp/big bs=1M count=64 2>/dev/null")
        vm.console.run("i=0; while [ $i -lt 20000 ]; do echo $i; i=$((i+1)); done >/tmp/list")
        vm.console.run("md5sum /tmp/file1 /tmp/file2 /tmp/file3 >/tmp/sums")
        return guest.take_snapshot(vm, folder)


def may_resume(pager):
    """Wait until the pager has installed what comes before."""
    guest.wait_for(lambda: "may resume" in pager.process.log.read_text(errors="replace"), 60, "the pager is ready")


class Bench:
    """The cases, and their runs."""

    def __init__(self, options, folder, snapshot):
        self.options, self.folder, self.snapshot = options, folder, snapshot
        self.set_path = folder / "guest.ws"
        replay = ["--prefetch", self.set_path]
        self.cases = {
            "demand only, 4 KiB": (["--fault-around", "0"], None),
            "demand only, 64 KiB": ([], None),
            "replay while it runs": (replay, None),
            "replay before resume": ([*replay, "--prefetch-before-resume", "all"], may_resume),
        }
        self.runs = {name: [] for name in self.cases}

    def run(self, arguments, before_resume=None):
        """One restore; its figures."""
        argv = guest.thaw_argv(self.options.thaw, *arguments)
        folder = self.folder / "run"
        with guest.restore(self.snapshot, folder, argv, self.options.preload, before_resume=before_resume) as restored:
            restored.vm.console.run(WORK)
            worked = time.monotonic() - restored.resumed
            counters = restored.pager.stats()["counters"]
            figures = {
                "answer_ns": restored.seconds_from_resume * 1e9,
                "work_ns": worked * 1e9,
                "start_to_answer_ns": restored.seconds_to_answer * 1e9,
                "faults": counters["faults"],
                "pages_installed": counters["pages_installed"],
                "pages_ahead": counters["pages_ahead"],
            }
        shutil.rmtree(folder)
        return figures

    def measure(self):
        """Record once, then all cases, round by round."""
        self.run(["--fault-around", "0", "--record", self.set_path])
        shuffler = random.Random(1)
        for _ in range(self.options.rounds):
            for name in shuffler.sample(list(self.cases), len(self.cases)):
                self.runs[name].append(self.run(*self.cases[name]))

    def aims(self):
        """The one aim, for each way to replay against each way without."""
        done = []
        for replay in ("replay while it runs", "replay before resume"):
            for demand in ("demand only, 4 KiB", "demand only, 64 KiB"):
                pairs = zip(self.runs[replay], self.runs[demand])
                ratios = [r["faults"] / max(1, d["faults"]) for r, d in pairs]
                figure = median(self.runs[replay])["faults"] / max(1, median(self.runs[demand])["faults"])
                met = [ratio <= AIM["limit"] for ratio in ratios]
                verdict = "met" if all(met) else "unsettled" if any(met) else "missed"
                done.append({**AIM, "what": f"faults: {replay} / {demand}", "figure": figure, "low": min(ratios),
                             "high": max(ratios), "verdict": verdict})
        return done

    def results(self):
        """The results, in the form of `thaw bench ahead --json`."""
        cases = [{"case": name, "median": median(runs), "runs": runs} for name, runs in self.runs.items()]
        return {"bench": "ahead", "name": "guest", "version": "", "host": {"kernel": platform.release()},
                "options": {"rounds": self.options.rounds}, "note": "QEMU without KVM (TCG)", "cases": cases,
                "aims": self.aims()}


def median(runs):
    return {figure: statistics.median(run[figure] for run in runs) for figure in runs[0]}


def show(results):
    """The table."""
    print(f"a Linux guest of 256 MiB in QEMU (TCG), {results['options']['rounds']} rounds; from the command to resume\n")
    print(f"{'':24}{'answer ms':>12}{'work ms':>12}{'faults':>10}{'pages':>10}{'ahead':>10}")
    for case in results["cases"]:
        m = case["median"]
        print(f"{case['case']:24}{m['answer_ns'] / 1e6:12.0f}{m['work_ns'] / 1e6:12.0f}{m['faults']:10.0f}"
              f"{m['pages_installed']:10.0f}{m['pages_ahead']:10.0f}")
    print("\naims (in brackets: single rounds)")
    for aim in results["aims"]:
        print(f"  {aim['what']:56}{aim['figure']:8.3f} ({aim['low']:.3f} to {aim['high']:.3f}) {aim['unit']}, "
              f"aim <= {aim['limit']}: {aim['verdict']}")


def parse_arguments(argv):
    parser = argparse.ArgumentParser(description="measure the restore of a real guest")
    parser.add_argument("--thaw", default="build/src/cli/thaw", type=pathlib.Path)
    parser.add_argument("--preload", default="build/libthaw-preload.so", type=pathlib.Path)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=pathlib.Path)
    options = parser.parse_args(argv)
    options.thaw, options.preload = options.thaw.resolve(), options.preload.resolve()
    return options


def main(argv):
    options = parse_arguments(argv)
    if not shutil.which("qemu-system-x86_64"):
        print("bench_guest.py: no qemu-system-x86_64: install qemu-system-x86", file=sys.stderr)
        return 77
    try:
        image = guest_image.guest_image()
    except guest_image.GuestImageError as e:
        print(f"bench_guest.py: no guest image: {e}", file=sys.stderr)
        return 77
    with tempfile.TemporaryDirectory(prefix="thaw-") as name:
        folder = pathlib.Path(name)
        bench = Bench(options, folder, take_snapshot(image, folder))
        bench.measure()
        results = bench.results()
    show(results)
    if options.json:
        options.json.write_text(json.dumps(results, indent=1), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
