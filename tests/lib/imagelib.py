# SPDX-License-Identifier: Apache-2.0
"""
imagelib.py - memory files and stores of images for tests

    memory = make_memory(lab.dir / "memory", rng, n_pages=300)            holes, zero pages, pages of many kinds
    child = make_memory(lab.dir / "child", rng, n_pages=300, parent=memory)   like it, but for some pages
    store = Store(lab.dir / "store")
    store.pack(memory, "one")
    store.unpack("one", lab.dir / "out")
    assert same_bytes(memory, lab.dir / "out")

`thaw image` is run to its end, with a time limit; what it prints is checked: nothing on stderr when it works, one line when it
does not.
"""

import filecmp
import json
import os
import pathlib
import random
import subprocess

import thawtest

PAGE = 4096
LIMIT = 60  # seconds for one run of a program that takes far less than one
TIME = 1_700_000_000  # when all memory files were written


def new_rng():
    """Random numbers from a printed seed: THAW_SEED has them again."""
    seed = int(os.environ.get("THAW_SEED", random.randrange(1 << 32)))
    print(f"THAW_SEED={seed}")
    return random.Random(seed)


def page_bytes(rng):
    """A page: as compressible as pages of guests are, more or less, or not at all."""
    kind = rng.randrange(4)
    if kind == 0:
        return rng.randbytes(PAGE)
    if kind == 1:
        return rng.randbytes(64) * (PAGE // 64)
    if kind == 2:
        return bytes(PAGE - 8) + rng.randbytes(8)
    return rng.randbytes(8) + bytes(PAGE - 8)


def random_pages(rng, n_pages, parent=None):
    """[bytes, or None for a hole]: runs of a kind, some of them the parent's pages."""
    pages = []
    while len(pages) < n_pages:
        n = min(rng.choice([1, 1, 2, 3, 20, 60]), n_pages - len(pages))
        kind = rng.choice(["hole", "zero", "own", "own"] + ["parent"] * (5 if parent else 0))
        for _ in range(n):
            if kind == "own":
                pages.append(page_bytes(rng))
            elif kind == "parent":
                pages.append(parent[len(pages)])
            else:
                pages.append(None if kind == "hole" else bytes(PAGE))
    return pages


def write_pages(path, pages):
    """A memory file of such pages."""
    with open(path, "wb") as file:
        file.truncate(len(pages) * PAGE)
        for i, page in enumerate(pages):
            if page is not None:
                file.seek(i * PAGE)
                file.write(page)
    os.utime(path, (TIME, TIME))
    return pathlib.Path(path)


def read_pages(path):
    """[bytes] of a memory file."""
    data = pathlib.Path(path).read_bytes()
    return [data[i:i + PAGE] for i in range(0, len(data), PAGE)]


def make_memory(path, rng, n_pages=300, parent=None):
    """A random memory file, like the one at `parent` in places, but not in its last page. Return: its path."""
    return write_pages(path, random_pages(rng, n_pages - 1, read_pages(parent) if parent else None) + [rng.randbytes(PAGE)])


def same_bytes(one, other):
    """Have two files the same bytes?"""
    return filecmp.cmp(one, other, shallow=False)


def blocks(path):
    """How many pages of a file are not holes, as the file system has it."""
    return os.stat(path).st_blocks * 512 // PAGE


class Store:
    """A store, and `thaw image` on it."""

    def __init__(self, path):
        self.path = pathlib.Path(path)

    def argv(self, verb, *args):
        """The command line."""
        return [thawtest.program("THAW"), "image", verb, *map(str, args), "--store", str(self.path)]

    def run(self, verb, *args, **kwargs):
        """Run a verb to its end."""
        return subprocess.run(self.argv(verb, *args), check=False, capture_output=True, text=True,
                              errors="surrogateescape", stdin=subprocess.DEVNULL, timeout=LIMIT, **kwargs)

    def out(self, verb, *args, **kwargs):
        """What it prints when it works, and says nothing else."""
        done = self.run(verb, *args, **kwargs)
        assert (done.returncode, done.stderr) == (0, ""), done.stderr
        return done.stdout

    def fails(self, verb, *args, code=1, **kwargs):
        """The one line that it says when it does not."""
        done = self.run(verb, *args, **kwargs)
        lines = done.stderr.splitlines()
        assert done.returncode == code, (done.returncode, done.stderr)
        assert len(lines) == 1 and lines[0].startswith(f"thaw image {verb}: "), done.stderr
        assert done.stdout == ""
        return lines[0]

    def pack(self, memory, name, *args, **kwargs):
        """Return: the id."""
        out = self.out("pack", memory, "-o", name, *args, **kwargs)
        assert len(out) == 65 and out[64] == "\n", out
        return out[:64]

    def unpack(self, name, target, *args):
        """Return: the path."""
        assert self.out("unpack", name, "-o", target, *args) == ""
        return target

    def ls(self):
        """[object] of all images."""
        return [json.loads(line) for line in self.out("ls", "--json").splitlines()]

    def names(self):
        """{name: id} of all images with a name."""
        return {image["name"]: image["id"] for image in self.ls() if image["name"]}

    def files(self):
        """All that is in it: {folder: {name}}."""
        return {folder: {path.name for path in (self.path / folder).iterdir()}
                for folder in ("names", "manifests", "packs", "tmp")}

    def manifest_path(self, name):
        """Where the manifest of an image is."""
        return self.path / "manifests" / self.names()[name]

    def holds(self, name, memory, scratch):
        """Does an image have just these bytes?"""
        return same_bytes(self.unpack(name, scratch), memory)
