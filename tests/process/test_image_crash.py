# SPDX-License-Identifier: Apache-2.0
"""
A pack, a diff, a removal, a collection is killed or stopped at each call that changes the store, the call fails, or the power goes: what is
there is whole.

Whatever happens, the store opens, each image that is listed has its bytes, what was acknowledged is there, nobody else's image
has gone, and gc leaves nothing behind. tests/lib/powerloss.py says what a disk may hold after power loss.

Some of the calls and states are taken at random. By hand, all of them, in a minute:

    THAW_CRASH_EVERYWHERE=1 meson test -C build 'a store of images outlives a kill and a loss of power at any moment'
"""

import os
import re
import shutil
import subprocess

import pytest

import thawtest
from imagelib import LIMIT, PAGE, Store, make_memory, new_rng, write_pages
from layerlib import Vm
from powerloss import Recording
from workingset import make_workingset

pytestmark = pytest.mark.usefixtures("only_thaw")

CHANGES = ("mkdir", "mkdirat", "openat", "write", "fsync", "renameat2", "unlinkat")
EVERYWHERE = bool(os.environ.get("THAW_CRASH_EVERYWHERE"))  # all calls and states, not a random part of them; a minute or two
MOST_STATES = 1 << 30 if EVERYWHERE else 40
MOST_PLACES = 1 << 30 if EVERYWHERE else 10


@pytest.fixture(autouse=True)
def strace():
    """It cuts the writes off."""
    thawtest.needs_strace()


@pytest.fixture
def rng():
    """Random numbers from a printed seed."""
    return new_rng()


class Scene:
    """A store before something happens to it: memory files a, b and c, of which the first two may be packed."""

    def __init__(self, lab, rng):
        self.lab, self.dir = lab, lab.dir
        self.vm = None
        self.before = Store(lab.dir / "before" / "store")
        self.before.path.parent.mkdir()
        parent = None
        for name in "abc":
            parent = make_memory(lab.dir / name, rng, n_pages=40, parent=parent)
        self.hot = make_workingset(lab.dir / "ws", 40 * PAGE, rng.sample(range(40), 15))

    def pack(self, memory, name, *options):
        """Arguments that make an image of one of the memory files."""
        return ["pack", self.dir / memory, "-o", name, "--threads", 1, *options]

    def diff(self, name, how):
        """Arguments that make an image of what a VM changed that came from a; the memory file v is what it finds."""
        if not self.vm:
            self.vm = Vm(self.lab, self.dir / "a")
            for page in (3, 4, 9, 30):
                self.vm.write(page)
            self.vm.remove(7, 5)
            self.vm.read(8)
            self.vm.write_diff(self.dir / "diff")
            write_pages(self.dir / "v", self.vm.pages)
        what = {"sparse": ["--sparse", self.dir / "diff"], "vm": ["--pid", self.vm.peer.pid]}[how]
        return ["diff", *what, "--state", self.vm.state, "--parent", "a", "-o", name, "--threads", 1]

    def prepare(self, *verbs):
        """What has happened before."""
        for args in verbs:
            self.before.out(*args)

    def copy(self, name):
        """The store as it was before."""
        folder = self.dir / name
        folder.mkdir()
        if self.before.path.exists():
            shutil.copytree(self.before.path, folder / "store")
        return Store(folder / "store")

    def check(self, store, whole, may_be=None, gone=()):
        """
        `whole`: {name: memory file} that must be there; `may_be`: {name: memory file} of which each may be there; `gone`: names
        that must not be.
        """
        may_be = may_be or {}
        if not (store.path / "lock").exists():
            assert not whole
            if store.path.exists():
                return self.check_after(store, {})
            return None
        names = store.names()
        assert set(whole) <= set(names) <= set(whole) | set(may_be), names
        assert not set(gone) & set(names)
        return self.check_after(store, {name: {**may_be, **whole}[name] for name in names})

    def check_after(self, store, there):
        """Work goes on as if nothing had been: an image is made and removed, gc leaves what is needed; and that is whole."""
        store.out(*self.pack("c", "after"))
        store.out("rm", "after")
        store.out("gc")
        assert set(store.names()) == set(there)
        files = store.files()
        assert files["tmp"] == set() and len(files["names"]) == len(there)
        for name, memories in there.items():
            out = store.unpack(name, store.path.parent / "out")
            assert out.read_bytes() in [(self.dir / memory).read_bytes() for memory in memories], name
        assert store.out("gc").startswith("freed 0 bytes")


def a_then_b(scene):
    return [scene.pack("a", "a"), scene.pack("b", "b", "--parent", "a")]


# What is there before, what is done, and what must be there, may be there, must be gone when it is done.
SCENES = {
    "the first pack": (
        lambda s: [], lambda s: s.pack("a", "a", "--working-set", s.hot), {}, {"a": "a"}, {"a": "a"}, ()),
    "a child": (
        lambda s: [s.pack("a", "a")], lambda s: s.pack("b", "b", "--parent", "a"), {"a": "a"}, {"b": "b"},
        {"a": "a", "b": "b"}, ()),
    "another image of the same name": (
        lambda s: [s.pack("a", "a")], lambda s: s.pack("b", "a", "--replace"), {"a": "ab"}, {}, {"a": "b"}, ()),
    "the same image again": (
        lambda s: [s.pack("a", "a")], lambda s: s.pack("a", "b"), {"a": "a"}, {"b": "a"}, {"a": "a", "b": "a"}, ()),
    "a layer of a diff file": (
        lambda s: [s.pack("a", "a")], lambda s: s.diff("b", "sparse"), {"a": "a"}, {"b": "v"}, {"a": "a", "b": "v"}, ()),
    "a layer of a VM, in place of another": (
        lambda s: [s.pack("a", "a"), s.pack("b", "b", "--parent", "a")], lambda s: [*s.diff("b", "vm"), "--replace"],
        {"a": "a", "b": "bv"}, {}, {"a": "a", "b": "v"}, ()),
    "a removal": (a_then_b, lambda s: ["rm", "b"], {"a": "a"}, {"b": "b"}, {"a": "a"}, "b"),
    "a collection": (
        lambda s: [*a_then_b(s), s.pack("c", "b", "--replace"), s.pack("b", "d"), ["rm", "d"]], lambda s: ["gc"],
        {"a": "a", "b": "c"}, {}, {"a": "a", "b": "c"}, ()),
}


def places(store, args, rng):
    """[(call, which one of its thread)] of a run: before each call that changes files, and so after each, too; or some of them."""
    log = store.path.parent / "count.log"
    subprocess.run(["strace", "-f", "-e", f"trace={','.join(CHANGES)}", "-o", str(log), *store.argv(*args)], check=True,
                   stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, timeout=LIMIT)
    counts, found = {}, {}
    for line in log.read_text(encoding="utf-8", errors="replace").splitlines():
        if match := re.match(r"(\d+) +(\w+)\(", line):
            counts[match.groups()] = n = counts.get(match.groups(), 0) + 1
            if match[2] != "openat" or "O_CREAT" in line:
                found[match[2], n] = True
    return rng.sample(list(found), min(len(found), MOST_PLACES))


def inject(store, args, call, n, what):
    """Run a verb and have something happen at a call of it. Return: how it ended."""
    return subprocess.run(
        ["strace", "-f", "-o", "/dev/null", "-e", f"trace={call}", "-e", f"inject={call}:{what}:when={n}", *store.argv(*args)],
        check=False, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=LIMIT)


@pytest.mark.parametrize("what", SCENES)
def test_killed_before_any_call_it_leaves_every_image_whole(lab, rng, what):
    before, args, whole, may_be, after, gone = SCENES[what]
    scene = Scene(lab, rng)
    scene.prepare(*before(scene))
    killed = 0
    for i, (call, n) in enumerate(places(scene.copy("count"), args(scene), rng)):
        store = scene.copy(f"kill{i}")
        done = inject(store, args(scene), call, n, "signal=KILL")
        killed += done.returncode != 0
        if done.returncode == 0:
            scene.check(store, after, gone=gone)
        else:
            scene.check(store, whole, may_be)
        shutil.rmtree(store.path.parent)
    print(f"{what}: killed {killed} times")
    assert killed >= 4


@pytest.mark.parametrize("what", SCENES)
def test_when_any_call_fails_it_is_told_in_one_line_and_every_image_is_whole(lab, rng, what):
    before, args, whole, may_be, _, _ = SCENES[what]
    scene = Scene(lab, rng)
    scene.prepare(*before(scene))
    for i, (call, n) in enumerate(places(scene.copy("count"), args(scene), rng)):
        if call == "unlinkat" and args(scene)[0] in ("pack", "diff"):
            continue  # of what is in the way in tmp/: it stays for gc
        store = scene.copy(f"fail{i}")
        done = inject(store, args(scene), call, n, "error=" + ("EIO" if call == "fsync" else "ENOSPC"))
        lines = done.stderr.splitlines()
        assert done.returncode == 1 and (len(lines) == 1 and lines[0].startswith("thaw image ") or
                                         call == "write" and lines == []), (call, n, done)  # that line may be the write that fails
        if (store.path / "tmp").exists():
            assert store.files()["tmp"] == set(), (call, n)
        scene.check(store, whole, may_be)
        shutil.rmtree(store.path.parent)


@pytest.mark.parametrize("what", ["the first pack", "a child", "a layer of a diff file"])
def test_stopped_at_any_call_it_ends_whole_or_leaves_nothing(lab, rng, what):
    before, args, whole, may_be, after, _ = SCENES[what]
    scene = Scene(lab, rng)
    scene.prepare(*before(scene))
    for i, (call, n) in enumerate(places(scene.copy("count"), args(scene), rng)):
        store = scene.copy(f"stop{i}")
        done = inject(store, args(scene), call, n, "signal=TERM")
        if done.returncode == 0:
            assert store.files()["tmp"] == set(), (call, n)
            scene.check(store, after)
        else:  # by the signal itself, while the program has not begun; with a line, while it works
            assert done.returncode == -15 or "signal" in done.stderr or "Interrupted" in done.stderr, (call, n, done)
            assert not (store.path / "tmp").exists() or store.files()["tmp"] == set(), (call, n)
            scene.check(store, whole, may_be)
        shutil.rmtree(store.path.parent)


def test_an_unpack_that_is_stopped_leaves_nothing_behind(lab, rng):
    scene = Scene(lab, rng)
    scene.prepare(scene.pack("a", "a", "--frame", "4K"))
    folder = lab.dir / "target"
    folder.mkdir()
    done = inject(scene.before, ["unpack", "a", "-o", folder / "file", "--threads", 1], "ftruncate", 1, "signal=TERM")
    assert (done.returncode, done.stderr) == (1, "thaw image unpack: stopped by a signal\n")
    assert list(folder.iterdir()) == []


def test_when_the_power_goes_an_unpacked_file_is_the_old_one_or_the_new_one(lab, rng):
    scene = Scene(lab, rng)
    scene.prepare(scene.pack("a", "a"))
    folder = lab.dir / "parent" / "target"
    folder.mkdir(parents=True)
    (folder / "file").write_bytes(b"what was there")
    record = Recording(folder, scene.before.argv("unpack", "a", "-o", folder / "file", "--threads", 1))
    assert record.status == 0, record.err
    new = (lab.dir / "a").read_bytes()
    states = record.states(rng, 1 << 30)
    assert {state.tree["target/file"] for state in states} == {b"what was there", new}
    assert all(state.tree["target/file"] == new for state in states if state.done)


@pytest.mark.parametrize("what", SCENES)
def test_when_the_power_goes_every_image_is_whole(lab, rng, what):
    before, args, whole, may_be, after, gone = SCENES[what]
    scene = Scene(lab, rng)
    scene.prepare(*before(scene))
    store = scene.copy("record")
    record = Recording(store.path, store.argv(*args(scene)))
    assert record.status == 0, record.err
    scene.check(store, after, gone=gone)
    states = record.states(rng, MOST_STATES)
    for i, state in enumerate(states):
        folder = lab.dir / f"state{i}"
        folder.mkdir()
        state.write(folder)
        try:
            if state.done:
                scene.check(Store(folder / "store"), after, gone=gone)
            else:
                scene.check(Store(folder / "store"), whole, may_be)
        except AssertionError:
            print(f"state {i} of {len(states)}, after call {state.calls} of {len(record.points)}:")
            print("\n".join(sorted(state.tree)))
            raise
        shutil.rmtree(folder)
    print(f"{what}: {len(states)} states")
