# SPDX-License-Identifier: Apache-2.0
"""`thaw workingset` as a program, on files that another program wrote (tests/lib/workingset.py)."""

import json
import os
import random
import re
import resource
import signal
import subprocess

import pytest

import thawtest
from workingset import WorkingSet, format_workingset, make_workingset, read_workingset

pytestmark = pytest.mark.usefixtures("only_thaw")

LIMIT = 30  # seconds for one run of a program that takes far less than one
IMAGE = 100 * 4096
SMALL = [(7, 0, False), (99, 3, True), (0, 63, False), (1, 3, False)]


def run(*args, **kwargs):
    """Run `thaw workingset` to its end."""
    return subprocess.run([thawtest.program("THAW"), "workingset", *map(str, args)], check=False, capture_output=True,
                          text=True, errors="surrogateescape", stdin=subprocess.DEVNULL, timeout=LIMIT, **kwargs)


def out(*args, **kwargs):
    """What it prints when it works, and says nothing else."""
    done = run(*args, **kwargs)
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    return done.stdout


def fails(*args, code=1, **kwargs):
    """The one line that it says when it does not."""
    done = run(*args, **kwargs)
    lines = done.stderr.splitlines()
    assert done.returncode == code, done.stderr
    assert len(lines) == 1 and lines[0].startswith("thaw workingset: "), done.stderr
    assert done.stdout == ""
    return lines[0]


def small(lab, name="set", **more):
    return make_workingset(lab.dir / name, IMAGE, SMALL, **more)


# ---- show ----


def test_show_has_a_line_for_each_entry_in_the_order_of_the_touches(lab):
    assert out("show", small(lab)).splitlines() == [
        "# 4 of 4096 bytes each, of a memory file of 409600 bytes, recorded for 5.000 s",
        "0x000000007000 <1ms     read",
        "0x000000063000 <8ms     write",
        "0x000000000000 <9223372036854776s read",
        "0x000000001000 <8ms     read",
    ]


def test_show_says_when_a_record_was_cut_off(lab):
    assert out("show", small(lab, complete=False)).splitlines()[0].endswith("s, cut off")


def test_show_as_json_says_the_same(lab):
    shown = json.loads(out("show", "--json", small(lab, complete=False)))
    assert shown == {"image_bytes": IMAGE, "unit_bytes": 4096, "window_ns": 5_000_000_000, "complete": False,
                     "entries": [{"offset": unit * 4096, "time_class": time_class, "write": write}
                                 for unit, time_class, write in SMALL]}


def test_a_set_without_entries_is_shown(lab):
    path = make_workingset(lab.dir / "set", IMAGE, [])
    assert len(out("show", path).splitlines()) == 1
    assert json.loads(out("show", path, "--json"))["entries"] == []
    assert json.loads(out("stat", "--json", path))["entries"] == 0
    assert "touched        0 units" in out("stat", path)


def test_huge_units_are_shown_with_their_offsets(lab):
    path = make_workingset(lab.dir / "set", 8 << 21, [7, 2], unit_shift=21)
    assert [line.split()[0] for line in out("show", path).splitlines()[1:]] == ["0x000000e00000", "0x000000400000"]


# ---- stat ----


def test_stat_as_json_counts_what_is_there(lab):
    path = small(lab)
    assert json.loads(out("stat", "--json", path)) == {
        "file": str(path), "image_bytes": IMAGE, "unit_bytes": 4096, "entries": 4, "bytes": 4 * 4096, "share": 0.04,
        "writes": 1, "runs": 3, "median_run": 1, "longest_run": 2, "in_order": pytest.approx(1 / 3),
        "seconds": 5.0, "complete": True, "by_ms": {"1": 1, "8": 2, str(1 << 63): 1}}


def test_stat_as_text_says_the_same(lab):
    path = make_workingset(lab.dir / "set", 1 << 30, [*range(1000, 3000), (10, 2, True)], complete=False)
    text = out("stat", path)
    lines = [re.split(r"  +", line.strip()) for line in text.splitlines()]
    assert lines == [
        [str(path)],
        ["memory file", "1,073,741,824 bytes (1 GiB) in units of 4 KiB"],
        ["touched", "2,001 units, 7.82 MiB, 0.76 %; of them written 1"],
        ["runs", "2 of neighbours; median 2,000, longest 2,000 units"],
        ["in order", "99.95 % come right after the one before them"],
        ["recorded for", "5.000 s, cut off"],
        ["when", "<1ms", "2,000"],
        ["<4ms", "1"],
    ]


def test_stat_has_a_line_of_json_for_each_file_whatever_its_name(lab):
    names = ["a", 'with "quotes" and \u00e9', "line\nbreak"]
    paths = [small(lab, name) for name in names]
    lines = out("stat", "--json", *paths).splitlines()
    assert [json.loads(line)["file"] for line in lines] == [str(path) for path in paths]
    odd = os.fsencode(lab.dir) + b"/\xff"
    with open(odd, "wb") as file:
        file.write(format_workingset(IMAGE, SMALL))
    assert json.loads(out("stat", "--json", os.fsdecode(odd)))["file"] is None


def test_random_sets_are_read_as_they_were_written(lab):
    seed = int(os.environ.get("THAW_SEED", random.randrange(1 << 32)))
    print(f"THAW_SEED={seed}")
    rng = random.Random(seed)
    for _ in range(20):
        shift = rng.choice([12, 21])
        n_units = rng.randrange(1, 5000)
        entries = [(unit, rng.randrange(64), rng.random() < 0.3)
                   for unit in rng.sample(range(n_units), rng.randrange(0, min(n_units, 300) + 1))]
        path = make_workingset(lab.dir / "set", n_units << shift, entries, shift, complete=rng.random() < 0.5,
                               window_ns=rng.randrange(1 << 64))
        shown = json.loads(out("show", "--json", path))["entries"]
        assert [(e["offset"] >> shift, e["time_class"], e["write"]) for e in shown] == entries
        counted = json.loads(out("stat", "--json", path))
        touched = {unit for unit, _, _ in entries}
        assert counted["runs"] == sum(unit - 1 not in touched for unit in touched)
        assert counted["writes"] == sum(write for _, _, write in entries)
        assert sum(counted["by_ms"].values()) == len(entries)


# ---- merge ----


def test_merged_sets_are_files_that_another_program_reads(lab):
    first = make_workingset(lab.dir / "1", IMAGE, [(7, 4, False), (3, 2, False), (50, 0, False)], window_ns=10)
    second = make_workingset(lab.dir / "2", IMAGE, [(3, 1, True), (80, 5, False), (7, 6, False)], window_ns=30)
    both = lab.dir / "both"
    assert out("merge", "--union", "-o", both, first, second) == ""
    assert read_workingset(both) == WorkingSet(
        IMAGE, [(7, 4, False), (3, 1, True), (50, 0, False), (80, 5, False)], window_ns=30)
    assert out("merge", "--intersect", "--output", both, first, second) == ""
    assert read_workingset(both) == WorkingSet(IMAGE, [(7, 4, False), (3, 1, True)], window_ns=30)
    assert both.stat().st_mode & 0o777 == 0o644


def test_one_that_was_cut_off_makes_the_merged_one_so(lab):
    sets = [small(lab, "1"), small(lab, "2", complete=False), small(lab, "3")]
    assert out("merge", "--union", "-o", lab.dir / "out", *sets) == ""
    assert read_workingset(lab.dir / "out") == WorkingSet(IMAGE, SMALL, window_ns=5_000_000_000, complete=False)


def test_the_result_may_replace_one_of_the_sets(lab):
    first = make_workingset(lab.dir / "1", IMAGE, [1, 2])
    second = make_workingset(lab.dir / "2", IMAGE, [2, 3])
    assert out("merge", "--union", "-o", first, first, second) == ""
    assert [unit for unit, _, _ in read_workingset(first).entries] == [1, 2, 3]


def test_sets_of_memory_files_of_other_sizes_are_not_merged(lab):
    sets = [small(lab, "1"), small(lab, "2"), make_workingset(lab.dir / "3", IMAGE + 4096, SMALL)]
    assert fails("merge", "--union", "-o", lab.dir / "out", *sets).endswith(
        "working set 3 of those is of a memory file of 413696 bytes, the first one of 409600")
    huge = make_workingset(lab.dir / "4", 4 << 21, [1], unit_shift=21)
    other = make_workingset(lab.dir / "5", 4 << 21, [1])
    assert fails("merge", "--intersect", "-o", lab.dir / "out", huge, other).endswith(
        "working set 2 of those is in units of 4096 bytes, the first one of 2097152")
    assert not (lab.dir / "out").exists()


def folder(lab):
    return sorted(path.name for path in lab.dir.iterdir() if path.is_file())


def test_a_result_that_cannot_be_written_leaves_the_old_file_and_nothing_else(lab):
    sets = [make_workingset(lab.dir / name, 4 << 30, range(n, n + 20000)) for name, n in (("1", 0), ("2", 10000))]
    target = small(lab, "out")
    before = folder(lab)

    def small_files():
        resource.setrlimit(resource.RLIMIT_FSIZE, (65536, 65536))
        # What Python ignores, a program that it starts does not; and the signal would end it.
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)

    line = fails("merge", "--union", "-o", target, *sets, preexec_fn=small_files, restore_signals=False)
    assert f"cannot write {target}: " in line
    assert read_workingset(target).entries == SMALL
    assert folder(lab) == before
    assert "cannot " in fails("merge", "--union", "-o", lab.dir / "nowhere/out", *sets)


def test_a_merge_that_is_killed_leaves_the_old_file_or_the_new_one(lab):
    sets = [make_workingset(lab.dir / name, 4 << 30, range(n, n + 200000)) for name, n in (("1", 0), ("2", 100000))]
    target = small(lab, "out")
    whole = set()
    for delay_us in (0, 500, 1000, 2000, 4000, 8000, 16000, 32000):
        merge = subprocess.Popen([thawtest.program("THAW"), "workingset", "merge", "--union", "-o", target, *sets],
                                 stdin=subprocess.DEVNULL)
        try:
            merge.wait(delay_us / 1e6)
        except subprocess.TimeoutExpired:
            pass
        merge.kill()
        merge.wait(LIMIT)
        whole.add(len(read_workingset(target).entries))  # reads it, and checks the checksum
    assert whole <= {len(SMALL), 300000}


def test_what_is_no_file_is_not_replaced(lab):
    sets = [small(lab, "1"), small(lab, "2")]
    fifo = lab.dir / "fifo"
    os.mkfifo(fifo)
    for target in (fifo, lab.dir):
        assert fails("merge", "--union", "-o", target, *sets).endswith(f"{target} is there and is not a regular file")
    assert fifo.is_fifo()


# ---- what is wrong ----


DAMAGED = {
    "version": (dict(version=2), "is of version 2, this thaw reads version 1"),
    "header": (dict(header_bytes=72), "no such length of a header (offset 12)"),
    "unit": (dict(unit_shift=16), "no such unit (offset 16)"),
    "flags": (dict(flags=4), "unknown flags (offset 20)"),
    "unaligned": (dict(image_bytes=IMAGE + 1), "no such size of a memory file (offset 24)"),
    "too-many": (dict(n_entries=101), "more entries than the memory file has units (offset 32)"),
    "cut": (dict(n_entries=5), "it ends too early (offset 96)"),
    "longer": (dict(tail=b"12345678"), "it does not end behind its last entry (offset 96)"),
    "checksum": (dict(checksum=1), "its checksum is wrong (offset 48)"),
    "reserved": (dict(reserved=1), "what is reserved is not 0 (offset 56)"),
    "magic": (dict(magic=b"\x01ThawBlk"), "is not a working set"),
    "twice": (dict(entries=[5, 6, 5]), "an entry occurs twice (offset 80)"),
    "beyond": (dict(entries=[5, 100]), "an entry beyond the memory file (offset 72)"),
    "time": (dict(entries=[(5, 64, False)]), "no such time class (offset 64)"),
    "bits": (dict(entries=[5 | 1 << 63]), "unknown bits in an entry (offset 64)"),
}


@pytest.mark.parametrize("what", DAMAGED)
def test_a_damaged_file_is_refused_in_one_line_that_names_it_and_the_place(lab, what):
    more, text = DAMAGED[what]
    more = dict(more)
    path = make_workingset(lab.dir / "damaged", more.pop("image_bytes", IMAGE), more.pop("entries", SMALL), **more)
    for args in (("show", path), ("show", "--json", path), ("stat", path), ("stat", "--json", path),
                 ("merge", "--union", "-o", lab.dir / "out", small(lab), path)):
        line = fails(*args)
        assert str(path) in line and text in line, line
    assert not (lab.dir / "out").exists()


def test_a_file_that_is_none_is_refused(lab):
    for path in ("/dev/null", lab.dir, lab.dir / "not-there"):
        assert str(path) in fails("show", path)
    (lab.dir / "text").write_text("hello")
    assert fails("stat", lab.dir / "text").endswith("text is not a working set: it has 5 bytes")


def test_after_a_file_that_is_wrong_the_others_are_not_read(lab):
    done = run("stat", "--json", small(lab), lab.dir / "not-there", small(lab, "other"))
    assert done.returncode == 1 and len(done.stdout.splitlines()) == len(done.stderr.splitlines()) == 1


def test_an_output_that_takes_nothing_is_an_error(lab):
    path = small(lab)
    for args in (("show", path), ("show", "--json", path), ("stat", path), ("stat", "--json", path)):
        with open("/dev/full", "wb") as full:
            done = subprocess.run([thawtest.program("THAW"), "workingset", *map(str, args)], check=False, stdout=full,
                                  stderr=subprocess.PIPE, text=True, stdin=subprocess.DEVNULL, timeout=LIMIT)
        assert done.returncode == 1 and "cannot write" in done.stderr, args


@pytest.mark.parametrize("args", [
    [],
    ["show"],
    ["show", "a", "b"],
    ["stat"],
    ["look", "a"],
    ["merge", "--union", "-o", "out", "a"],
    ["merge", "-o", "out", "a", "b"],
    ["merge", "--union", "--intersect", "-o", "out", "a", "b"],
    ["merge", "--union", "a", "b"],
    ["merge", "--union", "-o", "out", *("x" * 65)],
    ["merge", "--json", "--union", "-o", "out", "a", "b"],
    ["show", "--union", "a"],
    ["stat", "-o", "out", "a"],
    ["show", "--no-such-option", "a"],
    ["merge", "--union", "a", "b", "-o"],
], ids=lambda args: " ".join(args)[:40] or "nothing")
def test_a_usage_error_is_one_line_and_exit_2(lab, args):
    fails(*args, code=2, cwd=lab.dir)
    assert folder(lab) == []
