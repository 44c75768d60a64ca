# SPDX-License-Identifier: Apache-2.0
"""`thaw doctor` and `thaw map` as programs. State files come from tests/lib/fake_pager.c, or from a real pager."""

import json
import os
import pathlib
import re
import shutil
import struct
import subprocess
import xml.etree.ElementTree

import pytest

import thawtest
from thawtest import let_go

pytestmark = pytest.mark.usefixtures("only_thaw")

NOBODY = 65534
LIMIT = 30  # seconds for one run of a program that takes far less than one
PNG_MAGIC = b"\x89PNG\r\n\x1a\n"


def thaw(*args, code=0, **kwargs):
    """Run thaw. Return: the finished process, whose exit status was `code`."""
    done = subprocess.run([thawtest.program("THAW"), *map(str, args)], check=False, capture_output=True, text=True,
                          stdin=subprocess.DEVNULL, timeout=LIMIT, **kwargs)
    assert done.returncode == code, f"exit {done.returncode}, expected {code}\n{done.stdout}{done.stderr}"
    return done


def fails_in_one_line(*args, code=1, **kwargs):
    """Run thaw, which must print exactly one line on stderr. Return: the line."""
    lines = thaw(*args, code=code, **kwargs).stderr.splitlines()
    assert len(lines) == 1 and lines[0].startswith(f"thaw {args[0]}: "), lines
    return lines[0]


def fake_pager(lab, *steps, page_shift=12, state_dir=None):
    """A process that holds a state file with this content. Return: the process, with .path."""
    process = lab.start("fake_pager", [thawtest.program("FAKE_PAGER"), state_dir or lab.state_dir, page_shift, *steps],
                        stdin=subprocess.PIPE)
    process.wait_line(".state\n")
    process.path = pathlib.Path(process.out.strip())
    return process


def ended(process):
    """End a fake pager as `kill -9` ends a pager: its state file stays."""
    process.end()
    assert process.path.exists()
    return process


SMALL = ("region=0x7f0000000000,0x100000,0", "INSTALL=0,10", "WRITTEN=3,5", "REMOVE=100,120", "ZEROFILL=110,112")
SMALL_COUNTS = {"ABSENT": 226, "CLEAN": 8, "DIRTY": 2, "REMOVED": 18, "ZERO": 2}


def counts(text):
    """The legend's counts, by state."""
    found = re.findall(r"^ *(?:\S )? *([A-Z]{4,}) +([\d,]+) +[\d.]+ %", text, re.MULTILINE)
    return {name: int(number.replace(",", "")) for name, number in found}


def without_colours(text):
    return re.sub(r"\x1b\[[0-9;]*m", "", text)


# ---- doctor ----


def test_the_doctor_says_yes_exactly_if_nothing_is_missing():
    done = subprocess.run([thawtest.program("THAW"), "doctor", "--json"], check=False, capture_output=True, text=True,
                          stdin=subprocess.DEVNULL, timeout=LIMIT)
    report = json.loads(done.stdout)
    assert done.stderr == ""
    assert set(report) == {"version", "can_serve", "checks"}
    names = [check["name"] for check in report["checks"]]
    assert len(names) == len(set(names)) >= 15
    for check in report["checks"]:
        assert set(check) == {"name", "state", "found", "advice"}
        assert check["state"] in ("ok", "warn", "missing"), check
        assert check["found"], check
        assert check["state"] != "missing" or check["advice"] or "userfaultfd" in check["found"], check
    missing = [check for check in report["checks"] if check["state"] == "missing"]
    assert report["can_serve"] is (not missing)
    assert done.returncode == (1 if missing else 0)


def test_the_doctor_and_a_pager_agree_on_landlock(lab):
    if os.environ.get("THAW_SANITIZER"):
        pytest.skip("a pager that was built for a sanitizer is confined in part only")
    done = subprocess.run([thawtest.program("THAW"), "doctor", "--json"], check=False, capture_output=True, text=True,
                          stdin=subprocess.DEVNULL, timeout=LIMIT)
    state = next(check["state"] for check in json.loads(done.stdout)["checks"] if check["name"] == "landlock")
    memory = lab.memory("4M")
    pager = lab.serve(memory, "--confine", "on")
    lab.run_vmm(pager, memory, "seq:end=1")
    pager.expect_exit(0)
    version = re.search(r'msg="confined" .*landlock=(\S+)', pager.err).group(1)
    assert (state == "ok") == version.isdigit(), version


def test_the_doctors_text_fits_into_100_columns():
    done = subprocess.run([thawtest.program("THAW"), "doctor"], check=False, capture_output=True, text=True,
                          stdin=subprocess.DEVNULL, timeout=LIMIT)
    assert all(len(line) <= 100 for line in done.stdout.splitlines())
    assert "\x1b" not in done.stdout
    names = re.findall(r"^(?:ok|warn|missing) +(\S+)", done.stdout, re.MULTILINE)
    report = json.loads(subprocess.run([thawtest.program("THAW"), "doctor", "--json"], check=False,
                                       capture_output=True, text=True, timeout=LIMIT).stdout)
    assert names == [check["name"] for check in report["checks"]]


def doctor_checks(**kwargs):
    """Each check's line of a host that can serve."""
    return {check["name"]: check for check in json.loads(thaw("doctor", "--json", **kwargs).stdout)["checks"]}


def needs_userfaultfd():
    if not os.access("/dev/userfaultfd", os.R_OK | os.W_OK):
        pytest.skip("this user may not open /dev/userfaultfd")


def test_where_faults_can_be_served_the_doctor_has_served_some():
    needs_userfaultfd()
    checks = doctor_checks()
    for name in ("page-fault", "kernel-fault", "discard", "write-tracking"):
        assert checks[name]["state"] == "ok", checks[name]
    assert re.search(r"64 page faults .* [\d.]+ us", checks["page-fault"]["found"])
    assert "EVENT_REMOVE" in checks["features"]["found"].split()


def test_a_free_huge_page_is_tried():
    needs_userfaultfd()
    with thawtest.hugepages(4):
        check = doctor_checks()["huge-pages"]
    if "are in use" in check["found"]:
        pytest.skip("other processes took the huge pages that were reserved for this test")
    assert check["state"] == "ok" and "a fault on one was served" in check["found"], check


def as_nobody():
    os.setgroups([])
    os.setgid(NOBODY)
    os.setuid(NOBODY)


def needs_root(program):
    """Skips unless this is root, and `program` can be started by others."""
    if os.geteuid() != 0:
        pytest.skip("only root can become somebody else")
    probe = subprocess.run(["test", "-x", program], check=False, timeout=LIMIT, preexec_fn=as_nobody)
    if probe.returncode != 0:
        pytest.skip(f"user {NOBODY} cannot reach {program}")


def test_somebody_without_rights_is_told_what_to_do(lab):
    needs_root(thawtest.program("THAW"))
    if not os.path.exists("/dev/userfaultfd") or os.stat("/dev/userfaultfd").st_mode & 0o006 == 0o006:
        pytest.skip("/dev/userfaultfd is missing or open to everybody")
    lab.dir.chmod(0o777)
    done = thaw("doctor", "--json", code=1, preexec_fn=as_nobody, env={"XDG_RUNTIME_DIR": str(lab.dir)})
    checks = {check["name"]: check for check in json.loads(done.stdout)["checks"]}
    assert checks["userfaultfd"]["state"] == "missing"
    assert "permission" in checks["userfaultfd"]["found"]
    assert checks["page-fault"]["state"] == "missing"
    assert checks["run-directory"]["state"] == "ok", checks["run-directory"]
    assert str(lab.dir) in checks["run-directory"]["found"]
    assert not (lab.dir / "thaw").exists(), "the doctor leaves nothing behind"


def test_a_run_directory_that_cannot_be_made_is_missing(lab):
    needs_root(thawtest.program("THAW"))
    lab.dir.chmod(0o755)
    done = thaw("doctor", "--json", code=1, preexec_fn=as_nobody, env={"XDG_RUNTIME_DIR": str(lab.dir)})
    check = next(c for c in json.loads(done.stdout)["checks"] if c["name"] == "run-directory")
    assert check["state"] == "missing" and "--state" in check["advice"], check


def test_without_the_device_the_system_call_is_used():
    needs_userfaultfd()
    if os.geteuid() != 0 or not shutil.which("unshare"):
        pytest.skip("needs root and unshare, to hide /dev/userfaultfd")
    hidden = ["unshare", "-m", "sh", "-c", "mount -t tmpfs none /dev && exec \"$0\" doctor --json",
              thawtest.program("THAW")]
    done = subprocess.run(hidden, check=False, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=LIMIT)
    if not done.stdout:
        pytest.skip(f"cannot hide /dev here: {done.stderr.strip()}")
    checks = {check["name"]: check for check in json.loads(done.stdout)["checks"]}
    assert "userfaultfd(2) is allowed" in checks["userfaultfd"]["found"], checks["userfaultfd"]
    assert checks["page-fault"]["state"] == "ok"


@pytest.mark.parametrize("args", [["--jsn"], ["--json=1"], ["more"], ["-x"]], ids=" ".join)
def test_the_doctor_refuses_what_it_does_not_know(args):
    assert "see --help" in fails_in_one_line("doctor", *args, code=2)


# ---- map: which pager ----


def test_without_state_files_there_is_nothing_to_draw(lab):
    assert str(lab.dir / "none") in fails_in_one_line("map", "--state", lab.dir / "none")


def test_the_only_pager_is_drawn(lab):
    pager = fake_pager(lab, *SMALL, "vmm=4711", "memory=/some/memory.bin")
    text = thaw("map", "--state", lab.state_dir).stdout
    assert "Guest memory of process 4711" in text
    assert f"pager {pager.pid}, snapshot /some/memory.bin" in text
    assert "1 MiB in 256 pages of 4 KiB, 1 region" in text
    assert counts(text) == SMALL_COUNTS
    assert "STALE" not in text


def test_two_pagers_are_a_choice(lab):
    one = fake_pager(lab, *SMALL)
    other = fake_pager(lab, "region=0x7f0000000000,0x40000000,0")
    done = thaw("map", "--state", lab.state_dir, code=1)
    lines = done.stderr.splitlines()
    assert done.stdout == ""
    assert lines[0].startswith("thaw map: 2 pagers run")
    assert sorted(int(line.split()[0]) for line in lines[1:]) == sorted([one.pid, other.pid])
    assert any("1 GiB" in line for line in lines)
    assert counts(thaw("map", one.pid, "--state", lab.state_dir).stdout) == SMALL_COUNTS
    assert "1 GiB in 262,144 pages" in thaw("map", "--state", lab.state_dir, other.pid).stdout


def test_a_state_file_can_be_named(lab):
    pager = fake_pager(lab, *SMALL)
    assert counts(thaw("map", pager.path).stdout) == SMALL_COUNTS


def test_what_a_dead_pager_left_behind_is_called_stale(lab):
    pager = ended(fake_pager(lab, *SMALL))
    assert "STALE" in thaw("map", pager.path).stdout.splitlines()[0]
    assert "STALE" in thaw("map", pager.pid, "--state", lab.state_dir).stdout.splitlines()[0]
    done = thaw("map", "--state", lab.state_dir, code=1)
    assert done.stderr.startswith("thaw map: 0 pagers run")
    assert f"{pager.pid} " in done.stderr and "STALE" in done.stderr


def test_a_dead_pager_does_not_hide_the_only_one_that_runs(lab):
    ended(fake_pager(lab, *SMALL))
    fake_pager(lab, *SMALL, "vmm=4712")
    assert "process 4712" in thaw("map", "--state", lab.state_dir).stdout


def test_a_file_whose_pid_belongs_to_another_process_is_stale(lab):
    pager = fake_pager(lab, *SMALL)
    copy = shutil.copy(pager.path, lab.dir / "1.state")  # the process lives, and holds another file
    assert "STALE" in thaw("map", copy).stdout.splitlines()[0]


def test_other_files_in_the_directory_are_passed_over(lab):
    pager = fake_pager(lab, *SMALL)
    for name in ("0.state", "-1.state", "12.state.new", "notes", "99999999999999999999.state"):
        (lab.state_dir / name).write_text("nothing")
    (lab.state_dir / "77.state").write_text("damaged")
    assert f"pager {pager.pid}" in thaw("map", "--state", lab.state_dir).stdout


def damaged(path, offset, data):
    """A copy of a state file with `data` at `offset`."""
    content = bytearray(path.read_bytes())
    content[offset:offset + len(data)] = data
    copy = path.parent / "damaged"
    copy.write_bytes(content)
    return copy


def test_what_is_no_state_file_is_refused_in_one_line(lab):
    path = fake_pager(lab, *SMALL).path
    short = lab.dir / "short"
    short.write_bytes(path.read_bytes()[:5000])
    empty = lab.dir / "empty"
    empty.touch()
    assert "not a state file" in fails_in_one_line("map", short)
    assert "not a state file" in fails_in_one_line("map", empty)
    assert "not a state file" in fails_in_one_line("map", "/dev/null")
    assert "not a state file" in fails_in_one_line("map", lab.dir)
    assert "No such file" in fails_in_one_line("map", lab.dir / "none")
    assert "another version" in fails_in_one_line("map", damaged(path, 8, struct.pack("<I", 99)))
    for offset, data in ((0, b"x"), (24, struct.pack("<I", 13)), (28, struct.pack("<I", 0)),
                         (28, struct.pack("<I", 9000)), (32, struct.pack("<Q", 1 << 60)),
                         (56, struct.pack("<Q", 1 << 40))):
        assert "not a state file" in fails_in_one_line("map", damaged(path, offset, data)), offset


@pytest.mark.parametrize("args", [["-o", "picture.gif"], ["-o", ".png"], ["-o"], ["--state"], ["1", "2"], ["--no"]],
                         ids=" ".join)
def test_the_map_refuses_what_it_does_not_know(args):
    assert "see --help" in fails_in_one_line("map", *args, code=2)


# ---- map: the picture ----


def png_size(path):
    """Width and height in a PNG file's header."""
    data = path.read_bytes()
    assert data[:8] == PNG_MAGIC and data[12:16] == b"IHDR" and data[-8:-4] == b"IEND"
    return struct.unpack(">II", data[16:24])


def cairo_or_skip(done):
    """Skips when the drawing library is not installed, which the program says in one line."""
    if done.returncode == 1 and "libcairo" in done.stderr:
        pytest.skip(done.stderr.strip())
    assert done.returncode == 0, done.stderr


def drawn(lab, pager, name):
    """Draw into a file. Return: its path."""
    path = lab.dir / name
    cairo_or_skip(subprocess.run([thawtest.program("THAW"), "map", pager.path, "-o", path], check=False,
                                 capture_output=True, text=True, timeout=LIMIT))
    return path


GUESTS = {
    "tiny": (12, ["region=0x7f0000000000,0x1000,0"]),
    "256M": (12, ["region=0x7f0000000000,0x10000000,0", "guest=1", "faults=100"]),
    "64G": (12, ["region=0x7e0000000000,0xc0000000,0", "region=0x7f0000000000,0xf40000000,0xc0000000", "guest=2"]),
    "three": (12, ["region=0x7f0000000000,0x8000000,0", "region=0x7f1000000000,0x4000000,0x8000000",
                   "region=0x7f2000000000,0x3000,0xc000000", "guest=3"]),
    "huge": (21, ["region=0x7f0000000000,0x100000000,0", "guest=4"]),
    "many": (12, [f"region={0x7f0000000000 + i * 0x10000000:#x},0x10000,{i * 0x10000:#x}" for i in range(50)]),
}


@pytest.mark.parametrize("guest", GUESTS)
def test_every_guest_gives_a_picture_of_sensible_size(lab, guest):
    page_shift, steps = GUESTS[guest]
    pager = fake_pager(lab, *steps, page_shift=page_shift)
    width, height = png_size(drawn(lab, pager, "p.png"))
    assert 300 <= width <= 1400 and 150 <= height <= 1700
    svg = drawn(lab, pager, "p.svg")
    root = xml.etree.ElementTree.parse(svg).getroot()
    assert root.tag.endswith("svg")
    assert (root.get("width"), root.get("height")) == (f"{width}px", f"{height}px")
    assert svg.stat().st_size < 2 << 20
    text = thaw("map", pager.path).stdout
    assert len(text.splitlines()) < 64 + 14 + 16
    assert max(map(len, text.splitlines())) < 240


def test_a_picture_replaces_the_one_before_as_a_whole(lab):
    pager = fake_pager(lab, *SMALL)
    folder = lab.dir / "pictures"
    folder.mkdir()
    (folder / "p.png").write_text("before")
    drawn(lab, pager, "pictures/p.png")
    png_size(folder / "p.png")
    assert [p.name for p in folder.iterdir()] == ["p.png"]


def test_where_no_picture_can_be_written_nothing_is_left(lab):
    pager = fake_pager(lab, *SMALL)
    drawn(lab, pager, "p.png")  # skips without the library
    assert "cannot create" in fails_in_one_line("map", pager.path, "-o", lab.dir / "none" / "p.png")
    (lab.dir / "taken.png").mkdir()
    fails_in_one_line("map", pager.path, "-o", lab.dir / "taken.png")
    assert not [p.name for p in lab.dir.iterdir() if p.name.startswith("taken.png.")]


def test_on_a_terminal_the_picture_is_coloured_and_fits(lab):
    pager = fake_pager(lab, "region=0x7f0000000000,0x40000000,0", "guest=1")
    text = thawtest.on_terminal([thawtest.program("THAW"), "map", str(pager.path)], 100, 50)
    assert "\u2580" in text
    assert "\x1b[38;2;217;221;227m" in text, "absent pages have their colour of core/page_states.def"
    assert len(text.splitlines()) < 50
    rows = [line for line in without_colours(text).splitlines() if "\u2580" in line]
    assert {len(row) for row in rows} == {12 + 64}
    assert counts(without_colours(text)) == counts(thaw("map", pager.path).stdout)


def test_a_real_pagers_picture_agrees_with_its_statistics(lab):
    memory = lab.memory("8M", seed=11)
    pager = lab.serve(memory, "--track", "wp", "--fault-around", "0")
    vmm = lab.start_vmm(pager, memory, "seq:end=700", "stamp:first=100,end=164", "pause", "verify")
    vmm.wait_line("paused")
    # The kernel's answer wakes the guest, and what it means is written down after that: the last page may come a moment later.
    texts = []

    def all_is_written():
        texts.append(thaw("map", pager.pid, "--state", lab.state_dir).stdout)
        return counts(texts[-1])["DIRTY"] >= 64

    thawtest.wait_until(all_is_written, "the picture of 64 written pages")
    text = texts[-1]
    before = counts(text)
    assert f"Guest memory of process {vmm.pid}" in text and "writes tracked" in text
    assert before["DIRTY"] == 64
    assert before["CLEAN"] + before["ZERO"] == 700 - 64
    assert sum(before.values()) == 2048
    drawn_before = lab.dir / "p.svg"
    cairo = subprocess.run([thawtest.program("THAW"), "map", "--state", lab.state_dir, "-o", drawn_before], check=False,
                           capture_output=True, text=True, timeout=LIMIT)
    let_go(vmm)
    lab.finish_vmm(vmm)
    pager.expect_exit(0)
    assert pager.stats()["states"]["dirty"] == 64
    fails_in_one_line("map", "--state", lab.state_dir)
    cairo_or_skip(cairo)
