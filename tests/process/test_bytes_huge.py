# SPDX-License-Identifier: Apache-2.0
"""Every byte of 2 MiB pages that a VMM reads is the right one: see matrix.py. And what these bytes may cost."""

import hashlib
import json
import pathlib

import pytest

import thawtest
from matrix import FEW, HUGE, IMAGE_MODES, SEED, modes, run

pytestmark = pytest.mark.usefixtures("huge")


@pytest.mark.parametrize("mode", modes("page-by-page", "tracked", "far-around"))
@pytest.mark.parametrize("workload", HUGE)
def test_every_byte_of_2m_pages_is_right(lab, workload, mode):
    layout = FEW[(list(HUGE).index(workload) + len(mode)) % 3]
    run(lab, lab.memory("40M", SEED), mode, HUGE[workload], layout, "--page-size", "2M")


@pytest.mark.parametrize("workload", HUGE)
def test_every_byte_of_2m_pages_from_an_image_is_right(lab, workload):
    if thawtest.reference():
        pytest.skip("about thaw serve, not about the reference pager")
    number = list(HUGE).index(workload)
    run(lab, lab.memory("40M", SEED), list(IMAGE_MODES)[number % 3], HUGE[workload], FEW[number // 3 % 3], "--page-size", "2M")


@pytest.mark.parametrize("mode", modes("page-by-page", "tracked"))
def test_every_byte_of_2m_pages_is_right_from_a_cold_file(lab, mode):
    memory = lab.memory("40M", SEED, where="disk")
    thawtest.drop_cache(memory.path)
    run(lab, memory, mode, HUGE["random"], "three-regions-with-gaps", "--page-size", "2M")


@pytest.mark.parametrize("field", ["new", "old", "kib"])
def test_every_way_to_say_a_page_size_of_2m_is_understood(lab, field):
    if thawtest.reference() and field == "kib":
        pytest.skip("the reference pager takes page_size_kib as bytes")
    run(lab, lab.memory("40M", SEED), "around", ["seq"], "one-region", "--page-size", "2M",
        "--page-field", field)


@pytest.mark.parametrize("where", ["tmpfs", "disk"])
def test_one_memory_file_serves_vmms_of_4k_and_of_2m_pages_at_once(lab, where):
    memory = lab.own_memory("40M", SEED, where=where)
    print("seed", memory.seed)
    before = hashlib.sha256(memory.path.read_bytes()).digest()
    if where == "disk":
        thawtest.drop_cache(memory.path)
    blocks = memory.path.stat().st_blocks  # of a disk's file that is written back, or they may still change
    pagers, vmms = {}, {}
    for pages in ("4K", "2M"):
        pagers[pages] = lab.serve(memory)
        steps = ["shuffle:threads=2,end=10" if pages == "2M" else "shuffle:threads=2,end=5000", "pause",
                 "write:threads=4,n=60", "discard:n=4", "verify"]
        vmms[pages] = lab.start_vmm(pagers[pages], memory, "--page-size", pages, *steps)
    for vmm in vmms.values():
        vmm.wait_line("paused")  # both have a part of the same bytes now
    for vmm in vmms.values():
        thawtest.let_go(vmm)
    for pages, vmm in vmms.items():
        result = lab.finish_vmm(vmm)
        assert result["hole_pages"] > 0 or pages == "2M"  # not each seed has a hole of 2 MiB
        pagers[pages].expect_exit(0)
        if not thawtest.reference():
            stats = pagers[pages].stats()
            thawtest.check_stats(stats, result)
            assert stats["page_bytes"] == thawtest.PAGE_BYTES[pages]
    assert hashlib.sha256(memory.path.read_bytes()).digest() == before
    assert memory.path.stat().st_blocks == blocks  # a hole that was served is a hole


N_PAGES = 8
HOLES = (1, 3, 4, 6)  # of these 2 MiB pages


def file_with_huge_holes(path):
    """A memory file of 2 MiB pages, each one byte over and over or a hole."""
    with open(path, "wb") as file:
        file.truncate(N_PAGES * 2 * 1024 * 1024)
        for page in set(range(N_PAGES)) - set(HOLES):
            file.seek(page * 2 * 1024 * 1024)
            file.write(bytes([page + 1]) * (2 * 1024 * 1024))


def bytes_read_from_storage(pid):
    """How many bytes a process has had read for it."""
    return int(pathlib.Path(f"/proc/{pid}/io").read_text(encoding="ascii").split("read_bytes: ")[1].split()[0])


@pytest.mark.parametrize("where", ["tmpfs", "disk"])
@pytest.mark.parametrize("track", ["none", "wp"])
def test_a_zero_page_of_2m_costs_no_read(lab, where, track):
    if thawtest.reference():
        pytest.skip("about thaw serve, not about the reference pager")
    path = lab.own_memory("2M", SEED, where=where).path
    file_with_huge_holes(path)
    if where == "disk":
        thawtest.drop_cache(path)
    blocks = path.stat().st_blocks
    pager = lab.serve(path, "--track", track)
    peer = thawtest.Peer(lab, N_PAGES, "2M")
    peer.connect(pager)
    assert peer.send(json.dumps([peer.region()]).encode(), "uffd") == 0
    thawtest.wait_until(lambda: "serving" in pager.err, "the handshake's end")
    read = bytes_read_from_storage(pager.pid)
    assert [peer.word(page) for page in HOLES] == [0] * len(HOLES)
    counters = pager.ask_stats()["counters"]
    assert counters["pages_zeroed"] == len(HOLES)
    assert counters["pages_installed"] == counters["fetches"] == 0
    assert bytes_read_from_storage(pager.pid) == read
    assert path.stat().st_blocks == blocks
    if where == "disk":
        assert thawtest.cached_pages(path) == 0
    # And a page that is not zero does cost one: what was looked at does tell.
    assert peer.word(5) == 0x0606060606060606
    if where == "disk":
        assert pager.ask_stats()["counters"]["fetches"] == 1
        assert thawtest.cached_pages(path) >= 512
    peer.quit()
    pager.expect_exit(0)
