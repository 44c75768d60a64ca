#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""
guest_memory.py - memory files of a real guest, for what measures images

    guest_memory.py FOLDER

Boots Debian guests in QEMU and writes memory files of them, sparse, into FOLDER. Three are of one with Python:

    boot      at its prompt, a moment after it has started
    python    while a Python program runs that has parsed a part of the standard library and holds the trees; files were
              compressed, sorted and read
    later     the same guest, some seconds of other work after that

`later` is what a second snapshot looks like, whose parent is `python`. And of a guest each, as far as this host has the program:

    node      while a program in Node holds what it has made of some JSON
    compile   while gcc compiles a part of Thaw, again and again; what it has read and made is in memory, as a guest has no disk

Exit status 77: what a guest needs is not here.
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
OTHERS = ("node", "compile")  # that not each host has
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

NODE_PROGRAM = """
const fs = require("fs"), crypto = require("crypto"), zlib = require("zlib");
const held = [], words = new Map();
function work(n) {
    const rows = [];
    for (let i = 0; i < 8000; i++) {
        const name = crypto.createHash("sha256").update(n + ":" + i).digest("hex");
        rows.push({id: i, name, tags: [name.slice(0, 4), name.slice(4, 7)], at: new Date(i * 1e6).toISOString()});
        words.set(name.slice(0, 4), (words.get(name.slice(0, 4)) || 0) + 1);
    }
    const text = JSON.stringify(rows);
    return {rows: JSON.parse(text), packed: n % 4 ? null : zlib.gzipSync(text)};
}
for (let n = 0; n < 16; n++) held.push(work(n));
fs.writeFileSync("/tmp/ready", "");
setInterval(() => { held[held.length % 16] = work(held.length); }, 100);
"""

COMPILE_PROGRAM = """
cd /tree && mkdir -p /tmp/o && export PATH=/usr/bin:/bin
while true; do
    for f in $(find src -name '*.c'); do
        gcc -std=gnu11 -D_GNU_SOURCE -DTHAW_VERSION='"0"' -O2 -g -Iinclude -Isrc -c -o /tmp/o/$(echo $f | tr / _).o $f || touch /tmp/failed
        [ $(ls /tmp/o | wc -l) -lt 12 ] || touch /tmp/ready
    done
done
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
    return with_libraries(files, [PYTHON, *(path for path in files.values() if path.suffix == ".so")])


def with_libraries(files, programs):
    """The files, and the libraries of these."""
    for program in programs:
        for library in shared_libraries(program):
            files[str(library)[1:]] = library
    return files


def node_files():
    """The same of Node; None: it is not here."""
    node = shutil.which("node", path="/usr/bin")
    return with_libraries({"usr/bin/node": pathlib.Path(node).resolve()}, [node]) if node else None


def compile_files():
    """The same of gcc, as far as it goes to object files, and of what it is to compile; None: it is not here."""
    gcc = shutil.which("gcc", path="/usr/bin")
    if not gcc:
        return None
    ask = [subprocess.run([gcc, f"-print-prog-name={name}"], check=True, capture_output=True, text=True, timeout=20).stdout.strip()
           for name in ("cc1", "as")]
    cc1, assembler = (pathlib.Path(shutil.which(path, path="/usr/bin") or path) for path in ask)
    programs = {"usr/bin/gcc": pathlib.Path(gcc).resolve(), str(cc1)[1:]: cc1, "usr/bin/as": assembler.resolve()}
    files = with_libraries(dict(programs), programs.values())
    for source in sorted(path for folder in ("base", "core", "image", "uffd") for path in (ROOT / "src" / folder).glob("*.c")):
        said = subprocess.run([gcc, "-std=gnu11", "-D_GNU_SOURCE", "-O2", "-Iinclude", "-Isrc", "-M", source.relative_to(ROOT)], check=False,
                              capture_output=True, text=True, timeout=20, cwd=ROOT)
        for path in said.stdout.replace("\\\n", " ").split()[1:] if said.returncode == 0 else []:
            files[path[1:] if path.startswith("/") else f"tree/{path}"] = ROOT / path
    return files


def with_files(image, folder, files, program):
    """The guest image, with files and a program in its root: the kernel unpacks a second archive behind the first."""
    folders = sorted({str(parent) for name in files for parent in pathlib.PurePath(name).parents} - {"."})
    members = [(name, stat.S_IFDIR | 0o755, b"") for name in folders if name not in ("lib", "bin")]
    members += [(name, stat.S_IFREG | 0o755, path.read_bytes()) for name, path in files.items()]
    members += [("work", stat.S_IFREG | 0o644, program.encode())]
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


def take_other(out, name, files, program, command, say):
    """Boot a guest for one memory file."""
    image = guest_image.guest_image(say=say)
    folder = pathlib.Path(tempfile.mkdtemp(prefix="thaw-guest-"))
    try:
        say(f"a guest: {name}")
        with guest.boot(with_files(image, folder, files, program), folder, mem_mib=[MEMORY_MIB], smp=1, seconds=120) as vm:
            vm.console.run(f"(({command} /work >/tmp/log 2>&1 || touch /tmp/failed) &)")
            vm.console.run(wait_for("/tmp/ready"), WORK_SECONDS)
            keep(vm, folder, out, name)
    finally:
        shutil.rmtree(folder)


def take(out, say=print):
    """Boot guests and write the memory files that are not there yet. Return: their paths, by name."""
    paths = take_python(out, say)
    how = ((node_files, NODE_PROGRAM, "/usr/bin/node"), (compile_files, COMPILE_PROGRAM, "sh"))
    for name, (find, program, command) in zip(OTHERS, how):
        files = None if (out / name).exists() else find()
        if files:
            take_other(out, name, files, program, command, say)
        if (out / name).exists():
            paths[name] = out / name
        else:
            say(f"this host has no program for the guest {name}")
    return paths


def take_python(out, say):
    """The same of the guest with Python."""
    paths = {name: out / name for name in NAMES}
    if all(path.exists() for path in paths.values()):
        return paths
    image = guest_image.guest_image(say=say)
    folder = pathlib.Path(tempfile.mkdtemp(prefix="thaw-guest-"))
    try:
        say("booting the guest")
        with guest.boot(with_files(image, folder, python_files(), PROGRAM), folder, mem_mib=[MEMORY_MIB], smp=1, seconds=120) as vm:
            keep(vm, folder, out, "boot")
            say("a Python program in the guest")
            vm.console.run(f"(({PYTHON} /work >/tmp/log 2>&1 || touch /tmp/failed) &)")
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
