# SPDX-License-Identifier: Apache-2.0
"""
A pack, a removal, a collection is killed before each call that changes the store, or the power goes: what is there is whole.

Whatever happens, the store opens, each image that is listed has its bytes, what was acknowledged is there, nobody else's image
has gone, and gc leaves nothing behind. tests/lib/powerloss.py says what a disk may hold after power loss.
"""

import os
import re
import shutil
import subprocess

import pytest

import thawtest
from imagelib import LIMIT, PAGE, Store, make_memory, new_rng
from powerloss import Recording
from workingset import make_workingset

CHANGES = ("mkdir", "mkdirat", "openat", "write", "fsync", "renameat2", "unlinkat")
MOST_STATES = 60
EVERYWHERE = bool(os.environ.get("THAW_CRASH_EVERYWHERE"))  # all states; some minutes


@pytest.fixture(autouse=True)
def only_thaw():
    """These tests are about thaw itself."""
    if thawtest.reference():
        pytest.skip("about thaw, not about the reference pager")
    thawtest.needs_strace()


@pytest.fixture
def rng():
    """Random numbers from a printed seed."""
    return new_rng()


class Scene:
    """A store before something happens to it: memory files a, b and c, of which the first two may be packed."""

    def __init__(self, lab, rng):
        self.dir = lab.dir
        self.before = Store(lab.dir / "before" / "store")
        self.before.path.parent.mkdir()
        parent = None
        for name in "abc":
            parent = make_memory(lab.dir / name, rng, n_pages=40, parent=parent)
        self.hot = make_workingset(lab.dir / "ws", 40 * PAGE, rng.sample(range(40), 15))

    def pack(self, memory, name, *options):
        """Arguments that make an image of one of the memory files."""
        return ["pack", self.dir / memory, "-o", name, "--threads", 1, *options]

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
        there = {name: {**may_be, **whole}[name] for name in names}
        for name, memories in there.items():
            out = store.unpack(name, store.path.parent / "out")
            assert out.read_bytes() in [(self.dir / memory).read_bytes() for memory in memories], name
        return self.check_after(store, there)

    def check_after(self, store, there):
        """Work goes on as if nothing had been: an image is made, and gc leaves what is needed."""
        store.out(*self.pack("c", "after"))
        assert store.holds("after", self.dir / "c", store.path.parent / "out")
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
    "a removal": (a_then_b, lambda s: ["rm", "b"], {"a": "a"}, {"b": "b"}, {"a": "a"}, "b"),
    "a collection": (
        lambda s: [*a_then_b(s), s.pack("c", "b", "--replace"), s.pack("b", "d"), ["rm", "d"]], lambda s: ["gc"],
        {"a": "a", "b": "c"}, {}, {"a": "a", "b": "c"}, ()),
}


def places(store, args):
    """[(call, which one of its thread)] of a run: before each call that changes files, and so after each, too."""
    log = store.path.parent / "count.log"
    subprocess.run(["strace", "-f", "-e", f"trace={','.join(CHANGES)}", "-o", str(log), *store.argv(*args)], check=True,
                   stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, timeout=LIMIT)
    counts, found = {}, {}
    for line in log.read_text(encoding="utf-8", errors="replace").splitlines():
        if match := re.match(r"(\d+) +(\w+)\(", line):
            counts[match.groups()] = n = counts.get(match.groups(), 0) + 1
            if match[2] != "openat" or "O_CREAT" in line:
                found[match[2], n] = True
    return list(found)


@pytest.mark.parametrize("what", SCENES)
def test_killed_before_any_call_it_leaves_every_image_whole(lab, rng, what):
    before, args, whole, may_be, after, gone = SCENES[what]
    scene = Scene(lab, rng)
    scene.prepare(*before(scene))
    killed = 0
    for i, (call, n) in enumerate(places(scene.copy("count"), args(scene))):
        store = scene.copy(f"kill{i}")
        done = subprocess.run(
            ["strace", "-f", "-o", "/dev/null", "-e", f"trace={call}", "-e", f"inject={call}:signal=KILL:when={n}",
             *store.argv(*args(scene))], check=False, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, timeout=LIMIT)
        killed += done.returncode != 0
        if done.returncode == 0:
            scene.check(store, after, gone=gone)
        else:
            scene.check(store, whole, may_be)
        shutil.rmtree(store.path.parent)
    print(f"{what}: killed {killed} times")
    assert killed >= 4


@pytest.mark.parametrize("what", SCENES)
def test_when_the_power_goes_every_image_is_whole(lab, rng, what):
    before, args, whole, may_be, after, gone = SCENES[what]
    scene = Scene(lab, rng)
    scene.prepare(*before(scene))
    store = scene.copy("record")
    record = Recording(store.path, store.argv(*args(scene)))
    assert record.status == 0, record.err
    scene.check(store, after, gone=gone)
    states = record.states(rng, 1 << 30 if EVERYWHERE else MOST_STATES)
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
