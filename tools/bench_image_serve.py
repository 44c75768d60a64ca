#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""
bench_image_serve.py - a guest served from an image, against the same from its memory file

    bench_image_serve.py --memory FILE [--working-set FILE] [--thaw FILE] [--touchvmm FILE] [--make-chain FILE]
                         [--rounds N] [--seed N] [--touches N] [--frame SIZE] [--depths LIST] [--json FILE] [--only WORD]

FILE is a snapshot's memory, on a disk. Packs are made beside it, in a folder that goes away again. What is measured, in
shuffled rounds, medians printed as a table:

    fault    a VMM touches pages that it has not, in random order: what a touch takes; warm (all files in the page cache) and
             cold (none)
    replay   a cold working set, from the handshake to the moment when all of it is installed
    memory   of 1, 4 and 16 pagers that serve VMs which have touched the working set: the pagers' own and the page cache's
    depth    a touch, warm, of images with 1, 10 and 1000 packs, as chains of so many layers leave them

Without --working-set one is made up: runs of neighbours, a fifth of the pages that are not zero. Every page that was touched
is compared with FILE.
"""

import argparse
import ctypes
import json
import mmap
import os
import pathlib
import random
import select
import shutil
import statistics
import struct
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests/lib"))

from thawtest import is_listening  # noqa: E402  (found through the path above)
from workingset import make_workingset, read_workingset  # noqa: E402

PAGE = 4096
DEADLINE = 120
LIBC = ctypes.CDLL(None, use_errno=True)
LIBC.mmap.restype = ctypes.c_void_p
LIBC.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long]
LIBC.mincore.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_char_p]
LIBC.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]


def full_pages(path):
    """Numbers of the pages that are not zero."""
    zero = bytes(PAGE)
    with open(path, "rb") as file:
        return [number for number, page in enumerate(iter(lambda: file.read(PAGE), b"")) if page != zero]


def make_up(path, out, rng):
    """A working set: runs of 8 pages on average, a fifth of what is not zero. Return: its pages in their order."""
    full = full_pages(path)
    there, pages = set(full), []
    while len(pages) < len(full) // 5:
        page = rng.choice(full)
        for _ in range(int(rng.expovariate(1 / 8)) + 1):
            if page in there:
                there.remove(page)
                pages.append(page)
            page += 1
    make_workingset(out, path.stat().st_size, pages)
    return pages


def cached_bytes(paths):
    """How much of these files is in the page cache."""
    total = 0
    for path in paths:
        size = path.stat().st_size
        fd = os.open(path, os.O_RDONLY)
        addr = LIBC.mmap(None, size, mmap.PROT_READ, mmap.MAP_SHARED, fd, 0)
        os.close(fd)
        vector = ctypes.create_string_buffer((size + PAGE - 1) // PAGE)
        LIBC.mincore(addr, size, vector)
        LIBC.munmap(addr, size)
        total += sum(byte & 1 for byte in vector.raw) * PAGE
    return total


def count_bytes(path, *words):
    """The sum of the lines of a file of /proc that begin with these words."""
    text = pathlib.Path(path).read_text(encoding="ascii")
    return sum(int(line.split()[1]) << 10 for line in text.splitlines() if line.startswith(words))


def shared_bytes():
    """What fillers have in memory."""
    total = 0
    for folder in pathlib.Path("/proc").glob("[0-9]*"):
        try:
            if (folder / "cmdline").read_bytes().split(b"\0")[1:3] == [b"image", b"fill"]:
                total += count_bytes(folder / "status", "RssShmem:")
        except OSError:
            pass
    return total


def drop(paths):
    """Out of the page cache."""
    for path in paths:
        fd = os.open(path, os.O_RDONLY)
        os.fsync(fd)
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(fd)


def warm(paths):
    """Into it."""
    for path in paths:
        with open(path, "rb") as file:
            while file.read(1 << 20):
                pass


class Subject:
    """Something that is served: what thaw is told, and the files that its bytes are in."""

    def __init__(self, name, args, files):
        self.name, self.args, self.files = name, args, files


class Serving:
    """A pager and a VMM that touches pages."""

    def __init__(self, bench, subject, pages, *args):
        self.dir = pathlib.Path(tempfile.mkdtemp(prefix="thaw-bench-"))
        reader, writer = os.pipe()
        socket = self.dir / "socket"
        self.processes = []
        try:
            self.pager = self.start([bench.thaw, "serve", "--socket", socket, *subject.args, "--state", self.dir / "state",
                                     "--stats", self.dir / "stats", "--resume-fd", str(writer), "--log-level", "error", *args],
                                    pass_fds=[writer])
            os.close(writer)
            self.wait(lambda: is_listening(socket))
            (self.dir / "pages").write_bytes(struct.pack(f"={len(pages)}Q", *pages))
            began = time.monotonic()
            self.vmm = self.start([bench.touchvmm, socket, bench.memory, self.dir / "pages"], stdin=subprocess.PIPE,
                                  stdout=subprocess.PIPE)
            assert select.select([reader], [], [], DEADLINE)[0] and os.read(reader, 100) == b"resume\n", "no VM was served"
            self.resume_s = time.monotonic() - began
            self.touched = json.loads(self.vmm.stdout.readline())
        except BaseException:
            self.end()
            raise
        finally:
            os.close(reader)

    def start(self, argv, **how):
        """A process that goes with this."""
        process = subprocess.Popen([str(a) for a in argv], **how)
        self.processes.append(process)
        return process

    def wait(self, condition):
        """... or the pager's end."""
        end = time.monotonic() + DEADLINE
        while not condition():
            assert self.pager.poll() is None and time.monotonic() < end, "the pager ended"
            time.sleep(0.001)

    def private_bytes(self):
        """The pager's memory that is nobody else's, nor the page cache's."""
        return count_bytes(f"/proc/{self.pager.pid}/smaps_rollup", "Private_Dirty:", "Swap:")

    def check(self):
        """Let the VMM compare what it has touched, and end."""
        self.vmm.communicate(b"\n", timeout=DEADLINE)
        assert self.vmm.returncode == 0, "a wrong byte"
        assert self.pager.wait(DEADLINE) == 0

    def end(self):
        """All is gone."""
        for process in reversed(self.processes):
            if process.poll() is None:
                process.kill()
            process.wait()
        shutil.rmtree(self.dir, ignore_errors=True)


class Bench:
    """The measurements; figures by (what, subject)."""

    def __init__(self, options, folder):
        self.thaw, self.touchvmm, self.memory = options.thaw, options.touchvmm, options.memory
        self.make_chain = options.make_chain
        self.folder, self.options = folder, options
        self.rng = random.Random(options.seed)
        self.figures = {}

    def note(self, what, subject, **values):
        """One run's figures."""
        for name, value in values.items():
            self.figures.setdefault((what, subject.name), {}).setdefault(name, []).append(value)

    def image(self, codec, hot):
        """An image with this codec."""
        name, store = f"image-{codec}", self.folder / f"store-{codec}"
        frame = ["--frame", self.options.frame] if self.options.frame else []
        subprocess.run([self.thaw, "image", "pack", self.memory, "-o", name, "--store", store, "--codec", codec,
                        "--working-set", hot, *frame], check=True, stdout=subprocess.DEVNULL)
        return Subject(f"image, {codec}", ["--image", name, "--store", store], list((store / "packs").iterdir()))

    def chain(self, depth):
        """An image with so many packs."""
        store = self.folder / f"chain-{depth}"
        subprocess.run([self.make_chain, self.memory, store, "chain", str(depth)], check=True)
        return Subject(f"{depth} packs", ["--image", "chain", "--store", store], list((store / "packs").iterdir()))

    def touch(self, what, subject, pages, cold):
        """What a touch takes when nothing is installed ahead."""
        (drop if cold else warm)(subject.files)
        serving = Serving(self, subject, pages, "--prefetch", "none")
        try:
            figures = {name: serving.touched[name] / 1000 for name in ("p50", "p90", "p99")}
            self.note(what, subject, **figures, mean=serving.touched["total_ns"] / serving.touched["n"] / 1000)
            serving.check()
        finally:
            serving.end()

    def replay(self, what, subject, pages, args, cold=True):
        """How long it takes to install the working set."""
        (drop if cold else warm)(subject.files)
        serving = Serving(self, subject, pages, *args, "--prefetch-before-resume", "all")
        try:
            self.note(what, subject, ms=serving.resume_s * 1000)
            serving.check()
        finally:
            serving.end()

    def weigh(self, what, subject, pages, count, args):
        """The memory of several pagers of one subject."""
        drop(subject.files)
        servings = []
        try:
            for _ in range(count):
                servings.append(Serving(self, subject, pages, *args))
            own = sum(serving.private_bytes() for serving in servings)
            self.note(what, subject, own_mib=own / 2**20, shared_mib=shared_bytes() / 2**20,
                      cache_mib=cached_bytes(subject.files) / 2**20)
            for serving in servings:
                serving.check()
        finally:
            for serving in servings:
                serving.end()


def rounds(bench, jobs, count):
    """All jobs, count times, in another order each time."""
    for number in range(count):
        bench.rng.shuffle(jobs)
        for done, (call, *args) in enumerate(jobs):
            if sys.stderr.isatty():
                print(f"\rround {number + 1} of {count}: {done} of {len(jobs)} ", end="", file=sys.stderr)
            call(*args)
    if sys.stderr.isatty():
        print("\r" + " " * 40 + "\r", end="", file=sys.stderr)


def measure(bench, options, hot_path, hot):
    """Fill bench.figures."""
    raw = Subject("memory file", ["--memory", options.memory], [options.memory])
    images = [bench.image(codec, hot_path) for codec in ("none", "lz4", "zstd")]
    images += [Subject("image, zstd, alone", [*images[2].args, "--image-share", "off"], images[2].files)]
    full = full_pages(options.memory)
    jobs = []
    for subject in [raw, *images]:
        touches = bench.rng.sample(full, min(options.touches, len(full)))
        given = ["--prefetch", hot_path] if subject is raw else []
        jobs += [(bench.touch, "fault, warm", subject, touches, False), (bench.touch, "fault, cold", subject, touches, True),
                 (bench.replay, "replay, cold", subject, hot, given),
                 (bench.replay, "replay, warm", subject, hot, given, False)]
        if subject in (raw, *images[2:]):
            jobs += [(bench.weigh, f"memory, {count} VMs", subject, hot, count, given) for count in (1, 4, 16)]
    for depth in map(int, options.depths.split(",")):
        jobs.append((bench.touch, "depth, warm", bench.chain(depth), bench.rng.sample(full, min(options.touches, len(full))),
                     False))
    rounds(bench, [job for job in jobs if options.only in job[1]], options.rounds)


def print_tables(figures):
    """Medians, one table for each kind of figures."""
    kinds = sorted({what for what, _ in figures}, key=lambda what: (what.split(",")[0], what))
    before = None
    for what in kinds:
        rows = {subject: values for (kind, subject), values in figures.items() if kind == what}
        names = list(next(iter(rows.values())))
        if names != before:
            unit = {"p50": "us", "ms": "ms", "own_mib": "MiB"}[names[0]]
            print(f"\n| {unit} | | " + " | ".join(names) + " |\n|---|---|" + "---:|" * len(names))
            before = names
        for subject, values in sorted(rows.items()):
            print(f"| {what} | {subject} | " + " | ".join(f"{statistics.median(values[name]):.1f}" for name in names) + " |")


def main():
    """The command line."""
    parser = argparse.ArgumentParser(description="a guest served from an image, against the same from its memory file")
    parser.add_argument("--memory", type=pathlib.Path, required=True)
    parser.add_argument("--working-set", type=pathlib.Path)
    parser.add_argument("--thaw", type=pathlib.Path, default=ROOT / "build/src/cli/thaw")
    parser.add_argument("--touchvmm", type=pathlib.Path, default=ROOT / "build/tests/bench/touchvmm")
    parser.add_argument("--make-chain", type=pathlib.Path, default=ROOT / "build/tests/process/make_chain")
    parser.add_argument("--depths", default="1,10,1000", help="of images with so many packs")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--touches", type=int, default=2000)
    parser.add_argument("--frame", default="", help="of the images; without it: as thaw image pack has it")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", default="", help="only what has this word in its name")
    parser.add_argument("--json", type=pathlib.Path)
    options = parser.parse_args()
    options.memory = options.memory.resolve()
    folder = pathlib.Path(tempfile.mkdtemp(prefix="thaw-bench-", dir=options.memory.parent))
    try:
        bench = Bench(options, folder)
        hot_path = options.working_set or folder / "working-set"
        if options.working_set:
            hot = [unit for unit, _, _ in read_workingset(hot_path).entries]
        else:
            hot = make_up(options.memory, hot_path, bench.rng)
        measure(bench, options, hot_path, hot)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    print_tables(bench.figures)
    if options.json:
        rows = [{"what": what, "subject": subject, **values} for (what, subject), values in bench.figures.items()]
        options.json.write_text(json.dumps(rows, indent=1) + "\n", encoding="ascii")
    return 0


if __name__ == "__main__":
    sys.exit(main())
