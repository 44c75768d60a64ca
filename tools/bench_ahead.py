#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""
bench_ahead.py - what it is worth to install pages ahead of the guest, and what that costs the guest meanwhile

    bench_ahead.py [--thaw FILE] [--vmm FILE] [--out DIR] [--rounds N] [--size MIB] [--quiet PERCENT] [NAME...]

Each measurement runs its cases in turn, in another order each round, and says medians and their ratios; every figure of
every round is in DIR/ahead.json, the table in DIR/ahead.txt, the picture in DIR/ahead.svg. A round begins when the
machine's processors are idle but for --quiet per cent (default 10; waits 60 s at most, and notes how busy they were).

    bulk        256 MiB, all of it: UFFDIO_COPY in a loop, --prefetch, --prefetch-before-resume with one and two threads
    scattered   24 MiB of 256 in runs of 1 to 5 pages: time until the guest has touched them, warm and cold file
    beside      faults of the guest, and its discards, while --fill is under way
    threads     faults a second of 8 threads
    huge        the same working set with pages of 4 KiB and of 2 MiB
    discards    time of madvise() with and without a pager, 4 KiB to 64 MiB
    guest       a Linux guest in QEMU (TCG): to its first answer and to the end of a small workload, and its faults

Aims are from the machine itself: a ratio to what was measured beside it.
"""

import argparse
import contextlib
import json
import os
import pathlib
import random
import re
import shutil
import statistics
import struct
import subprocess
import sys
import tempfile
import time

import bench_svg

PAGE = 4096
MIB = 1 << 20
HUGE = 2 * MIB
DEADLINE = 60
SEED = 20


def busy_share(seconds=0.2):
    """How busy the processors are, 0 to 1."""
    def read():
        fields = [int(word) for word in pathlib.Path("/proc/stat").read_text(encoding="ascii").split("\n", 1)[0].split()[1:]]
        return sum(fields), fields[3] + fields[4]
    total, idle = read()
    time.sleep(seconds)
    total_then, idle_then = read()
    return 1 - (idle_then - idle) / max(1, total_then - total)


class Vmm:
    """ahead_vmm: see its head."""

    def __init__(self, bench, size, huge=False):
        self.child = subprocess.Popen([bench.vmm, str(size), *(["2M"] if huge else [])], stdin=subprocess.PIPE,
                                      stdout=subprocess.PIPE, text=True)
        self.answer()

    def answer(self):
        """The next line, understood."""
        line = self.child.stdout.readline()
        if not line:
            raise SystemExit("bench_ahead.py: the measuring program ended")
        return json.loads(line)

    def start(self, *words):
        """Give an order; its answer is still to come."""
        self.child.stdin.write(" ".join(map(str, words)) + "\n")
        self.child.stdin.flush()

    def order(self, *words):
        """Give an order. Return: its answer."""
        self.start(*words)
        return self.answer()

    def close(self):
        """End it; its pager follows."""
        self.child.stdin.close()
        self.child.wait(DEADLINE)


class Pager:
    """thaw serve."""

    def __init__(self, bench, memory, *args, cpus=None):
        self.folder = pathlib.Path(tempfile.mkdtemp(dir=bench.folder))
        self.socket = self.folder / "s"
        self.stats_file = self.folder / "stats"
        self.reader, writer = os.pipe()
        self.log = self.folder / "log"
        with open(self.log, "wb") as log:
            self.child = subprocess.Popen(
                [*(["taskset", "-c", cpus] if cpus else []), bench.thaw, "serve", "--socket", self.socket, "--memory",
                 memory, "--state", self.folder / "state", "--stats", self.stats_file, "--resume-fd", str(writer),
                 *map(str, args)], stderr=log, stdout=log, pass_fds=[writer])
        os.close(writer)
        self.wait(self.socket.exists, "listen")

    def wait(self, condition, what):
        """Poll until something is true."""
        end = time.monotonic() + DEADLINE
        while not condition():
            if time.monotonic() > end or self.child.poll() is not None:
                raise SystemExit(f"bench_ahead.py: the pager does not {what}: {self.log.read_text()}")
            time.sleep(0.0005)

    def may_resume(self):
        """Wait until the VM may go on."""
        if os.read(self.reader, 16) != b"resume\n":
            raise SystemExit(f"bench_ahead.py: the pager ended: {self.log.read_text()}")

    def installed_us(self, what="installed ahead"):
        """Wait until a plan is over. Return: how long it took."""
        found = None

        def said():
            nonlocal found
            found = re.search(rf'msg="{what}" .*us=(\d+)', self.log.read_text())
            return found
        self.wait(said, "come to the end of its plan")
        return int(found.group(1))

    def stats(self):
        """After its end: the statistics."""
        self.child.wait(DEADLINE)
        os.close(self.reader)
        return json.loads(self.stats_file.read_text())


class Bench:
    """Files, and the order of things."""

    def __init__(self, options, folder):
        self.thaw, self.vmm = options.thaw, options.vmm
        self.rounds, self.size, self.quiet = options.rounds, options.size * MIB, options.quiet / 100
        self.folder = pathlib.Path(folder)
        self.disk = pathlib.Path(tempfile.mkdtemp(prefix="thaw-bench-", dir=options.disk))
        self.random = random.Random(SEED)
        self.results = []

    def file(self, where):
        """A memory file full of bytes that are not zero."""
        path = (self.disk if where == "disk" else self.folder) / "memory"
        if not path.exists():
            block = bytes(range(1, 256)) * (MIB // 255 + 1)
            with open(path, "wb") as out:
                for _ in range(self.size // MIB):
                    out.write(block[:MIB])
                os.fsync(out.fileno())
        return path

    def list_file(self, name, pages):
        """A list of pages for the VMM."""
        path = self.folder / name
        path.write_bytes(struct.pack(f"<{len(pages)}Q", *pages))
        return path

    def scattered(self):
        """Pages of a working set in runs of 1 to 5, in the order of their touches; a tenth of the memory."""
        dice = random.Random(SEED)
        want, pages, taken = self.size // PAGE * 24 // 256, [], set()
        while len(pages) < want:
            first, n = dice.randrange(self.size // PAGE - 5), dice.choice([1, 2, 2, 3, 3, 5])
            run = [page for page in range(first, first + n) if page not in taken]
            taken.update(run)
            pages += run
        return pages[:want]

    def working_set(self, name, memory, pages):
        """Recorded, as users would."""
        path = self.folder / f"{name}.ws"
        if not path.exists():
            with contextlib.closing(Vmm(self, self.size)) as vmm:
                pager = Pager(self, memory, "--record", path)
                vmm.order("attach", pager.socket)
                vmm.order("touch", self.list_file(name, pages))
            pager.stats()
        return path

    def run(self, name, cases, figures):
        """cases: name: function that measures once. Return: name: medians. figures: what is to be told of each."""
        rounds = {case: [] for case in cases}
        busy = []
        for _ in range(self.rounds):
            order = list(cases)
            self.random.shuffle(order)
            for case in order:
                end = time.monotonic() + 60
                share = busy_share()
                while share > self.quiet and time.monotonic() < end:
                    share = busy_share()
                busy.append(share)
                rounds[case].append(cases[case]())
                print(f"  {name}: {case}", file=sys.stderr)
        medians = {case: {key: statistics.median(one[key] for one in values) for key in values[0]}
                   for case, values in rounds.items()}
        self.results.append({"name": name, "figures": figures, "rounds": rounds, "median": medians,
                             "busy": max(busy), "aims": []})
        return medians

    def aim(self, text, value, bound, at_least):
        """An aim of the measurement that ran last."""
        self.results[-1]["aims"].append({"text": text, "value": round(value, 3), "bound": bound, "at_least": at_least,
                                         "met": value >= bound if at_least else value <= bound})


def drop(path):
    """Out of the page cache."""
    fd = os.open(path, os.O_RDONLY)
    os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
    os.close(fd)


# ---- the measurements ----


def bulk(bench):
    """Installing everything."""
    memory = bench.file("memory")
    pages = list(range(bench.size // PAGE))
    every = bench.working_set("every", memory, pages)

    def raw(chunk, threads):
        def measure():
            with contextlib.closing(Vmm(bench, bench.size)) as vmm:
                return {"us": vmm.order("raw", memory, chunk, threads)["total_ns"] / 1e3}
        return measure

    def thaw(*args, cpus=None, what="installed ahead"):
        def measure():
            with contextlib.closing(Vmm(bench, bench.size)) as vmm:
                pager = Pager(bench, memory, *args, cpus=cpus)
                vmm.order("attach", pager.socket)
                result = {"us": pager.installed_us(what)}
            pager.stats()
            return result
        return measure

    before = ["--prefetch", every, "--prefetch-before-resume", "all"]
    cases = {f"UFFDIO_COPY of {chunk // 1024}K": raw(chunk, 1) for chunk in (16 << 10, 64 << 10, 2 << 20)}
    cases |= {
        "UFFDIO_COPY of 64K, two threads": raw(64 << 10, 2),
        "--prefetch": thaw("--prefetch", every),
        "--fill": thaw("--fill"),
        "before resume, one thread": thaw(*before, cpus="0", what="may resume"),
        "before resume, two threads": thaw(*before, what="may resume"),
    }
    median = bench.run("bulk", cases, {"us": "time"})
    for case in median.values():
        case["gib_s"] = bench.size / (1 << 30) / (case["us"] / 1e6)
    best = min(median[case]["us"] for case in median if case.startswith("UFFDIO_COPY") and "two" not in case)
    bench.aim("--prefetch: share of the best UFFDIO_COPY loop", best / median["--prefetch"]["us"], 0.9, True)
    bench.aim("before resume: two threads to one", median["before resume, one thread"]["us"] /
              median["before resume, two threads"]["us"], 1.6, True)


def scattered(bench):
    """A working set in pieces."""
    pages = bench.scattered()
    touches = bench.list_file("scattered", pages)

    def private(path, cold):
        def measure():
            with contextlib.closing(Vmm(bench, bench.size)) as vmm:
                if cold:
                    drop(path)
                vmm.order("private", path)
                return {"us": vmm.order("touch", touches)["total_ns"] / 1e3, "before_us": 0, "faults": 0}
        return measure

    def thaw(path, cold, *args):
        def measure():
            with contextlib.closing(Vmm(bench, bench.size)) as vmm:
                if cold:
                    drop(path)
                pager = Pager(bench, path, *args)
                begin = time.monotonic()
                vmm.order("attach", pager.socket)
                pager.may_resume()
                before = time.monotonic() - begin
                result = {"us": vmm.order("touch", touches)["total_ns"] / 1e3, "before_us": before * 1e6}
            return result | {"faults": pager.stats()["counters"]["faults"]}
        return measure

    for name, where, cold in (("scattered, warm file", "memory", False), ("scattered, cold file", "disk", True)):
        path = bench.file(where)
        replay = ["--prefetch", bench.working_set(f"scattered-{where}", path, pages)]
        median = bench.run(name, {
            "MAP_PRIVATE of the file": private(path, cold),
            "demand, one page": thaw(path, cold, "--fault-around", "0"),
            "demand, 64K around": thaw(path, cold),
            "replay while it runs": thaw(path, cold, *replay),
            "replay before resume": thaw(path, cold, *replay, "--prefetch-before-resume", "all"),
        }, {"us": "touching all", "before_us": "before resume", "faults": "faults"})
        for case in median.values():
            case["sum_us"] = case["us"] + case["before_us"]
        one = median["demand, one page"]["sum_us"]
        for replay_name in ("replay while it runs", "replay before resume"):
            sums = median[replay_name]["sum_us"]
            if cold:
                bench.aim(f"{replay_name}: times faster than demand", one / sums, 5, True)
                bench.aim(f"{replay_name}: times faster than a cold mapping",
                          median["MAP_PRIVATE of the file"]["us"] / sums, 2, True)
            else:
                bench.aim(f"{replay_name}: time as a multiple of a warm mapping's",
                          sums / median["MAP_PRIVATE of the file"]["us"], 1.5, False)
                bench.aim(f"{replay_name}: times faster than demand", one / sums, 5, True)


def beside(bench):
    """The guest while pages are installed ahead."""
    memory = bench.file("memory")
    n_pages = bench.size // PAGE
    far = bench.list_file("far", [n_pages - 1 - 61 * i for i in range(min(200, n_pages // 100))])

    def faults(*args):
        def measure():
            with contextlib.closing(Vmm(bench, bench.size)) as vmm:
                pager = Pager(bench, memory, "--fault-around", "0", *args)
                vmm.order("attach", pager.socket)
                pager.may_resume()
                times = vmm.order("slowly", far, 100)
                us = pager.installed_us() if args else 1
            done = pager.stats()["counters"]
            return {"p50_us": times["p50_ns"] / 1e3, "p99_us": times["p99_ns"] / 1e3, "faults": done["faults"],
                    "gib_s": done["pages_ahead"] * PAGE / (1 << 30) / (us / 1e6)}
        return measure

    def discards(*args):
        def measure():
            with contextlib.closing(Vmm(bench, bench.size)) as vmm:
                pager = Pager(bench, memory, "--let-go", "off", *args)
                vmm.order("attach", pager.socket)
                pager.may_resume()
                times = vmm.order("discard", 200, PAGE, 100)
                us = pager.installed_us() if args else 1
            done = pager.stats()["counters"]
            return {"p50_us": times["p50_ns"] / 1e3, "p99_us": times["p99_ns"] / 1e3, "faults": done["faults"],
                    "gib_s": done["pages_ahead"] * PAGE / (1 << 30) / (us / 1e6)}
        return measure

    median = bench.run("beside", {
        "faults, alone": faults(),
        "faults beside --fill": faults("--fill"),
        "discards of 4 KiB, alone": discards(),
        "discards of 4 KiB beside --fill": discards("--fill"),
    }, {"p50_us": "p50", "p99_us": "p99", "gib_s": "GiB/s ahead"})
    for what in ("faults", "discards of 4 KiB"):
        alone, other = median[f"{what}, alone"], median[f"{what} beside --fill"]
        bench.aim(f"{what}: p50 beside --fill to alone", other["p50_us"] / alone["p50_us"], 1.5 if what == "faults" else 2,
                  False)
        if what == "faults":
            bench.aim("faults: p99 beside --fill to alone", other["p99_us"] / alone["p99_us"], 2, False)
            bench.aim("GiB/s installed ahead beside them", other["gib_s"], 3.5, True)
        else:
            bench.aim("discards: p99 beside --fill, us", other["p99_us"], 150, False)


def threads(bench):
    """Many faults at once."""
    memory = bench.file("memory")
    pages = list(range(0, bench.size // PAGE, 2))
    random.Random(SEED).shuffle(pages)
    touches = bench.list_file("every-second", pages)

    def measure(n):
        def once():
            with contextlib.closing(Vmm(bench, bench.size)) as vmm:
                pager = Pager(bench, memory, "--fault-around", "0")
                vmm.order("attach", pager.socket)
                pager.may_resume()
                total = vmm.order("touch", touches, n)["total_ns"]
            pager.stats()
            return {"faults_s": len(pages) / (total / 1e9)}
        return once

    median = bench.run("threads", {f"{n} threads": measure(n) for n in (1, 2, 8)}, {"faults_s": "faults a second"})
    bench.aim("8 threads: faults a second", median["8 threads"]["faults_s"], 250000, True)


def huge(bench):
    """Pages of another size."""
    memory = bench.file("memory")
    touches = bench.list_file("scattered", bench.scattered())
    pool = pathlib.Path("/sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages")
    before = pool.read_text(encoding="ascii")
    want = bench.size // HUGE
    pool.write_text(str(int(before) + 2 * want), encoding="ascii")
    try:
        if int(pool.read_text(encoding="ascii")) < int(before) + 2 * want:
            print("huge: skipped (no huge pages to be had)", file=sys.stderr)
            return

        def measure(is_huge):
            def once():
                with contextlib.closing(Vmm(bench, bench.size, is_huge)) as vmm:
                    pager = Pager(bench, memory)
                    vmm.order("attach", pager.socket)
                    pager.may_resume()
                    total = vmm.order("touch", touches)["total_ns"]
                stats = pager.stats()
                return {"us": total / 1e3, "faults": stats["counters"]["faults"],
                        "mib": stats["counters"]["pages_installed"] * stats["page_bytes"] / MIB}
            return once

        bench.run("huge", {"4 KiB": measure(False), "2 MiB": measure(True)},
                  {"us": "touching the working set", "faults": "faults", "mib": "MiB installed"})
    finally:
        pool.write_text(before, encoding="ascii")


def discards(bench):
    """What a discard costs."""
    memory = bench.file("memory")

    def measure(length, served, *args):
        def once():
            with contextlib.closing(Vmm(bench, bench.size)) as vmm:
                pager = None
                if served:
                    pager = Pager(bench, memory, "--let-go", "off", "--fill")
                    vmm.order("attach", pager.socket)
                    pager.installed_us()
                else:
                    vmm.order("populate")
                n = min(64, bench.size // length)
                times = vmm.order("discard", n, length, 200)
                round_trip = vmm.order("pingpong", 500)["p50_ns"]
            if pager:
                pager.stats()
            return {"p50_us": times["p50_ns"] / 1e3, "wake_us": round_trip / 1e3}
        return once

    cases = {}
    lengths = [length for length in (4096, 65536, 2 * MIB, 64 * MIB) if length * 4 <= bench.size]
    for length in lengths:
        text = f"{length // 1024} KiB" if length < MIB else f"{length // MIB} MiB"
        cases[f"{text}, no pager"] = measure(length, False)
        cases[f"{text}, pager idle"] = measure(length, True)
    median = bench.run("discards", cases, {"p50_us": "madvise", "wake_us": "two wake-ups"})
    for text in dict.fromkeys(case.split(",")[0] for case in cases):
        with_pager, without = median[f"{text}, pager idle"], median[f"{text}, no pager"]
        bench.aim(f"{text}: what the pager adds, in wake-up round trips",
                  (with_pager["p50_us"] - without["p50_us"]) / with_pager["wake_us"], 2, False)


WORKLOAD = "md5sum -c /tmp/sums >/dev/null && seq 20000 | sort -n | md5sum >/dev/null"


def guest_measurement(bench):
    """A real guest, whose working set is what two recordings have in common."""
    root = pathlib.Path(__file__).resolve().parents[1]
    sys.path[:0] = [str(root / "tests/lib")]
    import guest  # pylint: disable=import-outside-toplevel
    import guest_image  # pylint: disable=import-outside-toplevel
    if not shutil.which("qemu-system-x86_64"):
        print("guest: skipped (no qemu-system-x86_64)", file=sys.stderr)
        return
    preload = pathlib.Path(bench.thaw).resolve().parent / "src/vmm/libthaw-preload.so"
    if not preload.exists():
        preload = pathlib.Path(bench.thaw).resolve().parents[1] / "vmm/libthaw-preload.so"
    folder = pathlib.Path(tempfile.mkdtemp(prefix="thaw-"))
    try:
        with guest.boot(guest_image.guest_image(), folder, mem_mib=[256], smp=2) as vm:
            vm.console.run("dd if=/dev/urandom of=/tmp/file bs=1M count=8 2>/dev/null; md5sum /tmp/file >/tmp/sums", 60)
            snapshot = guest.take_snapshot(vm, folder)

        def once(*args, wait_for=None):
            def before_cont(pager):
                guest.wait_for(lambda: wait_for in pager.process.log.read_text(), 60, wait_for)
            with guest.restore(snapshot, folder, guest.thaw_argv(bench.thaw, *args), preload,
                               before_cont=before_cont if wait_for else None) as restored:
                begin = time.monotonic()
                restored.vm.console.run(WORKLOAD, 60)
                took = time.monotonic() - begin
                faults = restored.pager.stats()["counters"]["faults"]
                if "--record" in args:
                    subprocess.run([bench.thaw, "ready", "--state", folder / "run"], check=True, timeout=DEADLINE)
                answer = restored.seconds_from_cont
            return {"first_ms": answer * 1e3, "workload_ms": (answer + took) * 1e3, "faults": faults}

        sets = [folder / "one.ws", folder / "two.ws"]
        for path in sets:
            once("--record", path)
        both = folder / "both.ws"
        subprocess.run([bench.thaw, "workingset", "merge", "--intersect", "-o", both, *sets], check=True, timeout=DEADLINE,
                       stdout=subprocess.DEVNULL)
        median = bench.run("guest", {
            "without, one page": lambda: once("--fault-around", "0"),
            "without, 64K around": once,
            "with, while it runs": lambda: once("--prefetch", both),
            "with, before resume": lambda: once("--prefetch", both, "--prefetch-before-resume", "all",
                                                wait_for="may resume"),
        }, {"first_ms": "first answer", "workload_ms": "end of the workload", "faults": "faults"})
        bench.aim("with, before resume: share of the faults without", median["with, before resume"]["faults"] /
                  median["without, one page"]["faults"], 0.05, False)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


MEASUREMENTS = {"bulk": bulk, "scattered": scattered, "beside": beside, "threads": threads, "huge": huge,
                "discards": discards, "guest": guest_measurement}


# ---- telling ----


def number(value):
    """Three digits or so."""
    if value >= 1000:
        return f"{value:,.0f}"
    return f"{value:.3g}" if value else "0"


def table(results):
    """What was measured, as text."""
    lines = []
    for one in results:
        lines.append(f"{one['name']}  (medians of {len(next(iter(one['rounds'].values())))} rounds, processors up to "
                     f"{one['busy'] * 100:.0f} % busy before)")
        keys = list(next(iter(one["median"].values())))
        lines.append(f"    {'':34}" + "".join(f"{key:>14}" for key in keys))
        lines += [f"    {case:34}" + "".join(f"{number(values[key]):>14}" for key in keys)
                  for case, values in one["median"].items()]
        for aim in one["aims"]:
            lines.append(f"    {'met    ' if aim['met'] else 'NOT MET'} {aim['text']}: {number(aim['value'])}, aim "
                         f"{'>=' if aim['at_least'] else '<='} {number(aim['bound'])}")
        lines.append("")
    return "\n".join(lines)


def parse(argv):
    parser = argparse.ArgumentParser(description="measure what is installed ahead of the guest")
    parser.add_argument("--thaw", default="build/thaw")
    parser.add_argument("--vmm", default="build/tests/bench/ahead_vmm")
    parser.add_argument("--out", default="build/bench", help="folder for the results (build/bench)")
    parser.add_argument("--disk", default="/var/tmp", help="a folder on a disk, for cold files (/var/tmp)")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--size", type=int, default=256, help="MiB of guest memory (256)")
    parser.add_argument("--quiet", type=float, default=10, help="a round begins when the machine is idle but for so many %%")
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(MEASUREMENTS))
    options = parser.parse_args(argv)
    for name in options.names:
        if name not in MEASUREMENTS:
            parser.error(f"no measurement {name}, expected some of {', '.join(MEASUREMENTS)}")
    if options.rounds < 1 or options.size < 8:
        parser.error("expected at least 1 round and 8 MiB")
    return options


def main(argv):
    options = parse(argv)
    out = pathlib.Path(options.out)
    out.mkdir(parents=True, exist_ok=True)
    folder = tempfile.mkdtemp(prefix="thaw-bench-", dir="/dev/shm" if os.path.isdir("/dev/shm") else None)
    bench = Bench(options, folder)
    try:
        for name in options.names or MEASUREMENTS:
            MEASUREMENTS[name](bench)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        shutil.rmtree(bench.disk, ignore_errors=True)
    words = table(bench.results)
    sys.stdout.write(words)
    (out / "ahead.txt").write_text(words, encoding="utf-8")
    (out / "ahead.json").write_text(json.dumps(bench.results, indent=1) + "\n", encoding="utf-8")
    (out / "ahead.svg").write_text(bench_svg.bars(bench.results), encoding="utf-8")
    print(f"figures: {out}/ahead.json, table: {out}/ahead.txt, picture: {out}/ahead.svg")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
