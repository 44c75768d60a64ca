# SPDX-License-Identifier: Apache-2.0
"""`thaw image pack` and `unpack`: what goes in comes out, and what costs nothing is not there."""

import contextlib
import os
import pty
import re
import resource
import signal
import subprocess
import threading
import time

import pytest

import thawtest
from image_reader import Image, Manifest
from imagelib import (LIMIT, PAGE, Store, blocks, make_memory, new_rng, page_bytes, random_pages, read_pages, same_bytes,
                      write_pages)
from workingset import make_workingset

pytestmark = pytest.mark.usefixtures("only_thaw")


@pytest.fixture
def store(lab):
    """A store that is not there yet."""
    return Store(lab.dir / "store")


def find_pages(manifest):
    """{page: (frame, index)} of a manifest."""
    return {first + i: (frame, index + i) for first, n, frame, index, _ in manifest.runs for i in range(n)}


# ---- there and back ----


@pytest.mark.parametrize("codec", ["zstd", "lz4", "none"])
@pytest.mark.parametrize("frame", ["4K", "20K", "64K", "2M"])
def test_what_was_packed_is_unpacked_to_the_byte_with_its_holes(lab, store, codec, frame):
    rng = new_rng()
    memory = make_memory(lab.dir / "memory", rng, n_pages=700)
    threads = rng.choice([1, 2, 7])
    store.pack(memory, "one", "--codec", codec, "--frame", frame, "--threads", threads)
    out = store.unpack("one", lab.dir / "out", "--threads", rng.choice([1, 3]))
    assert same_bytes(memory, out)
    assert blocks(out) <= sum(any(page) for page in read_pages(memory)) + 16  # and what the file system needs
    assert out.stat().st_mode & 0o777 == 0o600
    assert store.files()["tmp"] == set()


def test_levels_give_the_same_bytes_and_other_packs(lab, store):
    memory = make_memory(lab.dir / "memory", new_rng(), n_pages=400)
    ids = set()
    for codec, level in (("zstd", 1), ("zstd", 19), ("lz4", 1), ("lz4", 12)):
        ids.add(store.pack(memory, f"{codec}{level}", "--codec", codec, "--level", level))
        assert store.holds(f"{codec}{level}", memory, lab.dir / "out")
    assert len(ids) == 4


def test_a_chain_of_parents_gives_each_one_s_bytes_and_stores_no_page_twice(lab, store):
    rng = new_rng()
    memories, parent = [], None
    for depth in range(4):
        memory = make_memory(lab.dir / f"memory{depth}", rng, n_pages=500, parent=memories[-1] if memories else None)
        options = ["--parent", parent] if parent else []
        store.pack(memory, f"image{depth}", *options, "--frame", rng.choice(["4K", "16K", "128K"]),
                   "--codec", rng.choice(["zstd", "lz4", "none"]))
        memories.append(memory)
        parent = f"image{depth}"
    images = {image["name"]: image for image in store.ls()}
    ids = [images[f"image{depth}"]["id"] for depth in range(4)]
    for depth, memory in enumerate(memories):
        assert store.holds(f"image{depth}", memory, lab.dir / "out")
        assert images[f"image{depth}"]["parents"] == ids[:depth][::-1]
        check_own_pages(store, memory, memories[depth - 1] if depth else None, f"image{depth}")


def check_own_pages(store, memory, parent, name):
    """In the image's own pack is what is neither zero nor the parent's, and nothing else."""
    pages, olds = read_pages(memory), read_pages(parent) if parent else None
    manifest = Manifest(store.manifest_path(name))
    where = find_pages(manifest)
    for i, page in enumerate(pages):
        if not any(page):
            assert i not in where
        else:
            own = manifest.frames[where[i][0]][0] == 0 and manifest.has_own_pack
            assert own == (olds is None or olds[i] != page), i
    used = {frame for frame, _ in where.values()}
    assert used == set(range(len(manifest.frames))), "frames that no page is in"
    assert {frame[0] for frame in manifest.frames} == set(range(len(manifest.packs)))


def test_a_child_without_pages_of_its_own_has_no_pack_of_its_own(lab, store):
    memory = make_memory(lab.dir / "memory", new_rng())
    store.pack(memory, "one")
    before = store.files()["packs"]
    store.pack(memory, "two", "--parent", "one")
    assert store.files()["packs"] == before
    assert store.holds("two", memory, lab.dir / "out")
    assert Manifest(store.manifest_path("two")).has_own_pack == 0
    empty = write_pages(lab.dir / "empty", [None] * 200 + [bytes(PAGE)] * 100)
    store.pack(empty, "zero", "--parent", "two")
    store.pack(empty, "zeroes")
    assert store.files()["packs"] == before and store.holds("zeroes", empty, lab.dir / "out")


def test_a_page_that_was_removed_is_zero_in_the_child(lab, store):
    rng = new_rng()
    pages = [page_bytes(rng) for _ in range(64)]
    store.pack(write_pages(lab.dir / "1", pages), "one")
    pages[3:9] = [None] * 6  # a hole
    pages[20:22] = [bytes(PAGE)] * 2
    child = write_pages(lab.dir / "2", pages)
    store.pack(child, "two", "--parent", "one")
    assert store.holds("two", child, lab.dir / "out")
    assert not set(range(3, 9)) & set(find_pages(Manifest(store.manifest_path("two"))))


def test_bytes_that_come_back_in_a_grandchild_are_in_one_pack(lab, store):
    page, other = page_bytes(new_rng()), b"other" + bytes(PAGE - 5)
    for name, pages, options in (("a", [page, None, None], []),
                                 ("b", [page, other, None], ["--parent", "a"]),
                                 ("c", [page, other, page], ["--parent", "b"])):
        store.pack(write_pages(lab.dir / name, pages), name, *options)
        assert store.holds(name, lab.dir / name, lab.dir / "out")
    assert len(store.files()["packs"]) == 2
    assert len(Manifest(store.manifest_path("c")).packs) == 2


def test_bytes_that_come_back_in_other_frames_are_refused_in_one_line(lab, store):
    rng = new_rng()
    some, other = [rng.randbytes(PAGE) for _ in range(4)], [rng.randbytes(PAGE) for _ in range(4)]
    none = [None] * 4
    for name, pages, options in (("a", some + none + none, []), ("b", some + other + none, ["--parent", "a"])):
        store.pack(write_pages(lab.dir / name, pages), name, "--codec", "none", *options)
    last = write_pages(lab.dir / "c", some + other + some)
    line = store.fails("pack", last, "-o", "c", "--codec", "none", "--frame", "4K", "--parent", "b")
    assert "frames of another size" in line
    store.pack(last, "c", "--codec", "none", "--parent", "b")
    assert store.holds("c", last, lab.dir / "out")


# ---- the same in, the same out ----


def test_the_number_of_threads_does_not_change_the_id(lab, store):
    rng = new_rng()
    memory = make_memory(lab.dir / "memory", rng, n_pages=3000)
    hot = make_workingset(lab.dir / "ws", 3000 * PAGE, rng.sample(range(3000), 900))
    ids = [store.pack(memory, f"n{n}", "--threads", n, "--frame", "16K", "--working-set", hot) for n in (1, 2, 3, 8, 16)]
    assert len(set(ids)) == 1
    assert len(store.files()["packs"]) == 1 and len(store.files()["manifests"]) == 1
    assert len(store.names()) == 5


def test_an_image_is_as_old_as_its_memory(lab, store):
    memory = make_memory(lab.dir / "memory", new_rng())
    os.utime(memory, (0, 1_600_000_000))
    store.pack(memory, "one")
    assert store.ls()[0]["created_s"] == 1_600_000_000


def test_memory_is_for_threads_and_not_for_pages(lab, store):
    if os.environ.get("THAW_SANITIZER"):
        pytest.skip("a sanitizer has its own use for memory")

    def limit(mib):
        return lambda: resource.setrlimit(resource.RLIMIT_DATA, (mib << 20, mib << 20))

    rng = new_rng()
    memory = write_pages(lab.dir / "memory", [rng.randbytes(32) * 128] * 65536)  # 256 MiB
    store.pack(memory, "one", "--threads", 2, preexec_fn=limit(48))
    store.out("unpack", "one", "-o", lab.dir / "out", "--threads", 2, preexec_fn=limit(48))
    assert "no memory" in store.fails("pack", memory, "-o", "two", "--threads", 16, preexec_fn=limit(16))
    assert store.files()["tmp"] == set()


# ---- working sets ----


@pytest.mark.parametrize("with_parent", [False, True], ids=["alone", "child"])
def test_the_pages_of_a_working_set_come_first_in_the_order_of_the_touches(lab, store, with_parent):
    rng = new_rng()
    parent = make_memory(lab.dir / "parent", rng, n_pages=600)
    memory = make_memory(lab.dir / "memory", rng, n_pages=600, parent=parent)
    touched = rng.sample(range(600), 250)
    hot = make_workingset(lab.dir / "ws", 600 * PAGE, touched)
    options = []
    if with_parent:
        store.pack(parent, "parent")
        options = ["--parent", "parent"]
    store.pack(memory, "one", "--working-set", hot, "--frame", "20K", *options)
    assert store.holds("one", memory, lab.dir / "out")
    manifest = Manifest(store.manifest_path("one"))
    place = {where: page for page, where in find_pages(manifest).items() if manifest.frames[where[0]][0] == 0}
    stored = [place[where] for where in sorted(place)]
    first = [page for page in touched if page in set(stored)]
    assert stored == first + sorted(set(stored) - set(first))
    assert [page for start, n in manifest.hot for page in range(start, start + n)] == touched
    # A frame has pages of one of the two only.
    sizes = [frame[3] for frame in manifest.frames if frame[0] == 0]
    n_hot_frames = -(-len(first) // 5)
    assert sum(sizes[:n_hot_frames]) == len(first)


def test_a_working_set_of_huge_units_stands_for_all_their_pages(lab, store):
    rng = new_rng()
    memory = make_memory(lab.dir / "memory", rng, n_pages=2048)
    store.pack(memory, "one", "--working-set", make_workingset(lab.dir / "ws", 2048 * PAGE, [2, 3, 0], unit_shift=21))
    manifest = Manifest(store.manifest_path("one"))
    assert manifest.hot == [(1024, 1024), (0, 512)]
    assert store.holds("one", memory, lab.dir / "out")


def test_a_working_set_of_another_memory_file_is_refused(lab, store):
    memory = make_memory(lab.dir / "memory", new_rng(), n_pages=100)
    hot = make_workingset(lab.dir / "ws", 101 * PAGE, [1])
    line = store.fails("pack", memory, "-o", "one", "--working-set", hot)
    assert f"the working set is of a memory file of {101 * PAGE} bytes, {memory} has {100 * PAGE}" in line
    assert "cannot open working set" in store.fails("pack", memory, "-o", "one", "--working-set", lab.dir / "none")


# ---- what another program reads ----


def test_another_program_reads_the_image(lab, store):
    rng = new_rng()
    parent = make_memory(lab.dir / "parent", rng)
    memory = make_memory(lab.dir / "memory", rng, parent=parent)
    store.pack(parent, "parent", "--codec", "lz4")
    store.pack(memory, "one", "--parent", "parent")
    image = Image(store.path, "one")
    image.verify()
    image.unpack(lab.dir / "out")
    assert same_bytes(memory, lab.dir / "out")


# ---- what goes wrong ----


def test_a_memory_file_that_is_none_is_refused(lab, store):
    (lab.dir / "odd").write_bytes(bytes(PAGE + 1))
    (lab.dir / "empty").touch()
    os.mkfifo(lab.dir / "fifo")
    assert "cannot open memory file" in store.fails("pack", lab.dir / "none", "-o", "x")
    assert "has 4097 bytes, expected a multiple of 4096" in store.fails("pack", lab.dir / "odd", "-o", "x")
    assert "has 0 bytes" in store.fails("pack", lab.dir / "empty", "-o", "x")
    for path in (lab.dir, lab.dir / "fifo", "/dev/zero"):
        assert "is not a regular file" in store.fails("pack", path, "-o", "x")
    assert store.files() == {"names": set(), "manifests": set(), "packs": set(), "tmp": set()}


def test_a_memory_file_that_may_not_be_read_is_refused(lab):
    path = write_pages(lab.dir / "secret", [b"x" * PAGE])
    path.chmod(0)
    lab.dir.chmod(0o777)
    store = Store(lab.dir / "store")
    prefix = ["setpriv", "--reuid", "65534", "--clear-groups"] if os.getuid() == 0 else []
    if prefix and subprocess.run([*prefix, "test", "-x", thawtest.program("THAW")], check=False, timeout=LIMIT,
                                 stderr=subprocess.DEVNULL).returncode != 0:
        pytest.skip("root can read every file, and thaw cannot be run as another user here")
    done = subprocess.run([*prefix, *store.argv("pack", path, "-o", "one")], check=False, capture_output=True, text=True,
                          stdin=subprocess.DEVNULL, timeout=LIMIT)
    assert done.returncode == 1
    assert done.stderr == f"thaw image pack: cannot open memory file {path}: Permission denied\n"
    assert store.files()["tmp"] == set()


def test_a_parent_of_another_size_or_that_is_not_there_is_refused(lab, store):
    rng = new_rng()
    store.pack(make_memory(lab.dir / "1", rng, n_pages=100), "one")
    other = make_memory(lab.dir / "2", rng, n_pages=101)
    assert "the parent one has 409600 bytes" in store.fails("pack", other, "-o", "two", "--parent", "one")
    assert "no image three in the store" in store.fails("pack", other, "-o", "two", "--parent", "three")


def test_a_name_that_is_taken_stays_unless_it_is_to_be_replaced(lab, store):
    rng = new_rng()
    first, second = make_memory(lab.dir / "1", rng), make_memory(lab.dir / "2", rng)
    store.pack(first, "one")
    before = store.files()
    assert store.fails("pack", second, "-o", "one").endswith("there is an image one")
    assert store.files() == before
    store.pack(second, "one", "--replace")
    assert store.holds("one", second, lab.dir / "out")
    store.pack(second, "new", "--replace")


def small_files():
    """Files must not grow beyond 64 KiB; the signal that says so is left as it is."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (65536, 65536))


def test_a_pack_for_which_there_is_no_room_leaves_nothing_behind(lab, store):
    rng = new_rng()
    memory = write_pages(lab.dir / "memory", [rng.randbytes(PAGE) for _ in range(200)])
    line = store.fails("pack", memory, "-o", "one", preexec_fn=small_files)
    assert "cannot write the pack of image one: File too large" in line
    assert store.files() == {"names": set(), "manifests": set(), "packs": set(), "tmp": set()}
    store.pack(memory, "one")
    line = store.fails("unpack", "one", "-o", lab.dir / "out", preexec_fn=small_files)
    assert "out" in line and "File too large" in line
    assert [path.name for path in lab.dir.iterdir() if path.name.startswith("out")] == []


def test_bytes_that_are_broken_are_not_unpacked(lab, store):
    rng = new_rng()
    memory = write_pages(lab.dir / "memory", [page_bytes(rng) for _ in range(200)])
    store.pack(memory, "one", "--frame", "16K")
    pack, = (store.path / "packs").iterdir()
    data = bytearray(pack.read_bytes())
    target = lab.dir / "out"
    target.write_text("what is there")
    os.chmod(pack, 0o644)
    noticed = 0
    for _ in range(20):
        at = rng.randrange(64, len(data))
        bit = 1 << rng.randrange(8)
        data[at] ^= bit
        pack.write_bytes(data)
        done = store.run("unpack", "one", "-o", target)
        if done.returncode == 0:  # there are bits of a compressed frame that mean nothing
            assert same_bytes(memory, target)
            target.write_text("what is there")
        else:
            assert done.returncode == 1 and done.stderr.count("\n") == 1 and str(pack) in done.stderr
            noticed += 1
        data[at] ^= bit
    assert noticed >= 15
    pack.write_bytes(data[:-1])
    line = store.fails("unpack", "one", "-o", target)
    assert str(pack) in line and f"has {len(data) - 1} bytes, expected {len(data)}" in line
    pack.unlink()
    assert str(pack) in store.fails("unpack", "one", "-o", target)
    assert target.read_text() == "what is there"
    assert sorted(path.name for path in lab.dir.iterdir() if path.name.startswith("out")) == ["out"]


def test_a_memory_file_that_shrinks_or_changes_meanwhile_is_refused(lab, store):
    """Somebody changes the file again and again; at the end of each pack it is an image of one moment, or none."""
    memory = write_pages(lab.dir / "memory", random_pages(new_rng(), 4000))
    stop = threading.Event()

    def change():
        size = memory.stat().st_size
        while not stop.is_set():
            os.truncate(memory, size // 2)
            os.truncate(memory, size)

    changer = threading.Thread(target=change)
    changer.start()
    try:
        lines = []
        end = time.monotonic() + 20
        while time.monotonic() < end and not any("while it was read" in line for line in lines):
            done = store.run("pack", memory, "-o", "one", "--replace")
            assert done.returncode in (0, 1), done.stderr
            lines += done.stderr.splitlines()
    finally:
        stop.set()
        changer.join()
    assert any("was cut off while it was read" in line or "was written to while it was read" in line for line in lines)
    assert store.files()["tmp"] == set()


def slow_pack(lab, store, n=60):
    """A pack that has begun to write and takes some seconds, or fewer with a smaller `n`. Return: the process, the memory file."""
    rng = new_rng()
    some = [bytes(rng.choices(b"abcdefgh", k=512)) * 8 for _ in range(512)]
    memory = write_pages(lab.dir / "memory", some * n)
    argv = store.argv("pack", memory, "-o", "one", "--level", 19, "--frame", "2M", "--threads", 1)
    pack = lab.start("pack", argv)
    thawtest.wait_until(lambda: (store.path / "tmp").exists() and store.files()["tmp"], "the pack to begin")
    return pack, memory


def test_a_memory_file_that_is_written_to_meanwhile_is_refused(lab, store):
    pack, memory = slow_pack(lab, store, 12)
    pack.signal(signal.SIGSTOP)
    with open(memory, "r+b") as file:
        file.write(b"other")
    pack.signal(signal.SIGCONT)
    pack.expect_exit(1)
    assert pack.err == f"thaw image pack: memory file {memory} was written to while it was read\n"
    assert store.files() == {"names": set(), "manifests": set(), "packs": set(), "tmp": set()}


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_pack_that_is_stopped_leaves_nothing_behind(lab, store, number):
    before = signal.signal(number, signal.SIG_DFL)  # who runs the tests may ignore it
    pack, _ = slow_pack(lab, store)
    signal.signal(number, before)
    pack.signal(number)
    pack.expect_exit(1)
    assert (pack.out, pack.err) == ("", "thaw image pack: stopped by a signal\n")
    assert store.files() == {"names": set(), "manifests": set(), "packs": set(), "tmp": set()}


def test_on_a_terminal_there_is_a_bar_with_a_rate_and_the_time_that_is_left(lab, store):
    rng = new_rng()
    memory = write_pages(lab.dir / "memory", [rng.randbytes(64) * 64 for _ in range(6000)])
    ours, theirs = pty.openpty()
    shown = b""
    try:
        argv = store.argv("pack", memory, "-o", "one", "--level", 19, "--threads", 1)
        with subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=theirs) as pack:
            os.close(theirs)
            with contextlib.suppress(OSError):  # EIO: nobody has the other side any more
                while part := os.read(ours, 65536):
                    shown += part
            assert pack.wait(LIMIT) == 0
    finally:
        os.close(ours)
    lines = shown.decode().split("\r")
    bars = [line for line in lines if re.fullmatch(r"\[#*\.*\] +\d+ % packing, [\d.]+ [KMG]iB/s, \d+:\d\d left *", line)]
    assert bars and bars[-1].startswith("[" + "#" * 30 + "] 100 %"), lines
    assert lines[-2].startswith("one: 23.44 MiB of memory, 23.44 MiB stored in "), lines


@pytest.mark.parametrize("args", [
    ["pack"],
    ["pack", "memory"],
    ["pack", "-o", "one"],
    ["pack", "memory", "more", "-o", "one"],
    ["pack", "memory", "-o", ""],
    ["pack", "memory", "-o", ".one"],
    ["pack", "memory", "-o", "-one"],
    ["pack", "memory", "-o", "a/b"],
    ["pack", "memory", "-o", "x" * 129],
    ["pack", "memory", "-o", "one", "--codec", "gzip"],
    ["pack", "memory", "-o", "one", "--codec", "none", "--level", "3"],
    ["pack", "memory", "-o", "one", "--codec", "lz4", "--level", "13"],
    ["pack", "memory", "-o", "one", "--level", "0"],
    ["pack", "memory", "-o", "one", "--level", "23"],
    ["pack", "memory", "-o", "one", "--frame", "5000"],
    ["pack", "memory", "-o", "one", "--frame", "0"],
    ["pack", "memory", "-o", "one", "--frame", "4M"],
    ["pack", "memory", "-o", "one", "--threads", "0"],
    ["pack", "memory", "-o", "one", "--threads", "many"],
    ["pack", "memory", "-o", "one", "--no-such-option"],
    ["unpack"],
    ["unpack", "one"],
    ["unpack", "-o", "out"],
    ["unpack", "one", "two", "-o", "out"],
    ["unpack", "one", "-o", "out", "--threads", "0"],
    ["unpack", "one", "-o", "out", "--no-such-option"],
    ["ls", "one"],
    ["ls", "--no-such-option"],
    ["rm"],
    ["rm", "--no-such-option", "one"],
    ["gc", "one"],
    ["gc", "--no-such-option"],
], ids=lambda args: " ".join(args)[:40])
def test_a_usage_error_is_one_line_and_exit_2(lab, store, args):
    store.fails(*args, code=2, cwd=lab.dir)
    assert not store.path.exists()


def test_thaw_image_alone_says_what_there_is(lab):
    def image(*args):
        return subprocess.run([thawtest.program("THAW"), "image", *args], check=False, capture_output=True, text=True,
                              stdin=subprocess.DEVNULL, timeout=LIMIT, cwd=lab.dir)

    for args in ([], ["look"]):
        done = image(*args)
        assert done.returncode == 2 and len(done.stderr.splitlines()) == 1 and done.stdout == "", args
    for args in (["--help"], ["-h"], ["pack", "--help"], ["unpack", "-h"], ["ls", "-h"], ["rm", "-h"], ["gc", "-h"]):
        done = image(*args)
        assert done.returncode == 0 and done.stdout.startswith("usage: thaw image") and done.stderr == "", args


def test_an_output_that_takes_nothing_is_an_error(lab, store):
    store.pack(make_memory(lab.dir / "memory", new_rng()), "one")
    for args in (["ls"], ["ls", "--json"], ["gc"], ["pack", lab.dir / "memory", "-o", "two"]):
        with open("/dev/full", "wb") as full:
            done = subprocess.run(store.argv(*args), check=False, stdout=full, stderr=subprocess.PIPE, text=True,
                                  stdin=subprocess.DEVNULL, timeout=LIMIT)
        assert done.returncode == 1 and "cannot write" in done.stderr, args
