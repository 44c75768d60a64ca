# SPDX-License-Identifier: Apache-2.0
"""`thaw image diff`: the next layer of an image is what the guest would find, however it is told what changed."""

import contextlib
import os
import shutil
import signal

import pytest

import thawtest
from image_reader import Manifest
from imagelib import PAGE, TIME, Store, make_memory, new_rng, page_bytes, random_pages, read_pages, same_bytes, write_pages
from layerlib import Vm, wander

pytestmark = pytest.mark.usefixtures("only_thaw")

PAGES = 200
HUGE = 512  # pages of 4 KiB in one of 2 MiB


@pytest.fixture
def store(lab):
    """A store that is not there yet."""
    return Store(lab.dir / "store")


def make_base(lab, store, n_pages=PAGES):
    """A memory file in which every page has bytes; it is the image "base", too."""
    rng = new_rng()
    path = write_pages(lab.dir / "memory", [page_bytes(rng) for _ in range(n_pages)])
    store.pack(path, "base")
    return path, rng


def diff(store, name, *args, parent="base"):
    """Make a layer, without a word on stderr."""
    out = store.out("diff", "--parent", parent, "-o", name, *args)
    assert len(out) == 65
    return out[:64]


def own_pages(store, name):
    """The pages that are in an image's own pack."""
    manifest = Manifest(store.manifest_path(name))
    return {first + i for first, n, frame, _, _ in manifest.runs for i in range(n)
            if manifest.has_own_pack and manifest.frames[frame][0] == 0}


def ways(vm, path):
    """{name: arguments} that tell what a VM is like at this moment: a dirty log, what is resident, all of it, itself."""
    vm.write_diff(f"{path}.log")
    vm.write_diff(f"{path}.resident", vm.resident())
    vm.write_diff(f"{path}.memory", range(len(vm.pages)))
    return {"log": ["--sparse", f"{path}.log", "--state", vm.state],
            "resident": ["--sparse", f"{path}.resident", "--state", vm.state],
            "memory": ["--memory", f"{path}.memory"],
            "vm": ["--pid", vm.peer.pid, "--state", vm.state]}


# ---- the rule ----


def test_a_removed_page_is_zero_though_the_diff_has_a_hole_there_and_the_parent_has_bytes(lab, store):
    memory, _ = make_base(lab, store)
    vm = Vm(lab, memory)
    vm.write(3)
    vm.remove(10, 5)
    vm.remove(20, 2)
    vm.read(20)  # comes back as zero, and nobody writes to it
    vm.write(30)
    vm.remove(30)
    vm.remove(40)
    vm.write(40)
    path = vm.write_diff(lab.dir / "diff")
    diff(store, "next", "--sparse", path, "--state", vm.state)
    assert vm.holds(store, "next")
    assert own_pages(store, "next") == {3, 40}
    saved = shutil.copy(vm.state, lab.dir / "saved")
    vm.close()
    assert diff(store, "again", "--sparse", path, "--state", saved) == store.names()["next"]


def test_data_wins_over_zero_and_zero_wins_over_the_parent(lab, store):
    memory, rng = make_base(lab, store)
    vm = Vm(lab, memory)
    vm.remove(10, 20)
    pages = list(vm.pages)
    pages[12], pages[13], pages[14] = page_bytes(rng), bytes(PAGE), read_pages(memory)[14]
    path = write_pages(lab.dir / "diff", [page if i in (12, 13, 14) else None for i, page in enumerate(pages)])
    diff(store, "next", "--sparse", path, "--state", vm.state)
    assert same_bytes(store.unpack("next", lab.dir / "out"), write_pages(lab.dir / "expected", pages))
    assert own_pages(store, "next") == {12}
    vm.close()


def test_without_a_state_a_hole_is_the_parent_s_and_one_line_warns(lab, store):
    memory, _ = make_base(lab, store)
    vm = Vm(lab, memory)
    vm.write(5)
    path = vm.write_diff(lab.dir / "diff")
    done = store.run("diff", "--parent", "base", "-o", "next", "--sparse", path)
    assert done.returncode == 0 and len(done.stdout) == 65
    assert [line.startswith("thaw image diff: warning: without --state") for line in done.stderr.splitlines()] == [True]
    assert vm.holds(store, "next")
    diff(store, "silent", "--sparse", path, "--state", "none")
    assert store.names()["silent"] == store.names()["next"]
    vm.close()


# ---- in each of the ways ----


@pytest.mark.parametrize("track", ["none", "wp"])
@pytest.mark.parametrize("n_regions", [1, 3])
def test_the_layer_is_what_the_guest_finds_however_it_is_told(lab, store, track, n_regions):
    memory, rng = make_base(lab, store)
    vm = Vm(lab, memory, "--track", track, n_regions=n_regions)
    wander(vm, rng)
    for name, args in ways(vm, lab.dir / "diff").items():
        diff(store, name, *args, "--threads", rng.choice([1, 3]))
        assert vm.holds(store, name)
    base = read_pages(memory)
    changed = {i for i, page in enumerate(vm.pages) if page != base[i] and any(page)}
    assert {name: own_pages(store, name) for name in store.names() if name != "base"} == \
        {name: changed for name in ("log", "resident", "memory", "vm")}
    store.out("verify", "--all")
    vm.close()


@pytest.mark.parametrize("track", ["none", "wp"])
def test_the_same_with_huge_pages(lab, store, huge, track):
    memory, rng = make_base(lab, store, 8 * HUGE)
    vm = Vm(lab, memory, "--track", track, page_size="2M", n_regions=2)
    wander(vm, rng, 25)
    told = ways(vm, lab.dir / "diff")
    told.pop("log")  # that one does not tell enough, see below
    for name, args in told.items():
        diff(store, name, *args)
        assert vm.holds(store, name)
    vm.close()


def test_a_memory_that_is_zero_in_places_and_a_working_set_become_a_layer(lab, store):
    rng = new_rng()
    memory = make_memory(lab.dir / "memory", rng, n_pages=600)
    store.pack(memory, "base")
    record = lab.dir / "ws"
    vm = Vm(lab, memory, "--record", record, "--let-go", "off")
    wander(vm, rng)
    told = ways(vm, lab.dir / "diff")
    for name, args in told.items():
        diff(store, name, *args)
        assert vm.holds(store, name)
    pages = list(vm.pages)
    vm.close()
    diff(store, "hot", *told["memory"], "--working-set", record, "--codec", "lz4", "--frame", "8K")
    assert Manifest(store.manifest_path("hot")).hot
    assert read_pages(store.unpack("hot", lab.dir / "out")) == pages


@pytest.mark.parametrize("way", ["log", "resident", "memory", "vm"])
def test_three_vms_of_which_each_comes_from_the_layer_before_make_a_chain(lab, store, way):
    memory, rng = make_base(lab, store)
    parent = "base"
    for depth in range(3):
        vm = Vm(lab, memory, "--track", rng.choice(["none", "wp"]))
        wander(vm, rng, 30)
        path = lab.dir / f"diff{depth}"
        told = ways(vm, path)
        for kind in ("log", "resident", "memory"):  # older than the next VM, which may be of the same second
            os.utime(f"{path}.{kind}", (TIME, TIME))
        diff(store, f"layer{depth}", *told[way], parent=parent)
        assert vm.holds(store, f"layer{depth}")
        memory = store.unpack(f"layer{depth}", lab.dir / f"memory{depth}")
        parent = f"layer{depth}"
        vm.close()
    assert len(Manifest(store.manifest_path("layer2")).parents) == 3


@pytest.mark.parametrize("way", ["log", "resident", "memory", "vm"])
def test_three_layers_of_one_vm_that_goes_on_make_a_chain(lab, store, way):
    memory, rng = make_base(lab, store)
    vm = Vm(lab, memory, "--track", "wp")
    parent = "base"
    for depth in range(3):
        wander(vm, rng, 30)
        diff(store, f"layer{depth}", *ways(vm, lab.dir / f"diff{depth}")[way], parent=parent)
        assert vm.holds(store, f"layer{depth}")
        parent = f"layer{depth}"
        vm.dirty = set()
    vm.close()


@pytest.mark.parametrize("track", ["none", "wp"])
def test_a_vm_that_is_served_from_an_image_becomes_a_layer_of_that_one_and_of_no_other(lab, store, track):
    memory, rng = make_base(lab, store)
    store.pack(write_pages(lab.dir / "other", [page_bytes(rng) for _ in range(PAGES)]), "other")
    vm = Vm(lab, memory, "--track", track, image=["--image", "base", "--store", store.path])
    wander(vm, rng)
    for name, args in ways(vm, lab.dir / "diff").items():
        diff(store, name, *args)
        assert vm.holds(store, name)
    before = store.names()
    done = store.run("diff", "--parent", "other", "-o", "wrong", "--pid", vm.peer.pid, "--state", vm.state)
    assert done.returncode == 1
    assert "other" in done.stderr and len(done.stderr.splitlines()) == 1
    assert store.names() == before
    vm.close()


# ---- what cannot be told ----


def test_a_hole_of_which_nobody_knows_what_is_there_is_refused(lab, store):
    memory, _ = make_base(lab, store)
    vm = Vm(lab, memory, "--track", "none")
    vm.remove(50)
    vm.read(50)
    vm.write(50)  # nobody hears of it
    first = vm.write_diff(lab.dir / "first")
    os.utime(first, (2**32, 2**32))  # younger than the VM
    diff(store, "first", "--sparse", first, "--state", vm.state)
    second = vm.write_diff(lab.dir / "second", set())
    line = store.fails("diff", "--parent", "first", "-o", "second", "--sparse", second, "--state", vm.state)
    assert f"hole at offset {50 * PAGE} " in line
    diff(store, "second", "--pid", vm.peer.pid, "--state", vm.state, parent="first")
    assert vm.holds(store, "second")
    vm.close()


def test_a_state_that_is_not_of_the_moment_of_the_diff_is_refused(lab, store):
    memory, _ = make_base(lab, store)
    vm = Vm(lab, memory)
    path = vm.write_diff(lab.dir / "diff")
    vm.write(7)
    line = store.fails("diff", "--parent", "base", "-o", "next", "--sparse", path, "--state", vm.state)
    assert f"hole at offset {7 * PAGE} " in line
    vm.close()


def test_a_huge_page_that_was_written_to_in_part_may_have_been_removed_before(lab, store, huge):
    memory, _ = make_base(lab, store, 4 * HUGE)
    vm = Vm(lab, memory, page_size="2M")
    vm.write(3)
    path = vm.write_diff(lab.dir / "diff")
    diff(store, "one", "--sparse", path, "--state", vm.state)
    assert vm.holds(store, "one")
    vm.remove(HUGE, HUGE)
    vm.write(HUGE + 5)
    path = vm.write_diff(lab.dir / "diff")
    line = store.fails("diff", "--parent", "base", "-o", "two", "--sparse", path, "--state", vm.state)
    assert "hole at offset 0 " in line
    diff(store, "two", "--pid", vm.peer.pid, "--state", vm.state)
    assert vm.holds(store, "two")
    vm.close()


def test_a_page_that_was_removed_and_is_there_all_the_same_is_what_it_is(lab, store):
    memory, _ = make_base(lab, store)
    vm = Vm(lab, memory)
    vm.write(9)
    vm.write(11)
    vm.free(9)
    vm.free(11)
    if not vm.resident() >= {9, 11}:
        pytest.skip("the kernel has taken the pages at once")
    vm.write(11)
    diff(store, "next", "--pid", vm.peer.pid, "--state", vm.state)
    found = read_pages(store.unpack("next", lab.dir / "out"))
    assert found[9] in (vm.pages[9], bytes(PAGE)) and found[11] == vm.pages[11]
    vm.close()


# ---- what goes wrong ----


@contextlib.contextmanager
def stopped_diff(lab, store, vm):
    """A diff that has begun to write, and stands still while the block runs; then it goes on to its end."""
    for page in range(1000, len(vm.pages)):
        vm.write(page, os.urandom(64) * 64)
    one = lab.start("diff", store.argv("diff", "--parent", "base", "-o", "next", "--pid", vm.peer.pid, "--state", vm.state,
                                       "--level", 19, "--threads", 1))
    thawtest.wait_until(lambda: store.files()["tmp"], "the diff to begin")
    one.signal(signal.SIGSTOP)
    yield one
    one.signal(signal.SIGCONT)
    one.wait()


def check_nothing_made(store, one):
    """A diff said in one line why there is no layer, and left nothing behind."""
    assert (one.wait(), one.out, len(one.err.splitlines())) == (1, "", 1), one.err
    assert set(store.names()) == {"base"} and store.files()["tmp"] == set()


@pytest.mark.parametrize("track, what", [("none", "write"), ("none", "write-clean"), ("none", "write-absent"), ("none", "remove"),
                                         ("wp", "write"), ("wp", "write-clean"), ("wp", "remove")])
def test_a_vm_that_goes_on_gives_no_layer(lab, store, track, what):
    memory, _ = make_base(lab, store, 5000)
    vm = Vm(lab, memory, "--track", track)
    vm.write(5)
    vm.read(6)
    with stopped_diff(lab, store, vm) as one:
        page = {"write": 5, "write-clean": 6, "write-absent": 7, "remove": 5}[what]
        if what == "remove":
            vm.remove(page)
        else:
            vm.write(page, b"other")
    check_nothing_made(store, one)
    assert f"the memory of process {vm.peer.pid} changed at offset {page * PAGE} " in one.err
    vm.close()


@pytest.mark.parametrize("track", ["none", "wp"])
def test_a_page_that_is_only_read_meanwhile_is_no_change(lab, store, track):
    memory, _ = make_base(lab, store, 5000)
    vm = Vm(lab, memory, "--track", track)
    vm.remove(8)
    with stopped_diff(lab, store, vm) as one:
        vm.read(7)
        vm.read(8)
    one.expect_exit(0)
    assert vm.holds(store, "next")
    vm.close()


@pytest.mark.parametrize("who", ["pager", "vmm"])
def test_a_pager_or_a_vmm_that_ends_meanwhile_gives_no_layer(lab, store, who):
    memory, _ = make_base(lab, store, 5000)
    vm = Vm(lab, memory)
    with stopped_diff(lab, store, vm) as one:
        process = vm.pager if who == "pager" else vm.peer
        process.signal(signal.SIGKILL)
        process.wait()
        if who == "vmm":
            vm.pager.expect_exit(0)
    check_nothing_made(store, one)
    assert str(vm.state) in one.err or str(vm.peer.pid) in one.err


def test_a_vm_without_its_pager_gives_no_layer(lab, store):
    memory, _ = make_base(lab, store)
    vm = Vm(lab, memory)
    vm.write(5)
    vm.remove(6)
    path = vm.write_diff(lab.dir / "diff")
    saved = shutil.copy(vm.state, lab.dir / "saved")
    for state in (saved, lab.dir / "none"):
        line = store.fails("diff", "--parent", "base", "-o", "next", "--pid", vm.peer.pid, "--state", state)
        assert str(state) in line
    diff(store, "next", "--sparse", path, "--state", saved)
    assert vm.holds(store, "next")
    vm.close()


def test_a_state_whose_pager_has_a_message_in_hand_is_waited_for_or_refused(lab, store):
    memory, _ = make_base(lab, store)
    vm = Vm(lab, memory)
    path = vm.write_diff(lab.dir / "diff")
    with open(vm.state, "r+b") as state:
        state.seek(48)  # inbox_off, see thaw-state(5)
        inbox = int.from_bytes(state.read(8), "little")
    message = bytes([0x12]) + bytes(31)
    with open(vm.state, "r+b") as state:
        state.seek(inbox + 32)
        state.write(message)
    args = ["--parent", "base", "-o", "next", "--sparse", path, "--state"]
    assert "does not rest" in store.fails("diff", *args, vm.state)
    with open(vm.state, "rb") as state:
        saved = lab.dir / "saved"
        saved.write_bytes(state.read())
    assert "in hand" in store.fails("diff", *args, saved)
    one = lab.start("diff", store.argv("diff", *args, vm.state))
    with open(vm.state, "r+b") as state:
        state.seek(inbox + 32)
        state.write(bytes(32))
    one.expect_exit(0)
    vm.close()


def test_a_state_that_a_killed_pager_left_behind_is_as_good_as_another(lab, store):
    memory, _ = make_base(lab, store)
    vm = Vm(lab, memory)
    vm.remove(6)
    path = vm.write_diff(lab.dir / "diff")
    vm.pager.signal(signal.SIGKILL)
    vm.pager.wait()
    diff(store, "next", "--sparse", path, "--state", vm.state)
    assert vm.holds(store, "next")
    line = store.fails("diff", "--parent", "base", "-o", "more", "--pid", vm.peer.pid, "--state", vm.state)
    assert "no pager holds" in line


def test_what_is_no_layer_of_this_parent_is_refused(lab, store):
    memory, rng = make_base(lab, store)
    store.pack(write_pages(lab.dir / "small", random_pages(rng, PAGES - 1)), "small")
    vm = Vm(lab, memory)
    path = vm.write_diff(lab.dir / "diff")
    for args in (["--sparse", path, "--state", "none"], ["--sparse", path, "--state", vm.state],
                 ["--memory", path], ["--pid", vm.peer.pid, "--state", vm.state]):
        assert "bytes" in store.fails("diff", "--parent", "small", "-o", "next", *args)
    assert "nobody" in store.fails("diff", "--parent", "nobody", "-o", "next", "--memory", path)
    assert "not a state file" in store.fails("diff", "--parent", "base", "-o", "next", "--sparse", path, "--state", memory)
    assert "there is an image base" in store.fails("diff", "--parent", "base", "-o", "base", "--memory", path)
    assert set(store.names()) == {"base", "small"} and store.files()["tmp"] == set()
    vm.close()


@pytest.mark.parametrize("args, words", [
    (["--sparse", "f"], "--parent is missing"),
    (["--parent", "p"], "expected one of --sparse, --memory and --pid"),
    (["--parent", "p", "--sparse", "f", "--memory", "f"], "expected one of"),
    (["--parent", "p", "--memory", "f", "--state", "s"], "--state is not for --memory"),
    (["--parent", "p", "--pid", "self"], "--pid self: expected"),
    (["--parent", "p", "--pid", "-1"], "--pid -1: expected"),
    (["--parent", "p", "--pid", "1", "--state", "none"], "--state none is for --sparse"),
    (["--parent", "p", "--sparse", "f", "g"], "unexpected argument g"),
    (["--parent", "p", "--sparse", "f", "--codec", "gzip"], "--codec gzip"),
])
def test_wrong_arguments_are_refused(store, args, words):
    assert words in store.fails("diff", "-o", "next", *args, code=2)
    assert not store.path.exists()
