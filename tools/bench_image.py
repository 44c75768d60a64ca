#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""
bench_image.py - what images of real guests weigh, and what packing, unpacking and one frame cost

    bench_image.py [--build DIR] [--out DIR] [--memory DIR] [--rounds N] [NAME...]

    frames      each codec and frame size: size, speed of pack and unpack, time of one frame
    guests      the memory files of guest_memory.py: raw, zstd -T0 of the raw file, the image, the image with a parent
    throughput  pack and unpack beside the codec's own benchmark, of the same pages in blocks as large as a frame

Prints each NAME (default: all) as a table in Markdown and leaves DIR/image-NAME.md and DIR/image-NAME.json (build/bench). Memory
files are taken from --memory, or made there (build/bench/memory). Times are the shortest of the rounds: what somebody
else's work adds is not ours. Speeds are bytes of stored pages, uncompressed, a second, in MB/s; those of `throughput` a
second of processor time, which other work does not lengthen.
Exit status 77: a guest cannot be had here.
"""

import argparse
import json
import os
import pathlib
import platform
import re
import resource
import shutil
import subprocess
import sys
import tempfile
import time

TOOLS = pathlib.Path(__file__).resolve().parent
sys.path[:0] = [str(TOOLS.parent / "tests/lib"), str(TOOLS)]

import guest  # noqa: E402
import guest_image  # noqa: E402
import guest_memory  # noqa: E402

NAMES = ("frames", "guests", "throughput")
FRAMES = ("4K", "16K", "32K", "64K", "128K", "256K")
CODECS = (("none", 0), ("lz4", 0), ("zstd", 1), ("zstd", 3), ("zstd", 9))
AIM = 0.8  # of the codec's own speed
MIB = 1 << 20
DEFAULT_FRAME = 32 << 10
N_FRAME_READS = 4000
PAGE = 4096


def processor_seconds():
    """Of all children that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


class Store:
    """A store of its own for one measurement."""

    def __init__(self, options, folder):
        self.thaw = options.build / "src/cli/thaw"
        self.frame_times = options.build / "tests/bench/frame_times"
        self.path = folder / "store"
        self.folder = folder

    def timed(self, *argv):
        """(seconds, processor seconds) of a command."""
        before = processor_seconds()
        begin = time.monotonic()
        subprocess.run([str(arg) for arg in argv], check=True, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
        seconds = time.monotonic() - begin
        return seconds, max(processor_seconds() - before, 1e-6)

    def pack(self, memory, name, *args):
        """Into a store in which nothing is yet but the parents."""
        return self.timed(self.thaw, "image", "pack", memory, "-o", name, "--store", self.path, *args)

    def unpack(self, name, *args):
        target = self.folder / "out"
        times = self.timed(self.thaw, "image", "unpack", name, "-o", target, "--store", self.path, *args)
        target.unlink()
        return times

    def drop(self, name):
        self.timed(self.thaw, "image", "rm", name, "--store", self.path)
        self.timed(self.thaw, "image", "gc", "--store", self.path)

    def bytes_of(self, name):
        """(bytes of the image's own pack, of its manifest)."""
        out = subprocess.run([str(self.thaw), "image", "ls", "--json", "--store", str(self.path)], check=True,
                             capture_output=True, text=True).stdout
        image = next(image for image in map(json.loads, out.splitlines()) if image["name"] == name)
        return image["own_pack_bytes"], (self.path / "manifests" / image["id"]).stat().st_size

    def frame_ns(self, name):
        out = subprocess.run([str(self.frame_times), str(self.path), name, str(N_FRAME_READS)], check=True,
                             capture_output=True, text=True).stdout
        return json.loads(out)


def codec_args(codec, level):
    return ["--codec", codec, *(["--level", str(level)] if level else [])]


def codec_name(codec, level):
    return f"{codec} {level}" if level else codec


def dense_copy(memory, target):
    """A file of the pages that are not zero. Return: its size."""
    with open(memory, "rb") as raw, open(target, "wb") as out:
        while page := raw.read(PAGE):
            if any(page):
                out.write(page)
        return out.tell()


def best(runs):
    """Of several (seconds, processor seconds) the shortest of each."""
    return tuple(min(values) for values in zip(*runs))


# ---- frames ----


def measure_frames(options, memory, folder):
    """A row for each codec and size of frame."""
    stored = dense_copy(memory, folder / "dense")
    (folder / "dense").unlink()
    store, rows = Store(options, folder), []
    for codec, level in CODECS:
        for frame in FRAMES:
            packs, unpacks, frames = [], [], []
            for _ in range(options.rounds):
                packs.append(store.pack(memory, "x", "--frame", frame, *codec_args(codec, level)))
                unpacks.append(store.unpack("x"))
                frames.append(store.frame_ns("x"))
                pack_bytes, manifest_bytes = store.bytes_of("x")
                store.drop("x")
            (pack_s, pack_cpu), (unpack_s, unpack_cpu) = best(packs), best(unpacks)
            rows.append({"codec": codec_name(codec, level), "frame": frame, "pack_bytes": pack_bytes,
                         "manifest_bytes": manifest_bytes, "stored_bytes": stored, "pack_s": pack_s, "pack_cpu_s": pack_cpu,
                         "unpack_s": unpack_s, "unpack_cpu_s": unpack_cpu,
                         "frame_p50_ns": min(f["p50_ns"] for f in frames),
                         "frame_p99_ns": min(f["p99_ns"] for f in frames)})
    return rows


def table_frames(rows):
    head = ["codec", "frame", "pack", "of stored", "pack MB/s", "a CPU second", "unpack MB/s", "one frame p50, p99 us"]
    lines = []
    for row in rows:
        stored = row["stored_bytes"]
        lines.append([row["codec"], row["frame"], f"{row['pack_bytes'] / MIB:.1f} MiB", f"{row['pack_bytes'] / stored:.1%}",
                      f"{stored / row['pack_s'] / 1e6:.0f}", f"{stored / row['pack_cpu_s'] / 1e6:.0f}",
                      f"{stored / row['unpack_s'] / 1e6:.0f}",
                      f"{row['frame_p50_ns'] / 1e3:.1f}, {row['frame_p99_ns'] / 1e3:.1f}"])
    return head, lines


# ---- guests ----


def measure_guests(options, paths, folder):
    """A row for each memory file, and one for the one that has a parent."""
    store, rows = Store(options, folder), []
    for name, memory in paths.items():
        row = {"memory": name, "raw_bytes": memory.stat().st_size, "stored_bytes": dense_copy(memory, folder / "dense")}
        (folder / "dense").unlink()
        row["zstd_s"], row["zstd_cpu_s"] = store.timed("zstd", "-q", "-f", "-T0", memory, "-o", folder / "raw.zst")
        row["zstd_bytes"] = (folder / "raw.zst").stat().st_size
        row["pack_s"], row["pack_cpu_s"] = store.pack(memory, name)
        row["image_bytes"] = sum(store.bytes_of(name))
        rows.append(row)
    store.pack(paths["later"], "child", "--parent", "python")
    later = next(row for row in rows if row["memory"] == "later")
    rows.append({**later, "memory": "later, with the parent python", "image_bytes": sum(store.bytes_of("child"))})
    return rows


def table_guests(rows):
    head = ["memory", "raw", "not zero", "zstd -T0 of the raw file", "image", "image / zstd"]
    return head, [[row["memory"], f"{row['raw_bytes'] / MIB:.0f} MiB", f"{row['stored_bytes'] / MIB:.1f} MiB",
                   f"{row['zstd_bytes'] / MIB:.1f} MiB", f"{row['image_bytes'] / MIB:.1f} MiB",
                   f"{row['image_bytes'] / row['zstd_bytes']:.2f}"] for row in rows]


# ---- throughput ----


def read_speeds(said):
    """The best of the lines that a codec's benchmark writes over one another."""
    found = re.findall(r"([\d.]+) MB/s *, *([\d.]+) MB/s", said)
    if not found:
        raise RuntimeError(f"no speeds in {said!r}")
    return tuple(max(float(one[i]) for one in found) * 1e6 for i in (0, 1))


def codec_bench(codec, level, frame_bytes, dense):
    """(compress, decompress) in bytes a second, as the codec's own program measures it on one thread."""
    command = ["zstd", f"-b{level}", f"-B{frame_bytes}"] if codec == "zstd" else ["lz4", "-b1", f"-B{frame_bytes}"]
    done = subprocess.run([*command, "-i2", str(dense)], check=True, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    return read_speeds(done.stdout + done.stderr)


def measure_throughput(options, memory, folder):
    """A row for each codec with the default frame, all on one thread, ours and theirs in turn."""
    store, rows = Store(options, folder), []
    dense = folder / "dense"
    stored = dense_copy(memory, dense)
    for codec, level in (("lz4", 0), ("zstd", 1), ("zstd", 3), ("zstd", 9)):
        own, copies, packs, unpacks = [], [], [], []
        for _ in range(options.rounds):
            own.append(codec_bench(codec, level, DEFAULT_FRAME, dense))
            copies.append(store.timed("cp", dense, folder / "copy"))
            packs.append(store.pack(memory, "x", "--threads", 1, *codec_args(codec, level)))
            unpacks.append(store.unpack("x", "--threads", 1))
            store.drop("x")
        rows.append({"codec": codec_name(codec, level), "stored_bytes": stored,
                     "own_compress": max(one[0] for one in own), "own_decompress": max(one[1] for one in own),
                     "copy_cpu_s": best(copies)[1], "pack_s": best(packs)[0], "pack_cpu_s": best(packs)[1],
                     "unpack_s": best(unpacks)[0], "unpack_cpu_s": best(unpacks)[1]})
    return rows


def table_throughput(rows):
    head = ["codec", "its own, compress", "pack", "share", f"aim {AIM}", "of compress and cp", "its own, decompress", "unpack",
            "share", "of decompress and cp"]
    lines = []
    for row in rows:
        stored = row["stored_bytes"]
        pack, unpack = stored / row["pack_cpu_s"], stored / row["unpack_cpu_s"]
        with_cp = [1 / (1 / row[own] + row["copy_cpu_s"] / stored) for own in ("own_compress", "own_decompress")]
        lines.append([row["codec"], f"{row['own_compress'] / 1e6:.0f}", f"{pack / 1e6:.0f}",
                      f"{pack / row['own_compress']:.2f}", "met" if pack >= AIM * row["own_compress"] else "missed",
                      f"{pack / with_cp[0]:.2f}", f"{row['own_decompress'] / 1e6:.0f}", f"{unpack / 1e6:.0f}",
                      f"{unpack / row['own_decompress']:.2f}", f"{unpack / with_cp[1]:.2f}"])
    return head, lines


# ---- putting it together ----


def markdown(head, lines):
    """A table."""
    rows = [head, ["---"] * len(head), *lines]
    return "".join("| " + " | ".join(row) + " |\n" for row in rows)


def run(options, name, paths):
    """One measurement, shown and kept."""
    measure, table = {"frames": (measure_frames, table_frames), "guests": (measure_guests, table_guests),
                      "throughput": (measure_throughput, table_throughput)}[name]
    folder = pathlib.Path(tempfile.mkdtemp(prefix="thaw-bench-", dir=options.out))
    try:
        rows = measure(options, paths if name == "guests" else paths["python"], folder)
    finally:
        shutil.rmtree(folder)
    text = markdown(*table(rows))
    print(f"## {name}\n\n{text}", flush=True)
    (options.out / f"image-{name}.md").write_text(text, encoding="utf-8")
    (options.out / f"image-{name}.json").write_text(json.dumps({
        "bench": "image", "name": name, "host": {"kernel": platform.release(), "processors": len(os.sched_getaffinity(0))},
        "options": {"rounds": options.rounds}, "rows": rows}, indent=1) + "\n", encoding="utf-8")


def main(argv):
    parser = argparse.ArgumentParser(description="measure images of real guests")
    parser.add_argument("--build", default="build", type=pathlib.Path, help="a build folder (build)")
    parser.add_argument("--out", default="build/bench", type=pathlib.Path, help="folder for the results (build/bench)")
    parser.add_argument("--memory", type=pathlib.Path, help="folder of the memory files (OUT/memory)")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(NAMES))
    options = parser.parse_args(argv)
    if not set(options.names) <= set(NAMES):
        parser.error(f"the measurements are {', '.join(NAMES)}")
    options.memory = options.memory or options.out / "memory"
    for folder in (options.out, options.memory):
        folder.mkdir(parents=True, exist_ok=True)
    try:
        paths = guest_memory.take(options.memory, lambda line: print(line, file=sys.stderr))
    except (guest_image.GuestImageError, guest.GuestError) as e:
        print(f"bench_image: {e}", file=sys.stderr)
        return 77
    for name in options.names or NAMES:
        run(options, name, paths)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
