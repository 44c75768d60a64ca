# SPDX-License-Identifier: Apache-2.0
"""A real Linux guest lives on from its snapshot, every page of its memory served by `thaw serve`.

The guest itself judges what it can see: checksums of files from before the snapshot, results of its own work. What it
cannot see, stale bytes in memory that it takes for free, is judged by tests/lib/guest_oracle.py from outside, and one
test shows that this judge does find a handler that is wrong.
"""

import hashlib
import os
import signal
import subprocess

import guest
import guest_oracle
import pytest
from conftest import BIG_MIB, BIG_MIB_OF_TWO, md5_of_lines, numbers

MIB = 1024 * 1024


def sums_hold(restored, sums="/tmp/sums"):
    """The guest's own check of files from before the snapshot."""
    restored.vm.console.run(f"md5sum -c {sums}")


def kernel_is_content(restored):
    """The guest's kernel has not complained."""
    complaints = restored.vm.console.run("dmesg | grep -E 'BUG|Oops|Call Trace|Bad page|soft lockup' || true")
    assert not complaints.strip()


def free_the_big_file(restored, big_mib=BIG_MIB):
    """Remove the guest's big file and wait until QEMU has discarded most of it; the bytes that were discarded."""

    def discarded():
        return sum(end - start for start, end in guest_oracle.discarded_ranges(restored.madvise_log))

    before = discarded()
    restored.vm.console.run("rm /tmp/big")
    # Reporting begins about 2 s later and leaves out what is not free in whole 2 MiB blocks.
    guest.wait_for(
        lambda: discarded() - before >= big_mib * MIB * 6 // 10, 30, "the guest reports its free memory"
    )
    return discarded() - before


def write_and_check(restored, mib, name="new"):
    """The guest writes new data, mib times one MiB, into a file and reads it back."""
    line = b"what is written into memory that was given back must be all that is in it\n"
    block = (line * (MIB // len(line) + 1))[:MIB]
    restored.vm.console.run(f"yes '{line.decode().strip()}' | head -c {MIB} >/tmp/block")
    restored.vm.console.run(f"cat $(yes /tmp/block | head -n {mib}) >/tmp/{name}")
    assert restored.vm.console.run(f"md5sum </tmp/{name}").split()[0] == hashlib.md5(block * mib).hexdigest()


def test_files_from_before_the_snapshot_have_their_checksums(restore, snapshot):
    with restore(snapshot) as restored:
        sums_hold(restored)
        sums_hold(restored, "/tmp/big.sum")
        kernel_is_content(restored)
        stats = restored.pager.stats()
        assert stats["vmm_pid"] == restored.vm.pid
        assert stats["end"] == "running"
        assert stats["counters"]["pages_installed"] >= BIG_MIB * MIB // 4096


def test_a_restored_guest_answers_before_its_memory_is_there(restore, snapshot):
    with restore(snapshot, "--fault-around", "0") as restored:
        stats = restored.pager.stats()
        assert stats["counters"]["pages_around"] == 0
        assert 0 < stats["counters"]["pages_installed"] < stats["pages"] // 10
        assert stats["states"]["absent"] + stats["counters"]["pages_let_go"] > stats["pages"] * 8 // 10


def test_memory_that_the_guest_frees_is_given_back_to_the_host(restore, snapshot):
    with restore(snapshot) as restored:
        sums_hold(restored, "/tmp/big.sum")
        before = restored.vm.status("RssAnon")
        discarded = free_the_big_file(restored)
        guest.wait_for(
            lambda: before - restored.vm.status("RssAnon") > BIG_MIB * MIB * 6 // 10, 10, "host memory falls"
        )
        counters = restored.pager.stats()["counters"]
        assert counters["removes"] > 0
        assert counters["pages_removed"] + counters["pages_let_go"] >= discarded // 4096
        sums_hold(restored)


@pytest.mark.parametrize("let_go", ["on", "off"])
def test_memory_that_was_given_back_comes_up_as_zeroes_and_can_be_used(restore, snapshot, let_go):
    with restore(snapshot, "--let-go", let_go) as restored:
        sums_hold(restored, "/tmp/big.sum")
        free_the_big_file(restored)
        # The guest may use other free memory first; three files do not fit into that.
        for name in ("new1", "new2", "new3"):
            write_and_check(restored, 48, name)
            counters = restored.pager.stats()["counters"]
            if counters["pages_refaulted"] > 1000:
                break
        # What was let go of comes up from the kernel; else each page is asked for.
        assert counters["ranges_let_go"] > 0 if let_go == "on" else counters["pages_refaulted"] > 1000
        sums_hold(restored)
        kernel_is_content(restored)


def test_every_missing_page_reads_as_the_snapshot_or_zero(restore, snapshot, folder):
    with restore(snapshot) as restored:
        sums_hold(restored)
        free_the_big_file(restored)
        verdict = guest_oracle.check(restored, folder / "memory-now")
        assert not verdict.bad, str(verdict)
        assert verdict.telling > 1000, str(verdict)


def test_the_oracle_finds_a_handler_that_forgets_discards(restore_with_naive_stale, snapshot, folder):
    with restore_with_naive_stale(snapshot) as restored:
        free_the_big_file(restored)
        verdict = guest_oracle.check(restored, folder / "memory-now")
        assert len(verdict.bad) == verdict.telling > 1000, str(verdict)


def test_a_sort_in_the_restored_guest_gives_the_right_answer(restore, snapshot):
    with restore(snapshot) as restored:
        answer = restored.vm.console.run("sort -n /tmp/list | md5sum").split()[0]
        assert answer == md5_of_lines(sorted(numbers()))


def balloon_to(restored, mib):
    """Set the guest's memory and wait until it has followed."""
    restored.vm.qmp.execute("balloon", value=mib * MIB)
    guest.wait_for(
        lambda: restored.vm.qmp.execute("query-balloon")["actual"] == mib * MIB, 40, f"the balloon reaches {mib} MiB"
    )


def test_a_balloon_storm_under_load_leaves_checksums_right(restore, snapshot, folder):
    with restore(snapshot) as restored:
        run = restored.vm.console.run
        run("rm /tmp/big")
        run(
            "{ (while [ ! -e /tmp/enough ]; do"
            " md5sum -c /tmp/sums && echo >>/tmp/right || echo >>/tmp/wrong; done) >/dev/null 2>&1 & }"
        )
        for mib in (128, 256, 128, 256):
            balloon_to(restored, mib)
        run("touch /tmp/enough; wait")
        assert int(run("wc -l </tmp/right")) > 0
        assert run("ls /tmp/wrong 2>/dev/null || echo none").strip() == "none"
        sums_hold(restored)
        kernel_is_content(restored)
        discarded = sum(end - start for start, end in guest_oracle.discarded_ranges(restored.madvise_log)) // 4096
        assert discarded > 20000
        # Every discard was heard of, but those of ranges that had been let go of. How soon that is depends on the host.
        counters = restored.pager.stats()["counters"]
        assert counters["removes"] > 0
        assert counters["pages_removed"] + counters["pages_let_go"] >= discarded
        verdict = guest_oracle.check(restored, folder / "memory-now")
        assert not verdict.bad, str(verdict)


def test_a_guest_on_huge_pages_lives_on(huge_pages, restore, snapshot, folder):
    with restore(snapshot, huge=True) as restored:
        sums_hold(restored)
        sums_hold(restored, "/tmp/big.sum")
        stats = restored.pager.stats()
        assert stats["page_bytes"] == 2 * MIB
        assert stats["pages"] == 128
        before = restored.vm.status("HugetlbPages")
        free_the_big_file(restored)
        guest.wait_for(
            lambda: before - restored.vm.status("HugetlbPages") > BIG_MIB * MIB * 6 // 10, 10, "host memory falls"
        )
        write_and_check(restored, 48)
        sums_hold(restored)
        kernel_is_content(restored)
        verdict = guest_oracle.check(restored, folder / "memory-now", 2 * MIB)
        assert not verdict.bad, str(verdict)


def test_a_guest_with_two_memory_regions_lives_on(restore, snapshot_of_two_regions, folder):
    with restore(snapshot_of_two_regions) as restored:
        sums_hold(restored)
        assert restored.pager.stats()["regions"] == 2
        free_the_big_file(restored, BIG_MIB_OF_TWO)
        verdict = guest_oracle.check(restored, folder / "memory-now")
        assert not verdict.bad, str(verdict)
        assert verdict.telling > 1000, str(verdict)


def test_a_guest_whose_writes_are_tracked_lives_on(restore, snapshot, folder):
    with restore(snapshot, "--track", "wp") as restored:
        sums_hold(restored)
        sums_hold(restored, "/tmp/big.sum")
        free_the_big_file(restored)
        write_and_check(restored, 24)
        answer = restored.vm.console.run("sort -n /tmp/list | md5sum").split()[0]
        assert answer == md5_of_lines(sorted(numbers()))
        stats = restored.pager.stats()
        assert stats["track"] == "wp"
        assert stats["counters"]["pages_written"] > 0
        # Files that are only read stay clean; what was written is dirty.
        assert stats["states"]["clean"] > 3 * 4 * MIB // 4096
        assert stats["states"]["dirty"] > 24 * MIB // 4096
        verdict = guest_oracle.check(restored, folder / "memory-now")
        assert not verdict.bad, str(verdict)
        assert verdict.protected > 3 * 4 * MIB // 4096, str(verdict)


def test_the_pager_stops_the_guest_before_itself(restore, snapshot):
    with restore(snapshot, end="stopped") as restored:
        restored.pager.process.signal(signal.SIGTERM)
        assert restored.pager.process.wait(20) == 0
        # QEMU is a child of this process: it was dead before the pager if its status can be had without waiting.
        assert restored.vm.process.popen.poll() == -signal.SIGKILL


def test_the_pager_ends_well_when_the_vmm_is_killed(restore, snapshot):
    with restore(snapshot) as restored:
        restored.vm.console.start("md5sum /tmp/big")
        restored.vm.process.kill()
        assert restored.pager.process.wait(20) == 0


def test_programs_that_the_vmm_starts_inherit_nothing_of_its_memory(restore, snapshot, folder):
    seen, done = folder / "seen", folder / "done"
    with restore(snapshot) as restored:
        qmp = restored.vm.qmp
        qmp.execute("stop")
        qmp.execute("migrate", uri=f"exec:(env; ls -l /proc/self/fd) >{seen}; touch {done}; cat >/dev/null")
        guest.wait_for(done.exists, 20, "QEMU starts the migration's command")
        qmp.execute("migrate_cancel")
    text = seen.read_text()
    assert "LD_PRELOAD=" in text
    assert "THAW_PRELOAD_" not in text
    assert "userfaultfd" not in text and "socket:" not in text


# --- what libthaw-preload.so refuses ----------------------------------------------------------------------------------


def qemu_refused(programs, folder, memory, **environment):
    """Start QEMU with the preload library and a memory that it must refuse; its one line."""
    argv = ["qemu-system-x86_64", "-machine", "pc,memory-backend=ram", "-object", memory, "-m", "64M"]
    argv += ["-nodefaults", "-display", "none", "-S"]
    env = {"LD_PRELOAD": str(programs.preload), "THAW_PRELOAD_SOCKET": str(folder / "nobody"), **environment}
    env = {**os.environ, **env}
    done = subprocess.run(
        argv, env=env, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=30, check=False
    )
    assert done.returncode == 1, done.stderr
    lines = done.stderr.splitlines()
    assert len(lines) == 1 and lines[0].startswith("thaw-preload: "), done.stderr
    return lines[0]


PRIVATE = "memory-backend-ram,id=ram,size=64M,share=off"


@pytest.mark.usefixtures("image")
@pytest.mark.parametrize(
    "memory, environment, words",
    [
        (PRIVATE, {"THAW_PRELOAD_SIZES": "64M"}, "cannot connect to the pager"),
        (PRIVATE, {"THAW_PRELOAD_SIZES": "32M,16M"}, "67108864 bytes of memory are mapped"),
        (PRIVATE, {"THAW_PRELOAD_SIZES": "64X"}, "expected sizes such as"),
        (PRIVATE, {"THAW_PRELOAD_SIZES": "64M,"}, "expected sizes such as"),
        (PRIVATE, {"THAW_PRELOAD_SIZES": "4095"}, "multiple of 4096"),
        (PRIVATE, {"THAW_PRELOAD_SIZES": "1M", "THAW_PRELOAD_HUGE": "1"}, "multiple of 2097152"),
        (PRIVATE, {"THAW_PRELOAD_SIZES": "64M", "THAW_PRELOAD_HUGE": "yes"}, "expected 0 or 1"),
        (PRIVATE, {}, "THAW_PRELOAD_SIZES is not set"),
        (PRIVATE.replace("share=off", "share=on"), {"THAW_PRELOAD_SIZES": "64M"}, "share=off"),
        ("memory-backend-memfd,id=ram,size=64M", {"THAW_PRELOAD_SIZES": "64M"}, "memory-backend-ram"),
    ],
)
def test_a_vmm_whose_memory_cannot_be_handed_over_does_not_run(programs, folder, memory, environment, words):
    assert words in qemu_refused(programs, folder, memory, **environment)
