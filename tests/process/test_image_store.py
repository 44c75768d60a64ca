# SPDX-License-Identifier: Apache-2.0
"""A store of images: what is listed, what may be removed and when, and what is freed."""

import contextlib
import fcntl
import os
import pathlib
import re
import signal
import subprocess
import threading
import time

import pytest

import thawtest
from imagelib import LIMIT, PAGE, Store, TIME, make_memory, new_rng

pytestmark = pytest.mark.usefixtures("only_thaw")


@pytest.fixture
def rng():
    """Random numbers from a printed seed."""
    return new_rng()


@pytest.fixture
def store(lab, rng):
    """A store with the images a, its child b, b's child c, and d, which is alone."""
    one = Store(lab.dir / "store")
    parent = None
    for name in "abc":
        memory = make_memory(lab.dir / name, rng, n_pages=100, parent=lab.dir / parent if parent else None)
        one.pack(memory, name, *(["--parent", parent] if parent else []))
        parent = name
    one.pack(make_memory(lab.dir / "d", rng, n_pages=50), "d")
    return one


@contextlib.contextmanager
def locked(path, how):
    """flock(2) as another program does it."""
    fd = os.open(path, os.O_RDONLY)
    try:
        fcntl.flock(fd, how | fcntl.LOCK_NB)
        yield
    finally:
        os.close(fd)


def whole(lab, store, names):
    """Just these images are there, and each has its bytes."""
    assert set(store.names()) == set(names)
    return all(store.holds(name, lab.dir / name, lab.dir / "out") for name in names)


# ---- opening ----


def test_a_folder_that_is_no_store_is_refused_and_left_alone(lab):
    for path in (lab.dir, lab.dir / "not-there"):
        store = Store(path)
        for args in (["ls"], ["gc"], ["rm", "one"], ["unpack", "one", "-o", "out"]):
            assert str(path) in store.fails(*args)
    assert not (lab.dir / "not-there").exists() and not (lab.dir / "out").exists()
    assert "is not a store of images" in Store(lab.dir).fails("ls")


def test_a_store_is_made_by_the_first_pack_and_is_private(lab, rng):
    store = Store(str(lab.dir / "store") + "//")
    memory = make_memory(lab.dir / "memory", rng)
    store.pack(memory, "one")
    assert store.path.stat().st_mode & 0o777 == 0o700
    assert {path.name for path in store.path.iterdir()} == {"lock", "manifests", "names", "packs", "tmp"}
    for folder in ("names", "manifests", "packs"):
        for path in (store.path / folder).iterdir():
            assert path.stat().st_mode & 0o777 == 0o444
    assert "cannot make the store" in Store(lab.dir / "no/where").fails("pack", memory, "-o", "one")


def test_the_store_comes_from_the_environment_unless_it_is_given(lab, store):
    environment = {**os.environ, "THAW_STORE": str(store.path)}
    argv = [thawtest.program("THAW"), "image", "ls"]
    done = subprocess.run(argv, check=True, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=LIMIT,
                          env=environment)
    assert len(done.stdout.splitlines()) == 5
    assert len(store.out("ls", env={**os.environ, "THAW_STORE": str(lab.dir)}).splitlines()) == 5


# ---- ls ----


def test_ls_has_names_ids_sizes_parents_and_time(store):
    images = {image["name"]: image for image in store.ls()}
    assert list(images) == ["a", "b", "c", "d"]
    assert images["c"]["parents"] == [images["b"]["id"], images["a"]["id"]]
    for image in images.values():
        assert image["image_bytes"] == (50 if image["name"] == "d" else 100) * PAGE
        assert image["created_s"] == TIME
        assert image["own_pack_bytes"] <= image["all_pack_bytes"]
    lines = [re.split(r" {2,}", line) for line in store.out("ls").splitlines()]
    assert [word.lower() for word in lines[0]][0] == "name"
    for line, image in zip(store.out("ls").splitlines()[1:], images.values()):
        assert line.startswith(image["name"]) and image["id"][:12] in line
        assert line.split()[-1] == {"b": "a", "c": "b"}.get(image["name"], "-")


def test_an_image_that_cannot_be_read_is_told_of_and_the_others_are_listed(store):
    path = store.manifest_path("b")
    data = bytearray(path.read_bytes())
    data[200] ^= 1
    os.chmod(path, 0o644)
    path.write_bytes(data)
    done = store.run("ls", "--json")
    assert done.returncode == 1 and len(done.stdout.splitlines()) == 3
    line, = done.stderr.splitlines()
    assert line.startswith("thaw image ls: b: ") and str(path) in line


def test_an_empty_store_is_listed(store):
    store.out("rm", "c", "b", "a", "d")
    assert store.out("ls") == "" == store.out("ls", "--json")


# ---- names and ids ----


def test_an_image_is_found_by_its_name_or_the_first_digits_of_its_id(lab, store):
    ids = store.names()
    for name in "abcd":
        n = next(n for n in range(1, 65) if sum(i.startswith(ids[name][:n]) for i in ids.values()) == 1)
        for digits in (ids[name][:max(n, 2)], ids[name]):
            if digits not in ids:
                assert store.holds(digits, lab.dir / name, lab.dir / "out")
    assert "no image 0123456789 in the store" in store.fails("unpack", "0123456789", "-o", lab.dir / "new")
    assert "is no name of an image" in store.fails("unpack", "../lock", "-o", lab.dir / "new")
    assert not (lab.dir / "new").exists()


def test_digits_that_are_not_enough_are_refused(lab, store):
    for n in range(20):  # by then two of 24 ids begin with the same digit
        store.pack(make_memory(lab.dir / "memory", new_rng(), n_pages=4), f"more{n}")
    firsts = [image_id[0] for image_id in store.names().values()]
    digit = next((digit for digit in firsts if firsts.count(digit) > 1 and digit not in "abcd"), None)
    if digit is None:
        digit = max(firsts, key=firsts.count)
        store.out("rm", "c", "b", "a", "d")
    assert f"have an id that begins with {digit}" in store.fails("unpack", digit, "-o", lab.dir / "out")


def test_a_name_that_is_a_file_of_something_else_is_refused(lab, store):
    (store.path / "names/odd").write_text("hello\n")
    assert "names/odd is damaged" in store.fails("unpack", "odd", "-o", lab.dir / "out")
    os.symlink(store.path / "names/a", store.path / "names/link")
    assert "names/link" in store.fails("unpack", "link", "-o", lab.dir / "out")


# ---- rm ----


def test_a_parent_stays_while_a_child_is_there(lab, store):
    assert store.fails("rm", "a").endswith("image a stays: it is a parent of image b")
    assert "is a parent of image c" in store.fails("rm", "b")
    assert whole(lab, store, "abcd")
    store.out("rm", "c")
    store.out("rm", "b", "a")
    assert whole(lab, store, "d")
    assert "no image a in the store" in store.fails("rm", "a")


def test_an_image_that_is_in_use_stays(lab, store):
    with locked(store.manifest_path("d"), fcntl.LOCK_SH):
        assert "image d stays: it is in use" in store.fails("rm", "d")
    assert whole(lab, store, "abcd")
    with locked(store.manifest_path("d"), fcntl.LOCK_EX):
        assert "is being removed" in store.fails("unpack", "d", "-o", lab.dir / "out")
    store.out("rm", "d")


def test_who_opens_an_image_waits_for_somebody_who_may_remove_it(lab, store):
    out = lab.dir / "out"
    with locked(store.manifest_path("d"), fcntl.LOCK_EX):
        unpack = subprocess.Popen(store.argv("unpack", "d", "-o", out), stderr=subprocess.PIPE, text=True)
        files = pathlib.Path(f"/proc/{unpack.pid}/fd")
        try:
            thawtest.wait_until(lambda: unpack.poll() is not None or store.manifest_path("d") in open_in(files), "it to be opened")
        except BaseException:
            unpack.kill()
            raise
    assert unpack.communicate(timeout=thawtest.DEADLINE) == (None, "") and unpack.returncode == 0
    assert out.read_bytes() == (lab.dir / "d").read_bytes()


def open_in(files):
    """What the links of /proc/PID/fd lead to."""
    found = []
    for link in files.iterdir():
        with contextlib.suppress(FileNotFoundError):
            found.append(link.readlink())
    return found


def test_of_two_names_of_an_image_one_may_go_at_any_time(lab, store):
    store.pack(lab.dir / "a", "alias")
    assert store.names()["alias"] == store.names()["a"]
    with locked(store.manifest_path("a"), fcntl.LOCK_SH):
        store.out("rm", "a")
    assert store.holds("alias", lab.dir / "a", lab.dir / "out")
    assert "is a parent of image b" in store.fails("rm", "alias")


def test_a_name_that_leads_nowhere_can_be_removed(lab, store):
    store.manifest_path("d").unlink()
    assert store.run("ls").returncode == 1
    store.out("rm", "d")
    assert whole(lab, store, "abc")


def test_an_image_that_was_replaced_is_still_its_child_s_parent(lab, store):
    store.pack(lab.dir / "d", "a", "--replace")
    assert "no name" in store.out("ls") and None in [image["name"] for image in store.ls()]
    store.out("gc")
    assert store.holds("b", lab.dir / "b", lab.dir / "out") and store.holds("c", lab.dir / "c", lab.dir / "out")
    assert len(store.ls()) == 5
    store.out("rm", "c", "b")
    store.out("gc")
    assert [image["name"] for image in store.ls()] == ["a", "d"]


def test_a_child_without_a_name_is_named_by_its_id_when_it_keeps_its_parent(lab, store):
    old = store.names()["c"]
    store.pack(lab.dir / "d", "c", "--replace")
    line = store.fails("rm", "b")
    assert f"it is a parent of image {old}, which has no name: gc removes that" in line
    store.out("gc")
    store.out("rm", "b")


# ---- gc ----


def test_gc_frees_what_no_image_needs_and_says_how_much(lab, store):
    assert store.out("gc") == "freed 0 bytes: images without a name 0, packs 0, unfinished files 0\n"
    before = store.files()
    store.out("rm", "c", "d")
    (store.path / "tmp/123.0").write_bytes(bytes(5000))
    told = store.out("gc", "--dry-run")
    assert re.fullmatch(r"would free .* KiB: images without a name 0, packs 2, unfinished files 1\n", told)
    assert store.files()["packs"] == before["packs"] and store.files()["tmp"] == {"123.0"}
    assert store.out("gc") == told.replace("would free", "freed")
    assert len(store.files()["packs"]) == 2 and store.files()["tmp"] == set()
    assert whole(lab, store, "ab")


def test_gc_leaves_an_image_that_is_in_use_though_no_name_leads_to_it(lab, store):
    old = store.manifest_path("d")
    packs = store.files()["packs"]
    store.pack(lab.dir / "c", "d", "--replace", "--codec", "lz4")
    with locked(old, fcntl.LOCK_SH):
        assert store.out("gc").splitlines()[1] == "1 without a name is in use and stays"
        assert old.exists() and packs <= store.files()["packs"]
    assert "images without a name 1, packs 1" in store.out("gc")
    assert not old.exists()


def test_gc_leaves_a_store_alone_in_which_an_image_is_being_made(store):
    (store.path / "tmp/1.0").touch()
    with locked(store.path / "lock", fcntl.LOCK_SH):
        assert "is in use: an image is being made" in store.fails("gc")
        assert "is in use" in store.fails("gc", "--dry-run")
    assert store.files()["tmp"] == {"1.0"}
    with locked(store.path / "tmp/1.0", fcntl.LOCK_SH):
        store.out("gc")
        assert store.files()["tmp"] == {"1.0"}
    store.out("gc")
    assert store.files()["tmp"] == set()


def test_gc_removes_nothing_while_a_manifest_cannot_be_read(store):
    store.out("rm", "c")
    path = store.manifest_path("d")
    os.chmod(path, 0o644)
    with open(path, "r+b") as file:
        file.truncate(150)
    before = store.files()
    assert str(path) in store.fails("gc")
    (store.path / "manifests/notes").touch()
    assert "notes has no place there" in store.fails("gc")
    assert store.files() == {**before, "manifests": before["manifests"] | {"notes"}}


def test_a_pack_waits_for_gc(lab, store):
    with locked(store.path / "lock", fcntl.LOCK_EX):
        pack = lab.start("pack", store.argv("pack", lab.dir / "d", "-o", "new"))
        thawtest.wait_until(lambda: waits_for_lock(pack.pid), "the pack to wait")
        assert store.files()["tmp"] == set()
    pack.expect_exit(0)
    assert store.holds("new", lab.dir / "d", lab.dir / "out")


def test_a_pack_that_waits_for_gc_can_be_stopped(lab, store):
    with locked(store.path / "lock", fcntl.LOCK_EX):
        pack = lab.start("pack", store.argv("pack", lab.dir / "d", "-o", "new"))
        thawtest.wait_until(lambda: waits_for_lock(pack.pid), "the pack to wait")
        pack.signal(signal.SIGTERM)
        pack.expect_exit(1)
    assert "cannot lock the store" in pack.err and whole(lab, store, "abcd")


def waits_for_lock(pid):
    """Does a process wait in flock(2)? /proc/locks has a line with an arrow for it."""
    with open("/proc/locks", encoding="ascii") as locks:
        return any("->" in line and f" {pid} " in line for line in locks)


# ---- all at once ----


def test_packs_removals_and_gc_at_the_same_time_leave_every_image_whole(lab, store, rng):
    memories = [lab.dir / "d"] + [make_memory(lab.dir / f"m{i}", rng, n_pages=50, parent=lab.dir / "d") for i in range(2)]
    stop = time.monotonic() + 3
    wrong = []

    def work(number):
        names = [f"w{number}", "shared"]
        n = 0
        while time.monotonic() < stop and not wrong:
            n += 1
            name, memory = names[n % 2], memories[n % 3]
            parent = ["--parent", "d"] if n % 4 == 1 else []
            done = store.run("pack", memory, "-o", name, "--replace", *parent)
            if done.returncode != 0:
                wrong.append(done.stderr)
            done = store.run("unpack", name, "-o", lab.dir / f"out{number}")
            if done.returncode != 0 and not (name == "shared" and re.search("no image|cannot open|being removed", done.stderr)):
                wrong.append(done.stderr)
            done = store.run("rm", name)
            if done.returncode != 0 and not re.search("no image|in use|meanwhile|parent of", done.stderr):
                wrong.append(done.stderr)
            if n % 3 == 0:
                done = store.run("gc")
                if done.returncode != 0 and "is in use" not in done.stderr:
                    wrong.append(done.stderr)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong, wrong[0]
    store.out("gc")
    for name in store.names():
        if name in "abcd":
            assert store.holds(name, lab.dir / name, lab.dir / "out")
        else:
            store.unpack(name, lab.dir / "out")
    assert store.files()["tmp"] == set()
