# SPDX-License-Identifier: Apache-2.0
"""thaw serve --image: the same bytes as from the memory file, or a VM that is stopped."""

import json
import os
import pathlib
import re
import resource
import shutil
import signal
import subprocess

import pytest

import matrix
import thawtest
from recordlib import ask, shown, thaw, wait_over
from servelib import change, expect_stopped, make_chain, pack
from thawtest import Peer, check_stats, let_go, wait_until

pytestmark = pytest.mark.usefixtures("only_thaw")

ALONE = ["--image-share", "off", "--image-cache", "4K"]  # a pager that has what it needs at the moment, and for itself


@pytest.fixture
def image(lab):
    """An image with zeroes and holes in it."""
    return pack(lab, lab.memory("8M", seed=matrix.SEED))


def serve_all(lab, image, *args, steps=("write:threads=4,n=200", "balloon:threads=4,n=200", "verify"), vmm=()):
    """A VMM that is served from an image and checks every byte. Return: the statistics."""
    print("seed", image.seed)
    pager = lab.serve(image, *args)
    result = lab.run_vmm(pager, image, *vmm, *steps)
    pager.expect_exit(0)
    check_stats(pager.stats(), result)
    return pager.stats()


# ---- every byte ----


@pytest.mark.parametrize("args", [
    [], ["--fault-around", "0"], ["--fault-around", "2M"], ["--track", "wp"], ["--fill"], ["--confine", "off"],
    ["--supervise", "--fill"], ["--image-share", "off"], [*ALONE, "--fill"], ["--image-share", "1M", "--image-cache", "4K"],
], ids=" ".join)
def test_every_byte_is_right(lab, image, args):
    serve_all(lab, image, *args)


@pytest.mark.parametrize("name", ["random", "herd", "runs", "race-of-four", "syscalls"])
def test_every_byte_is_right_under_load(lab, image, name):
    serve_all(lab, image, steps=matrix.SMALL[name], vmm=matrix.LAYOUTS["three-regions-adjacent"])


@pytest.mark.parametrize("codec, frame", [("none", "4K"), ("none", "2M"), ("lz4", "64K"), ("zstd", "4K"), ("zstd", "2M")])
def test_every_codec_and_size_of_frame_is_served(lab, codec, frame):
    memory = lab.memory("8M", seed=matrix.SEED)
    serve_all(lab, pack(lab, memory, "--codec", codec, "--frame", frame), steps=["shuffle:threads=4"])


@pytest.mark.usefixtures("huge")
@pytest.mark.parametrize("frame", ["64K", "1M"])
@pytest.mark.parametrize("args", [[], ["--fill"], ALONE], ids=" ".join)
def test_huge_pages_are_served(lab, frame, args):
    image = pack(lab, lab.memory("32M", seed=matrix.SEED), "--frame", frame)
    lab.serve(image)  # somebody to share with
    serve_all(lab, image, *args, vmm=["--page-size", "2M"], steps=["write:threads=4,n=20", "balloon:n=30", "verify"])


@pytest.mark.parametrize("depth", [1, 10, 1000])
def test_a_chain_of_any_depth_serves_the_same_bytes(lab, depth):
    image = make_chain(lab, lab.memory("8M", seed=matrix.SEED, dense=True), depth)
    assert len(image.packs()) == depth
    serve_all(lab, image, steps=["shuffle:threads=4"])


def test_a_child_that_was_packed_on_top_of_its_parent_is_served(lab):
    old, new = lab.memory("8M", seed=matrix.SEED), lab.own_memory("8M", seed=matrix.SEED + 1)
    image = pack(lab, old, name="parent")
    with open(old.path, "rb") as source, open(new.path, "r+b") as target:
        source.seek(1 << 20)
        target.seek(1 << 20)
        target.write(source.read(1 << 20))
    del image
    child = pack(lab, new, "--parent", "parent", name="child")
    pager = lab.serve(child)
    lab.run_vmm(pager, child, "seq:end=256", "seq:first=512")
    pager.expect_exit(0)
    pager = lab.serve(child)
    child.seed = old.seed
    lab.run_vmm(pager, child, "seq:first=256,end=512")
    pager.expect_exit(0)


def test_what_a_read_brought_is_installed_with_it(lab):
    image = pack(lab, lab.memory("8M", seed=5, dense=True), "--frame", "256K")
    pager = lab.serve(image, "--fault-around", "16K")
    vmm = lab.start_vmm(pager, image, "seq:first=128,end=129", "pause", "seq:first=128,end=192")
    vmm.wait_line("paused")
    wait_until(lambda: ask(pager)["states"]["clean"] == 64, "the rest of the frame")
    faults = ask(pager)["counters"]["faults"]
    let_go(vmm)
    lab.finish_vmm(vmm)
    pager.expect_exit(0)
    assert pager.stats()["counters"]["faults"] == faults == 1


@pytest.mark.parametrize("args", [["--image-share", "off"], ["--fill"]], ids=" ".join)
def test_pages_given_back_while_they_are_fetched_come_up_as_zeroes(lab, args):
    memory = lab.own_memory("16M", seed=5, dense=True, where="disk")
    image = pack(lab, memory, store=memory.path.parent / "store")
    for path in image.packs():
        path.chmod(0o644)
        thawtest.drop_cache(path)
    stats = serve_all(lab, image, *args, steps=["balloon:threads=16,n=400", "verify"])
    assert stats["counters"]["fetches"] > 0


# ---- the working set ----


@pytest.fixture
def hot_image(lab):
    """An image whose working set is the pages from 300 to 1700, and its pages."""
    memory = lab.memory("8M", seed=matrix.SEED, dense=True)
    path = lab.dir / "set"
    pager = lab.serve(memory, "--record", path)
    lab.run_vmm(pager, memory, "shuffle:threads=4,first=300,end=1700")
    pager.expect_exit(0)
    return pack(lab, memory, "--working-set", path)


@pytest.mark.parametrize("args", [[], ["--prefetch-before-resume", "all"], ["--image-share", "off", "--image-cache", "1M"]], ids=" ".join)
def test_the_working_set_of_an_image_is_installed_without_being_asked_for(lab, hot_image, args):
    pager = lab.serve(hot_image, *args)
    vmm = lab.start_vmm(pager, hot_image, "pause", "shuffle:threads=4,first=300,end=1700", "verify")
    vmm.wait_line("paused")
    stats = wait_over(pager)
    assert stats["ahead"]["working_set_pages"] == stats["counters"]["pages_ahead"] == 1400
    assert stats["counters"]["ahead_left"] == 0
    let_go(vmm)
    lab.finish_vmm(vmm)
    pager.expect_exit(0)


def test_the_working_set_of_an_image_can_be_left_out(lab, hot_image):
    stats = serve_all(lab, hot_image, "--prefetch", "none", "--fault-around", "0", steps=["seq:first=300,end=310"])
    assert stats["ahead"]["working_set_pages"] == stats["counters"]["pages_ahead"] == 0
    assert stats["counters"]["faults"] == 10


def test_a_fault_does_not_wait_for_the_working_set(lab, hot_image):
    pager = lab.serve(hot_image, "--prefetch-rate", "40960")
    lab.run_vmm(pager, hot_image, "seq:first=300,end=330", "seq:first=1690,end=1710")
    pager.expect_exit(0)
    assert not pager.stats()["ahead"]["over"]


def test_a_record_of_an_image_has_what_was_asked_for_and_nothing_else(lab, hot_image):
    path = lab.dir / "record"
    serve_all(lab, hot_image, "--record", path, steps=["seq:first=40,end=50"])
    assert shown(path) == [(page, "read") for page in range(40, 50)]


@pytest.mark.usefixtures("huge")
def test_the_working_set_serves_huge_pages_too(lab, hot_image):
    serve_all(lab, hot_image, vmm=["--page-size", "2M"], steps=["random:threads=4,n=10", "verify"])


# ---- memory ----


def anonymous_kib(pager):
    """KiB of a pager's own memory."""
    return int(re.search(r"RssAnon:\s+(\d+)", pathlib.Path(f"/proc/{pager.pid}/status").read_text()).group(1))


@pytest.mark.parametrize("cache, least, most", [("1M", 0, 12), ("64M", 20, 96)])
def test_the_bound_of_what_is_decompressed_is_kept(lab, cache, least, most):
    if os.environ.get("THAW_SANITIZER"):
        pytest.skip("a sanitizer has its own use for memory")
    image = pack(lab, lab.memory("32M", seed=5, dense=True), "--frame", "16K")
    pager = lab.serve(image, "--image-share", "off", "--image-cache", cache)
    vmm = lab.start_vmm(pager, image, "shuffle:threads=2", "pause")
    vmm.wait_line("paused")
    assert least << 10 <= anonymous_kib(pager) <= most << 10
    let_go(vmm)
    lab.finish_vmm(vmm)
    pager.expect_exit(0)


def test_the_bound_is_kept_when_what_was_planned_could_not_be_read(lab):
    """Installs take so long that some of the plan are left when a read for it fails."""
    thawtest.needs_strace()
    if os.environ.get("THAW_SANITIZER"):
        pytest.skip("a sanitizer has its own use for memory")
    image = pack(lab, lab.memory("32M", seed=5, dense=True), "--frame", "16K", "--codec", "none")
    change(image.packs()[0], 64 + 400 * 4096, 100)
    socket, stats_file = lab.socket(), lab.dir / "stats"
    pager = thawtest.Pager(lab, "traced", [
        "strace", "-D", "-f", "-qq", "-o", lab.dir / "strace", "-e", "trace=ioctl",
        "-e", "inject=ioctl:delay_enter=50000:when=1..40", thawtest.program("THAW"), "serve", "--socket", socket,
        *image.serve_args(), "--image-share", "off", "--image-cache", "1M", "--fill", "--state", lab.state_dir,
        "--stats", stats_file], socket, stats_file)
    lab.processes.append(pager)
    pager.wait_listening()
    vmm = lab.start_vmm(pager, image, "pause", "shuffle:threads=2,first=600", "pause")
    pager.wait_line("cannot read ahead")
    vmm.wait_line("paused")
    let_go(vmm)
    wait_until(lambda: vmm.out.count("paused") + vmm.err.count("paused") == 2, "every page to be touched")
    assert anonymous_kib(pager) <= 12 << 10
    let_go(vmm)
    lab.finish_vmm(vmm)
    pager.expect_exit(0)


def test_pages_that_were_dropped_before_they_were_used_are_fetched_again(lab):
    image = pack(lab, lab.memory("32M", seed=5, dense=True), "--frame", "64K")
    stats = serve_all(lab, image, *ALONE, "--fault-around", "0", steps=["shuffle:threads=4"])
    assert stats["counters"]["fetches"] > 2 * 512, "each of 512 frames was fetched about once: none was dropped"


# ---- successors ----


@pytest.mark.parametrize("args", [[], ["--fill", "--prefetch-rate", "4M"]], ids=" ".join)
def test_a_killed_pager_is_followed_by_one_that_serves_the_same_image(lab, image, args):
    pager = lab.serve(image, "--supervise", *args)
    vmm = lab.start_vmm(pager, image, "seq:end=300", "pause", "balloon:threads=4,n=400", "verify")
    vmm.wait_line("paused")
    thaw("image", "rm", image.name, "--store", image.store, code=1)
    serving = int(re.search(r"pager_pid=(\d+)", pager.err).group(1))
    os.kill(serving, signal.SIGKILL)
    let_go(vmm)
    pager.wait_line("taken over")
    lab.finish_vmm(vmm)
    pager.expect_exit(0)


def orphan(lab, image):
    """A VM whose pager was killed: it waits."""
    pager = lab.serve(image)
    vmm = lab.start_vmm(pager, image, "seq:end=300", "pause", "balloon:threads=4,n=300", "verify")
    vmm.wait_line("paused")
    pager.signal(signal.SIGKILL)
    pager.wait()
    return vmm


def adopt(lab, vmm, *args):
    """A process that takes over."""
    return lab.start_pager("--adopt", str(vmm.pid), "--state", lab.state_dir, *args)


@pytest.mark.parametrize("told", [False, True])
def test_a_vm_is_taken_over_with_the_image_that_it_had(lab, image, told):
    vmm = orphan(lab, image)
    other = lab.memory("8M", seed=matrix.SEED + 1)
    had = image.id()
    pack(lab, other, "--replace")
    assert image.id() != had
    pager = adopt(lab, vmm, *(["--image", had[:20], "--store", image.store] if told else []))
    pager.wait_line("taken over")
    let_go(vmm)
    lab.finish_vmm(vmm)
    pager.expect_exit(0)


def test_another_image_is_refused_and_the_vm_left_as_it_is(lab, image):
    vmm = orphan(lab, image)
    other = pack(lab, lab.memory("8M", seed=matrix.SEED + 1), name="other")
    adopt(lab, vmm, *other.serve_args()).expect_error("was served from image:", image.id(), other.id())
    adopt(lab, vmm, "--memory", image.path).expect_error("was served from image:", image.path)
    pager = adopt(lab, vmm)
    pager.wait_line("taken over")
    let_go(vmm)
    lab.finish_vmm(vmm)
    pager.expect_exit(0)


def test_a_vm_of_a_memory_file_is_not_taken_over_with_an_image(lab, image):
    memory = lab.memory("8M", seed=matrix.SEED)
    vmm = orphan(lab, memory)
    adopt(lab, vmm, *image.serve_args()).expect_error("was served from", memory.path, "image:")
    pager = adopt(lab, vmm)
    pager.wait_line("taken over")
    let_go(vmm)
    lab.finish_vmm(vmm)
    pager.expect_exit(0)


def test_an_image_that_is_served_stays_whole_whatever_is_removed(lab, image):
    pager = lab.serve(image)
    vmm = lab.start_vmm(pager, image, "seq:end=10", "pause", "verify")
    vmm.wait_line("paused")
    assert "in use" in thaw("image", "rm", image.name, "--store", image.store, code=1)
    shutil.rmtree(image.store)
    let_go(vmm)
    lab.finish_vmm(vmm)
    pager.expect_exit(0)


# ---- what is broken ----


@pytest.mark.parametrize("codec", ["none", "lz4", "zstd"])
@pytest.mark.parametrize("args", [["--image-share", "off"], ["--fill"], ["--supervise"]], ids=" ".join)
def test_a_broken_frame_stops_the_vm_and_is_named(lab, codec, args):
    image = pack(lab, lab.memory("8M", seed=5, dense=True), "--codec", codec)
    path = image.packs()[0]
    change(path, path.stat().st_size // 2, 100)
    pager = lab.serve(image, *args)
    vmm = lab.start_vmm(pager, image, "seq")
    if args == ["--supervise"]:
        assert vmm.wait() == -signal.SIGKILL and "wrong byte" not in vmm.err
        pager.expect_exit(1)
        assert f"{path} is damaged" in pager.err and "(offset " in pager.err
    else:
        expect_stopped(pager, vmm, f"{path} is damaged", "(offset ", "was stopped")


def test_a_broken_frame_that_nobody_touches_harms_nobody(lab, hot_image):
    path = hot_image.packs()[0]
    change(path, path.stat().st_size - 200, 100)
    pager = lab.serve(hot_image)
    lab.run_vmm(pager, hot_image, "shuffle:first=300,end=1700")
    pager.expect_exit(0)


def test_a_broken_frame_of_the_working_set_stops_nobody_before_it_is_touched(lab, hot_image):
    change(hot_image.packs()[0], 100000, 100)
    pager = lab.serve(hot_image)
    vmm = lab.start_vmm(pager, hot_image, "seq:first=1800,end=1900", "pause", "seq:first=300,end=1700")
    vmm.wait_line("paused")
    pager.wait_line("cannot read ahead")
    assert vmm.running() and pager.running()
    let_go(vmm)
    expect_stopped(pager, vmm, "is damaged", "was stopped")


def test_a_pack_that_is_cut_while_it_is_served_stops_the_vm(lab):
    image = pack(lab, lab.memory("8M", seed=5, dense=True))
    path = image.packs()[0]
    pager = lab.serve(image)
    vmm = lab.start_vmm(pager, image, "seq:end=20", "pause", "seq")
    vmm.wait_line("paused")
    path.chmod(0o644)
    os.truncate(path, path.stat().st_size // 2)
    let_go(vmm)
    expect_stopped(pager, vmm, f"{path} is damaged", "ends too early", "was stopped")


def refuse(lab, image, *words):
    """The pager ends before it listens, with one line."""
    lab.serve(image, wait=False).expect_error(*words)
    assert not list(lab.dir.glob("s[0-9]*")), "the socket was left behind"


def test_what_is_no_whole_image_is_refused(lab, image):
    name, path, manifest = image.name, image.packs()[0], image.manifest()
    image.name = "none"
    refuse(lab, image, "no image none", image.store)
    image.name = name
    manifest.chmod(0o644)
    change(manifest, 300)
    refuse(lab, image, f"manifest {manifest} is damaged", "sha256")
    change(manifest, 300)
    path.rename(image.store / "pack")
    refuse(lab, image, path, "no such file")
    with open(image.store / "pack", "rb") as whole:
        path.write_bytes(whole.read()[:-1])
    refuse(lab, image, path, "expected")
    shutil.rmtree(image.store)
    refuse(lab, image, "store", image.store, "no such file")


def test_as_many_files_as_the_hard_limit_allows_are_used_and_no_more_is_an_error(lab):
    image = make_chain(lab, lab.memory("8M", seed=matrix.SEED, dense=True), 300)
    socket, state = lab.socket(), lab.state_dir
    argv = [thawtest.program("THAW"), "serve", "--socket", socket, *image.serve_args(), "--state", state]

    def limited(hard):
        def limit():
            resource.setrlimit(resource.RLIMIT_NOFILE, (64, hard))
        return limit

    run = subprocess.run(argv, check=False, capture_output=True, text=True, timeout=thawtest.DEADLINE,
                         preexec_fn=limited(200))  # pylint: disable=subprocess-popen-preexec-fn
    assert run.returncode == 1 and "too many open files" in run.stderr.lower(), run.stderr
    pager = subprocess.Popen(argv, stderr=subprocess.DEVNULL, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                             preexec_fn=limited(400))  # pylint: disable=subprocess-popen-preexec-fn
    try:
        wait_until(lambda: thawtest.is_listening(socket), "the pager to listen")
        peer = Peer(lab, 2048)
        assert peer.tell(f"connect {socket}") == 0
        assert peer.send(json.dumps([peer.region()]).encode(), "uffd") == 0
        for page in range(0, 2048, 7):
            peer.word(page)
        peer.quit()
        assert pager.wait(thawtest.DEADLINE) == 0
    finally:
        pager.kill()
        pager.wait()


@pytest.mark.parametrize("args, words", [
    (["-s", "s", "--memory", "m", "--image", "i"], "--memory and --image"),
    (["-s", "s", "--memory", "m", "--store", "d"], "--store is for --image"),
    (["-s", "s", "--memory", "m", "--image-cache", "1M"], "--image-cache is for --image"),
    (["-s", "s", "--image", "i", "--image-cache", "0"], "--image-cache is 0"),
    (["-s", "s", "--image", "i", "--image-cache", "big"], "--image-cache is big"),
    (["-s", "s", "--image", "i", "--image-share", "0"], "--image-share is 0"),
    (["-s", "s", "--memory", "m", "--image-share", "off"], "--image-share is for --image"),
    (["-s", "s"], "--memory or --image is missing"),
    (["--image", "i", "s", "m"], "unexpected argument s"),
    (["-s", "s", "--image", "i", "--prefetch", "none", "--prefetch-rate", "1M"], "--prefetch-rate is for"),
    (["-s", "s", "--image", "i", "--prefetch", "none", "--prefetch-before-resume", "all"], "--prefetch-before-resume is"),
])
def test_usage_errors_say_what_is_wrong(args, words):
    assert words in thaw("serve", *args, code=2)
