# SPDX-License-Identifier: Apache-2.0
"""
The handshake: what a VMM sends is either understood or refused with one line that says what was wrong.

The VMM is a process of its own (thawtest.Peer): when its message carried a userfaultfd and is wrong otherwise, its
memory can never be served, and the pager kills it.
"""

import json
import os
import signal

import pytest

import thawtest

pytestmark = pytest.mark.usefixtures("only_thaw")

PAGES = 16
EPIPE_OR_OK = (0, 32, 104, None)  # the pager may be done with us before we are; None: killed


@pytest.fixture
def memory(lab):
    """A memory file as long as the peer's memory; its n-th page is full of bytes n + 1."""
    path = lab.dir / "memory"
    path.write_bytes(b"".join(bytes([page + 1]) * 4096 for page in range(PAGES)))
    return path


def start(lab, memory, *args, mode=""):
    """A pager and a VMM that is connected to it."""
    pager = lab.serve(memory, *args)
    peer = thawtest.Peer(lab, PAGES, mode=mode)
    peer.connect(pager)
    return pager, peer


def text_of(*regions):
    """Regions as Firecracker writes them."""
    return json.dumps(regions, separators=(",", ":")).encode()


def assert_served(pager, peer):
    """The VMM gets the memory file's bytes, and all ends well."""
    for page in (3, 0, PAGES - 1):
        assert peer.word(page) == int.from_bytes(bytes([page + 1]) * 8, "little")
    peer.quit()
    pager.expect_exit(0)


def assert_refused(pager, peer, *words, killed=True):
    """One line, exit 1, and the VMM is dead if it had given its memory away, and unharmed otherwise."""
    line = pager.expect_error(*words)
    if killed:
        assert peer.wait() == -signal.SIGKILL
    else:
        peer.quit()
    return line


# ---- messages that are understood ----


def test_a_plain_handshake_is_served(lab, memory):
    pager, peer = start(lab, memory)
    assert peer.send(text_of(peer.region()), "uffd") == 0
    assert_served(pager, peer)


@pytest.mark.parametrize("change", [
    {"page_size_kib": None},
    {"page_size": None},
    {"page_size": None, "page_size_kib": None},
    {"page_size": None, "page_size_kib": 4},
    {"page_size_kib": 4},
], ids=["new", "old", "neither", "old-in-kib", "new-and-old-in-kib"])
def test_page_size_fields_of_all_senders_are_understood(lab, memory, change):
    pager, peer = start(lab, memory)
    assert peer.send(text_of(peer.region(**change)), "uffd") == 0
    assert_served(pager, peer)


def test_unknown_fields_are_passed_over(lab, memory):
    pager, peer = start(lab, memory)
    region = peer.region(gpa_start=0, is_guest_memfd=False, note={"a": [1, {"b": "]}"}]}, none=[])
    assert peer.send(text_of(region), "uffd") == 0
    assert_served(pager, peer)


def test_white_space_anywhere_is_accepted(lab, memory):
    pager, peer = start(lab, memory)
    text = " \r\n\t" + json.dumps([peer.region()], indent=3).replace(":", " : ")
    assert peer.send(text.encode(), "uffd") == 0
    assert_served(pager, peer)


def test_a_message_sent_byte_by_byte_is_put_together(lab, memory):
    pager, peer = start(lab, memory)
    text = text_of(peer.region())
    assert peer.send(text[:1], "uffd") == 0
    for at in range(1, len(text)):
        assert peer.send(text[at:at + 1]) == 0
    assert_served(pager, peer)


@pytest.mark.parametrize("at", [1, 40, -1])
def test_the_file_descriptor_may_come_with_a_later_piece(lab, memory, at):
    pager, peer = start(lab, memory)
    text = text_of(peer.region())
    assert peer.send(text[:at]) == 0
    assert peer.send(text[at:], "uffd") == 0
    assert_served(pager, peer)


def test_regions_in_any_order_are_understood(lab, memory):
    pager, peer = start(lab, memory)
    half = PAGES // 2 * 4096
    first = peer.region(size=half)
    second = peer.region(size=half, offset=half, base_host_virt_addr=peer.address + half)
    assert peer.send(text_of(second, first), "uffd") == 0
    assert_served(pager, peer)


def test_regions_may_lie_in_memory_in_another_order_than_in_the_file(lab, memory):
    pager, peer = start(lab, memory, "--fault-around", "64K")
    half = PAGES // 2
    first = peer.region(size=half * 4096, base_host_virt_addr=peer.address + half * 4096)
    second = peer.region(size=half * 4096, offset=half * 4096)
    assert peer.send(text_of(first, second), "uffd") == 0
    assert peer.word(0) == int.from_bytes(bytes([half + 1]) * 8, "little")
    assert peer.word(half) == int.from_bytes(bytes([1]) * 8, "little")
    assert peer.word(half - 1) == int.from_bytes(bytes([PAGES]) * 8, "little")
    peer.quit()
    pager.expect_exit(0)


def test_page_size_on_the_command_line_fills_in_for_a_vmm_that_says_nothing(lab, memory):
    pager, peer = start(lab, memory, "--page-size", "4K")
    assert peer.send(text_of(peer.region(page_size=None, page_size_kib=None)), "uffd") == 0
    assert_served(pager, peer)


# ---- connections that say too little ----


def test_a_vmm_that_closes_before_it_sends_is_refused(lab, memory):
    pager, peer = start(lab, memory)
    assert peer.tell("close") == 0
    assert_refused(pager, peer, "handshake", "closed", "before", killed=False)


def test_a_vmm_that_sends_nothing_but_the_end_is_refused(lab, memory):
    pager, peer = start(lab, memory)
    assert peer.tell("shut") == 0
    assert_refused(pager, peer, "handshake", "closed", "before", killed=False)


@pytest.mark.parametrize("length", [1, 50, -1])
def test_a_message_that_ends_in_the_middle_is_refused(lab, memory, length):
    pager, peer = start(lab, memory)
    text = text_of(peer.region())[:length]
    assert peer.send(text, "uffd") == 0
    assert peer.tell("shut") in (0, None)  # None: thaw has stopped it before it could answer
    assert_refused(pager, peer, "handshake", "closed", "middle", str(len(text)))


def test_a_handshake_that_is_not_whole_in_time_is_refused(lab, memory):
    pager, peer = start(lab, memory, "--handshake-timeout", "1")
    assert peer.send(text_of(peer.region())[:30]) == 0
    assert_refused(pager, peer, "handshake", "1000 ms", "30 bytes", killed=False)


def test_a_vmm_that_is_late_with_its_memory_given_away_is_stopped(lab, memory):
    pager, peer = start(lab, memory, "--handshake-timeout", "1")
    assert peer.send(b"[", "uffd") == 0
    assert_refused(pager, peer, "handshake", "1000 ms")


def test_bytes_that_trickle_in_do_not_move_the_deadline(lab, memory):
    pager, peer = start(lab, memory, "--handshake-timeout", "1")
    sent = 0
    while pager.running() and sent < 100000:
        peer.send(b"[" if sent == 0 else b" ")
        sent += 1
    assert_refused(pager, peer, "handshake", "1000 ms", killed=False)


# ---- file descriptors ----


def test_a_message_without_a_file_descriptor_is_refused(lab, memory):
    pager, peer = start(lab, memory)
    assert peer.send(text_of(peer.region())) == 0
    assert_refused(pager, peer, "handshake", "0 file descriptors", "expected one", killed=False)


def test_two_userfaultfds_are_refused(lab, memory):
    pager, peer = start(lab, memory)
    assert peer.send(text_of(peer.region()), "uffd", "uffd2") in EPIPE_OR_OK
    assert_refused(pager, peer, "handshake", "2 file descriptors", "expected one")


def test_a_userfaultfd_in_each_of_two_pieces_is_refused(lab, memory):
    pager, peer = start(lab, memory)
    text = text_of(peer.region())
    assert peer.send(text[:9], "uffd") == 0
    assert peer.send(text[9:], "uffd2") in EPIPE_OR_OK
    assert_refused(pager, peer, "handshake", "2 file descriptors", "expected one")


def test_a_userfaultfd_and_something_else_are_refused(lab, memory):
    pager, peer = start(lab, memory)
    assert peer.send(text_of(peer.region()), "uffd", "pipe") in EPIPE_OR_OK
    assert_refused(pager, peer, "handshake", "2 file descriptors")


def test_something_else_and_a_userfaultfd_are_refused(lab, memory):
    pager, peer = start(lab, memory)
    assert peer.send(text_of(peer.region()), "pipe", "uffd") in EPIPE_OR_OK
    assert_refused(pager, peer, "handshake", "2 file descriptors")


def test_a_pipe_instead_of_a_userfaultfd_is_refused(lab, memory):
    pager, peer = start(lab, memory)
    assert peer.send(text_of(peer.region()), "pipe") == 0
    assert_refused(pager, peer, "handshake", "pipe:", "expected a userfaultfd", killed=False)


def test_a_regular_file_instead_of_a_userfaultfd_is_refused(lab, memory):
    pager, peer = start(lab, memory)
    (lab.dir / "some-file").write_text("x")
    assert peer.send(text_of(peer.region()), str(lab.dir / "some-file")) == 0
    assert_refused(pager, peer, "handshake", "some-file", "expected a userfaultfd", killed=False)


def test_a_userfaultfd_in_blocking_mode_is_refused(lab, memory):
    pager, peer = start(lab, memory, mode="blocking")
    assert peer.send(text_of(peer.region()), "uffd") in EPIPE_OR_OK
    assert_refused(pager, peer, "handshake", "blocking", "O_NONBLOCK")


# ---- regions ----


def shifted(peer, **add):
    """The peer's region with numbers added to its fields."""
    region = peer.region()
    return {key: value + add.get(key, 0) for key, value in region.items()}


BAD_REGIONS = {
    "unaligned address": (lambda p: [shifted(p, base_host_virt_addr=512)], ["region at 0x", "multiple", "4096"]),
    "unaligned size": (lambda p: [shifted(p, size=-512)], ["region at 0x", "multiple", "4096"]),
    "unaligned offset": (lambda p: [shifted(p, offset=512)], ["region at 0x", "multiple", "4096"]),
    "size zero": (lambda p: [p.region(size=0)], ["region at 0x", "0 long"]),
    "address beyond 63 bits": (lambda p: [p.region(base_host_virt_addr=1 << 63)], ["handshake"]),
    "size beyond 64 bits": (lambda p: [p.region(size=1 << 64)], ["handshake"]),
    "address and size overflow": (
        lambda p: [p.region(base_host_virt_addr=(1 << 63) - 4096, size=(1 << 63) - 4096),
                   p.region(offset=(1 << 63) - 4096)], ["handshake"]),
    "offset and size overflow": (lambda p: [p.region(offset=(1 << 63) - 4096)], ["handshake", "memory"]),
    "overlap in memory": (
        lambda p: [p.region(size=8 * 4096), p.region(size=8 * 4096, offset=8 * 4096,
                                                     base_host_virt_addr=p.address + 7 * 4096)],
        ["region at 0x", "overlaps", "in memory"]),
    "the same region twice": (lambda p: [p.region(), p.region()], ["region at 0x", "overlaps"]),
    "overlap in the file": (
        lambda p: [p.region(size=8 * 4096), p.region(size=8 * 4096, offset=7 * 4096,
                                                     base_host_virt_addr=p.address + 8 * 4096)],
        ["region at 0x", "overlaps", "memory file"]),
    "longer than the file": (lambda p: [p.region(size=17 * 4096)], [str(17 * 4096), str(16 * 4096), "file"]),
    "shorter than the file": (lambda p: [p.region(size=15 * 4096)], [str(15 * 4096), str(16 * 4096), "file"]),
    "contradictory page sizes": (lambda p: [p.region(page_size=2 << 20)], ["page_size", "2097152", "4096"]),
    "page size of 8192": (lambda p: [p.region(page_size=8192, page_size_kib=8192)],
                          ["page_size", "8192", "expected 4096 or 2097152"]),
    "page size zero": (lambda p: [p.region(page_size=0)], ["page_size", "0", "expected 4096 or 2097152"]),
    "old page size of 3": (lambda p: [p.region(page_size=None, page_size_kib=3)], ["page_size_kib", "3"]),
    "two page sizes": (
        lambda p: [p.region(size=8 * 4096), p.region(size=8 * 4096, offset=8 * 4096, page_size=2 << 20,
                                                     page_size_kib=2 << 20,
                                                     base_host_virt_addr=p.address + 8 * 4096)],
        ["region 1", "2097152", "4096", "one page size"]),
    "2M pages that do not fit": (lambda p: [p.region(page_size=2 << 20, page_size_kib=2 << 20)],
                                 ["multiple of the page size", "2097152"]),
    "no address": (lambda p: [p.region(base_host_virt_addr=None)], ["region 0", "base_host_virt_addr", "missing"]),
    "no size": (lambda p: [p.region(size=None)], ["region 0", "size", "missing"]),
    "no offset": (lambda p: [p.region(offset=None)], ["region 0", "offset", "missing"]),
    "address as text": (lambda p: [p.region(base_host_virt_addr=hex(p.address))],
                        ["region 0", "base_host_virt_addr", "whole number"]),
    "size as a float": (lambda p: [p.region(size=65536.0)], ["region 0", "size", "whole number"]),
    "offset negative": (lambda p: [p.region(offset=-4096)], ["region 0", "offset", "-4096"]),
    "address negative": (lambda p: [p.region(base_host_virt_addr=-4096)], ["base_host_virt_addr", "-4096"]),
    "size null": (lambda p: [dict(p.region(), size=None)], ["region 0", "size", "whole number"]),
    "size true": (lambda p: [p.region(size=True)], ["region 0", "size", "whole number"]),
    "page size as text": (lambda p: [p.region(page_size="4096")], ["region 0", "page_size", "whole number"]),
    "page size a list": (lambda p: [p.region(page_size_kib=[4096])], ["region 0", "page_size_kib", "whole number"]),
    "a number for a region": (lambda p: [7], ["region 0", "object"]),
    "a list for a region": (lambda p: [[p.region()]], ["region 0", "object"]),
    "null after a region": (lambda p: [p.region(), None], ["region 1", "object"]),
    "no regions": (lambda p: [], ["empty", "at least one"]),
    "8193 regions": (lambda p: [p.region(size=4096, offset=4096 * i) for i in range(8193)], ["8193", "8192"]),
}


@pytest.mark.parametrize("what", BAD_REGIONS)
def test_regions_that_cannot_be_are_refused(lab, memory, what):
    make, words = BAD_REGIONS[what]
    pager, peer = start(lab, memory)
    assert peer.send(text_of(*make(peer)), "uffd") in EPIPE_OR_OK
    assert_refused(pager, peer, "handshake", *words)


def test_a_page_size_other_than_that_of_the_command_line_is_refused(lab):
    big = lab.dir / "big"
    with open(big, "wb") as file:
        file.truncate(4 << 20)
    pager = lab.serve(big, "--page-size", "2M")
    peer = thawtest.Peer(lab, 1024)
    peer.connect(pager)
    assert peer.send(text_of(peer.region()), "uffd") in EPIPE_OR_OK
    assert_refused(pager, peer, "handshake", "4096", "2097152", "--page-size")


# ---- text ----


def with_text(change):
    """Build bytes from the right text."""
    return lambda peer: change(text_of(peer.region()))


BAD_TEXT = {
    "an object": (with_text(lambda text: text[1:-1]), ["handshake", "array"]),
    "a string": (lambda p: b'"hello"', ["handshake", "array"]),
    "a number": (lambda p: b"42 ", ["handshake", "array"]),
    "http": (lambda p: b"GET / HTTP/1.1\r\n\r\n", ["handshake", "array"]),
    "a NUL byte first": (with_text(lambda text: b"\0" + text), ["handshake", "array"]),
    "a NUL byte inside": (with_text(lambda text: text.replace(b",", b",\0", 1)), ["handshake", "JSON", "byte"]),
    "a NUL in a string": (with_text(lambda text: text.replace(b'"size"', b'"si\0ze"')), ["handshake", "JSON"]),
    "no UTF-8": (with_text(lambda text: text.replace(b'"size"', b'"si\xff\xfeze"')), ["handshake", "JSON", "byte"]),
    "trailing garbage": (with_text(lambda text: text + b"garbage"), ["handshake", "7 bytes", "follow"]),
    "two arrays": (with_text(lambda text: text + text), ["handshake", "follow"]),
    "a bracket too many": (with_text(lambda text: text + b"]"), ["handshake", "follow"]),
    "a comma too many": (with_text(lambda text: text[:-1] + b",]"), ["handshake", "JSON", "byte"]),
    "brackets that do not match": (with_text(lambda text: text[:-2] + b"]}"), ["handshake", "JSON"]),
    "single quotes": (with_text(lambda text: text.replace(b'"', b"'")), ["handshake", "JSON", "byte"]),
    "duplicate keys": (with_text(lambda text: text.replace(b'"offset":0', b'"offset":0,"offset":0')),
                       ["handshake", "JSON", "duplicate"]),
    "NaN": (with_text(lambda text: text.replace(b'"offset":0', b'"offset":NaN')), ["handshake", "JSON"]),
    "hexadecimal": (with_text(lambda text: text.replace(b'"offset":0', b'"offset":0x0')), ["handshake", "JSON"]),
    "an exponent": (with_text(lambda text: text.replace(b'"size":65536', b'"size":65536e0')),
                    ["handshake", "size", "whole number"]),
    "deep nesting": (lambda p: b"[" * 100000 + b"]" * 100000, ["handshake"]),
    "deep nesting of a field": (
        with_text(lambda text: text[:-2] + b',"x":' + b"[" * 50000 + b"]" * 50000 + b"}]"), ["handshake", "JSON"]),
}


@pytest.mark.parametrize("what", BAD_TEXT)
def test_text_that_is_no_handshake_is_refused(lab, memory, what):
    make, words = BAD_TEXT[what]
    pager, peer = start(lab, memory)
    assert peer.send(make(peer), "uffd") in EPIPE_OR_OK
    assert_refused(pager, peer, *words)


@pytest.mark.parametrize("filler", [b" ", b"[", b'"'], ids=["white space", "brackets", "string"])
def test_a_message_without_end_is_refused_at_a_limit(lab, memory, filler):
    pager, peer = start(lab, memory)
    assert peer.send(b"[", "uffd") == 0
    peer.send(b'"' if filler == b'"' else b" ")
    block = (filler if filler != b'"' else b"x") * (64 << 10)
    for _ in range(100):
        if peer.send(block) != 0:
            break
    assert_refused(pager, peer, "handshake", "longer", "2097152")


def test_garbage_in_every_place_never_leads_to_anything_but_a_refusal(lab, memory):
    """One byte of the text is replaced; a text that still says the same or a possible thing may be served."""
    seed = int(os.environ.get("THAW_TEST_SEED", "0")) or int.from_bytes(os.urandom(3), "big")
    print("seed", seed)
    for round_number in range(25):
        pager, peer = start(lab, memory)
        text = bytearray(text_of(peer.region()))
        at = (seed * 7919 + round_number * 104729) % len(text)
        text[at] = (seed + round_number * 37) % 256
        peer.send(bytes(text), "uffd")
        peer.tell("shut")
        thawtest.wait_until(lambda one=pager: not one.running() or "serving" in one.err, "a decision")
        peer.end()
        code = pager.wait()
        assert code in (0, 1), pager.err
        if code == 1:
            pager.error_line()


# ---- who may connect ----


def test_a_user_who_is_not_allowed_is_refused_and_not_harmed(lab, memory):
    if os.getuid() != 0:
        pytest.skip("only root can play another user")
    lab.dir.chmod(0o777)
    pager = lab.serve(memory)
    pager.socket.chmod(0o777)
    peer = thawtest.Peer(lab, PAGES)
    assert peer.tell("setuid 65534") == 0
    peer.connect(pager)
    peer.send(text_of(peer.region()), "uffd")
    assert_refused(pager, peer, "handshake", "65534", "not allowed", "--allow-uid", killed=False)


def test_a_user_who_is_allowed_is_served(lab, memory):
    if os.getuid() != 0:
        pytest.skip("only root can play another user")
    lab.dir.chmod(0o777)
    pager = lab.serve(memory, "--allow-uid", "65533", "--allow-uid", "65534")
    pager.socket.chmod(0o777)
    peer = thawtest.Peer(lab, PAGES)
    assert peer.tell("setuid 65534") == 0
    peer.connect(pager)
    assert peer.send(text_of(peer.region()), "uffd") == 0
    assert_served(pager, peer)
    assert pager.stats()["vmm_uid"] == 65534


def test_root_is_refused_when_only_others_are_allowed(lab, memory):
    pager = lab.serve(memory, "--allow-uid", str(os.getuid() + 1))
    peer = thawtest.Peer(lab, PAGES)
    peer.connect(pager)
    peer.send(text_of(peer.region()), "uffd")
    assert_refused(pager, peer, "handshake", "not allowed", killed=False)


# ---- after the handshake ----


def test_a_stop_in_the_middle_of_a_handshake_is_a_good_end(lab, memory):
    pager, peer = start(lab, memory)
    assert peer.send(text_of(peer.region())[:20]) == 0
    pager.signal(signal.SIGTERM)
    pager.expect_exit(0, deadline=5)
    peer.quit()


def is_stopped(process):
    """Has SIGSTOP arrived?"""
    with open(f"/proc/{process.pid}/stat", encoding="ascii") as stat:
        return stat.read().rsplit(")", 1)[1].split()[0] == "T"


@pytest.mark.parametrize("connected", [False, True], ids=["connects-late", "connected"])
def test_a_vmm_whose_memory_was_on_its_way_when_the_pager_was_stopped_is_ended(lab, memory, connected):
    """It has given its memory away and would wait for it for ever. Message and stop lie there when the pager looks."""
    pager = lab.serve(memory)
    peer = thawtest.Peer(lab, PAGES)
    if connected:
        peer.connect(pager)
    pager.signal(signal.SIGSTOP)
    thawtest.wait_until(lambda: is_stopped(pager), "the pager to stand still")
    if not connected:
        peer.connect(pager)
    assert peer.send(text_of(peer.region()), "uffd") == 0
    pager.signal(signal.SIGTERM)
    pager.signal(signal.SIGCONT)
    pager.expect_exit(0)
    peer.expect_exit(-signal.SIGKILL)


def test_a_fault_outside_of_all_regions_stops_the_vm(lab):
    half = lab.dir / "half"
    half.write_bytes(b"x" * (PAGES // 2 * 4096))
    pager = lab.serve(half)
    peer = thawtest.Peer(lab, PAGES)
    peer.connect(pager)
    assert peer.send(text_of(peer.region(size=PAGES // 2 * 4096)), "uffd") == 0
    assert peer.word(0) == int.from_bytes(b"x" * 8, "little")
    peer.tell(f"touch {PAGES - 1}")
    assert peer.wait() == -signal.SIGKILL
    assert f"page {PAGES - 1}" not in peer.out
    pager.expect_error("region")
    assert pager.stats()["end"] == "stray-fault"


def test_a_vmm_that_forks_with_fork_events_is_stopped(lab, memory):
    pager, peer = start(lab, memory, mode="events")
    assert peer.send(text_of(peer.region()), "uffd") == 0
    assert peer.word(0) == int.from_bytes(bytes([1]) * 8, "little")
    peer.tell("fork")
    assert peer.wait() == -signal.SIGKILL
    pager.expect_exit(1)
    pager.error_line()
    assert pager.stats()["end"] == "unknown-event"


def test_memory_that_is_unmapped_with_an_event_is_zero_and_the_rest_is_served(lab, memory):
    pager, peer = start(lab, memory, "--fault-around", "0", mode="events")
    assert peer.send(text_of(peer.region()), "uffd") == 0
    assert peer.tell("unmap 5") == 0
    peer.wait_line("unmapped 5")
    assert peer.word(5) == 0
    assert peer.word(4) == int.from_bytes(bytes([5]) * 8, "little")
    assert peer.word(6) == int.from_bytes(bytes([7]) * 8, "little")
    assert_served(pager, peer)
    assert pager.stats()["counters"]["removes"] == 1


def test_a_vmm_that_closes_its_socket_and_lives_on_is_still_served(lab, memory):
    pager, peer = start(lab, memory, "--fault-around", "0")
    assert peer.send(text_of(peer.region()), "uffd") == 0
    assert peer.word(0) == int.from_bytes(bytes([1]) * 8, "little")
    assert peer.tell("close") == 0
    assert_served(pager, peer)
