#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""
guest_memory.py - memory files of a real guest, for what measures images

    guest_memory.py FOLDER

Boots a Debian guest with Python in QEMU and writes three memory files of it, sparse, into FOLDER:

    boot      at its prompt, a moment after it has started
    python    while a Python program runs that has parsed a part of the standard library and holds the trees; files were
              compressed, sorted and read
    later     the same guest, some seconds of other work after that

They are of one guest: `later` is what a second snapshot looks like, whose parent is `python`. Exit status 77: what a guest
needs is not here.
"""

import dataclasses
import gzip
import os
import pathlib
import re
import shutil
import stat
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "tests/lib"), str(ROOT / "tools")]

import guest  # noqa: E402
import guest_image  # noqa: E402

MEMORY_MIB = 512
NAMES = ("boot", "python", "later")
PYTHON = pathlib.Path("/usr/bin/python3").resolve()
LIBRARY = pathlib.Path(f"/usr/lib/{PYTHON.name}")
LEFT_OUT = re.compile(r"/(__pycache__|test|tests|idlelib|lib2to3|config-[^/]*|ensurepip|distutils|pydoc_data|dist-packages)(/|$)")
WORK_SECONDS = 300

# Runs in the guest. What it has read is held, so that it is in the memory file; a second word makes it go on.
PROGRAM = """
import ast, collections, hashlib, json, pathlib, random, sys, time
files = sorted(pathlib.Path(json.__file__).parents[1].glob("*.py"))
trees, words, r = {}, collections.Counter(), random.Random(1)
def work(some):
    for file in some:
        text = file.read_text(errors="replace")
        trees[file.name] = ast.parse(text)
        words.update(text.split())
    sums = [hashlib.sha256(bytes(r.randrange(256) for _ in range(200))).hexdigest() for _ in range(500)]
    return json.dumps({"sums": sums, "words": words.most_common(2000)})
held = [work(files[:36])]
pathlib.Path("/tmp/ready").touch()
while not pathlib.Path("/tmp/more").exists():
    time.sleep(0.1)
held.append(work(files[36:46]))
pathlib.Path("/tmp/again").touch()
time.sleep(100000)
"""


def shared_libraries(program):
    """The files that the dynamic linker loads for a program."""
    out = subprocess.run(["ldd", str(program)], check=True, capture_output=True, text=True, timeout=20).stdout
    return sorted({pathlib.Path(path) for path in re.findall(r"(/\S+) \(0x", out)})


def python_files():
    """{path in the guest: path here} of Python and its library."""
    files = {f"usr/bin/{PYTHON.name}": PYTHON}
    for path in sorted(LIBRARY.rglob("*")):
        if path.is_file() and not LEFT_OUT.search(str(path)):
            files[str(path)[1:]] = path
    for program in [PYTHON, *(path for path in files.values() if path.suffix == ".so")]:
        for library in shared_libraries(program):
            files[str(library)[1:]] = library
    return files


def with_python(image, folder):
    """The guest image, with Python in its root: the kernel unpacks a second archive behind the first."""
    files = python_files()
    folders = sorted({str(parent) for name in files for parent in pathlib.PurePath(name).parents} - {"."})
    members = [(name, stat.S_IFDIR | 0o755, b"") for name in folders if name not in ("lib", "bin")]
    members += [(name, stat.S_IFREG | 0o755, path.read_bytes()) for name, path in files.items()]
    members += [("work.py", stat.S_IFREG | 0o644, PROGRAM.encode())]
    archive = b"".join(guest_image.cpio_member(i + 1000, *member) for i, member in enumerate(members))
    archive += guest_image.cpio_member(0, "TRAILER!!!", 0, b"")
    initrd = folder / "initrd.gz"
    initrd.write_bytes(image.initrd.read_bytes() + gzip.compress(archive, compresslevel=1, mtime=0))
    return dataclasses.replace(image, initrd=initrd)


def keep(vm, folder, out, name):
    """The guest's memory of this moment."""
    vm.qmp.execute("stop")
    temp = out / (name + ".part")
    with open(temp, "wb") as copy:
        guest.append_sparse(copy, folder / "ram0")
    os.rename(temp, out / name)
    vm.qmp.execute("cont")


def wait_for(file):
    """A command that waits for a file of the program, and fails when that does."""
    return f"while [ ! -e {file} ]; do [ ! -e /tmp/failed ] || break; sleep 1; done; cat /tmp/log; [ -e {file} ]"


def take(out, say=print):
    """Boot the guest and write the memory files that are not there yet. Return: their paths, by name."""
    paths = {name: out / name for name in NAMES}
    if all(path.exists() for path in paths.values()):
        return paths
    image = guest_image.guest_image(say=say)
    folder = pathlib.Path(tempfile.mkdtemp(prefix="thaw-guest-"))
    try:
        say("booting the guest")
        with guest.boot(with_python(image, folder), folder, mem_mib=[MEMORY_MIB], smp=1, seconds=120) as vm:
            keep(vm, folder, out, "boot")
            say("a Python program in the guest")
            vm.console.run(f"(({PYTHON} /work.py >/tmp/log 2>&1 || touch /tmp/failed) &)")
            vm.console.run("find /usr/lib -name '*.py' | sort | xargs cat | gzip >/tmp/all.gz", WORK_SECONDS)
            vm.console.run("dd if=/dev/urandom of=/tmp/noise bs=1M count=24 2>/dev/null", WORK_SECONDS)
            vm.console.run(wait_for("/tmp/ready"), WORK_SECONDS)
            keep(vm, folder, out, "python")
            vm.console.run("touch /tmp/more; zcat /tmp/all.gz | sort | md5sum", WORK_SECONDS)
            vm.console.run(wait_for("/tmp/again"), WORK_SECONDS)
            keep(vm, folder, out, "later")
    finally:
        shutil.rmtree(folder)
    return paths


def main(argv):
    if len(argv) != 1:
        print("usage: guest_memory.py FOLDER", file=sys.stderr)
        return 2
    out = pathlib.Path(argv[0])
    out.mkdir(parents=True, exist_ok=True)
    try:
        take(out)
    except (guest_image.GuestImageError, guest.GuestError) as e:
        print(f"guest_memory: {e}", file=sys.stderr)
        return 77
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
