# SPDX-License-Identifier: Apache-2.0
"""`thaw image inspect` says what is in an image, `thaw image verify` what is wrong with it."""

import dataclasses
import hashlib
import json
import os
import pathlib
import re
import signal
import struct
import subprocess
import xml.etree.ElementTree

import pytest

import thawtest
from image_reader import Image
from image_writer import LZ4, PAGE, STORED, ZSTD, ImageWriter
from imagelib import LIMIT, Store, make_memory, new_rng, page_bytes, write_pages
from workingset import make_workingset

pytestmark = pytest.mark.usefixtures("only_thaw")


@pytest.fixture
def store(lab):
    """A store that is not there yet."""
    return Store(lab.dir / "store")


@pytest.fixture
def family(lab, store):
    """Three images, each the child of the one before; the last one has a working set."""
    rng = new_rng()
    memory, parent = None, []
    for name in ("one", "two", "three"):
        memory = make_memory(lab.dir / name, rng, n_pages=1000, parent=memory)
        working_set = make_workingset(lab.dir / "set", 1000 * PAGE, rng.sample(range(1000), 150))
        extra = ["--working-set", working_set] if name == "three" else []
        store.pack(memory, name, *parent, *extra, "--frame", "16K", "--codec", "lz4" if name == "two" else "zstd")
        parent = ["--parent", name]
    return store


# ---- inspect ----


def inspected(store, name):
    return json.loads(store.out("inspect", "--json", name))


def kinds(manifest):
    """[(own, parent's or zero; hot)] of all pages, the plain way."""
    pages = ["zero"] * manifest.n_pages
    for first, n, frame, _, _ in manifest.runs:
        pages[first:first + n] = ["own" if manifest.has_own_pack and manifest.frames[frame][0] == 0 else "parents"] * n
    hot = {page for first, n in manifest.hot for page in range(first, first + n)}
    return [(kind, page in hot) for page, kind in enumerate(pages)]


@pytest.mark.parametrize("name", ["one", "two", "three"])
def test_the_numbers_of_inspect_are_those_of_another_program(family, name):
    manifest = Image(family.path, name).manifest
    seen = inspected(family, name)
    pages = kinds(manifest)
    assert seen["name"] == name and seen["id"] == manifest.id.hex() and seen["created_s"] == manifest.created_s
    assert seen["image_bytes"] == manifest.image_bytes and seen["page_bytes"] == PAGE
    assert seen["pages"] == {"all": 1000} | {k: sum(kind == k for kind, _ in pages) for k in ("zero", "own", "parents")}
    assert seen["working_set"] == {"all": 150 if name == "three" else 0} | {
        k: sum(kind == k and hot for kind, hot in pages) for k in ("zero", "own", "parents")}
    assert seen["working_set_runs"] == len(manifest.hot)
    frames = manifest.frames
    assert seen["stored"] == summed(frames)
    assert seen["codecs"] == {codec: summed([f for f in frames if f[4] == number])
                              for number, codec in enumerate(("none", "lz4", "zstd"))}
    assert seen["ratio"] == pytest.approx(manifest.image_bytes / seen["stored"]["stored_bytes"])
    assert seen["frame_ratio"] == pytest.approx(seen["stored"]["pages"] * PAGE / seen["stored"]["stored_bytes"])
    assert [parent["id"] for parent in seen["parents"]] == [parent.hex() for (parent,) in manifest.parents]
    check_packs(family, name, manifest, seen)


def summed(frames):
    return {"frames": len(frames), "pages": sum(f[3] for f in frames), "stored_bytes": sum(f[1] for f in frames)}


def check_packs(family, name, manifest, seen):
    """Each pack's share, and whose it is."""
    chain = ["one", "two", "three"][:["one", "two", "three"].index(name) + 1][::-1]
    assert [parent["name"] for parent in seen["parents"]] == chain[1:]
    own = {Image(family.path, n).manifest.packs[0][0].hex(): Image(family.path, n).manifest.id.hex() for n in chain}
    hot = {page for page, (_, is_hot) in enumerate(kinds(manifest)) if is_hot}
    assert len(seen["packs"]) == len(manifest.packs)
    for number, pack in enumerate(seen["packs"]):
        sha256, length = manifest.packs[number]
        pages = [page for first, n, frame, _, _ in manifest.runs if manifest.frames[frame][0] == number
                 for page in range(first, first + n)]
        total = summed([f for f in manifest.frames if f[0] == number])
        assert pack == {"sha256": sha256.hex(), "bytes": length, "image": own[sha256.hex()], "own": number == 0,
                        "pages": len(pages), "hot_pages": len(hot & set(pages)), "frames": total["frames"],
                        "frame_pages": total["pages"], "stored_bytes": total["stored_bytes"]}


def test_the_text_of_inspect_says_the_same(family):
    seen = inspected(family, "three")
    text = family.out("inspect", "three")
    assert text.splitlines()[0] == "three" and seen["id"] in text and "\x1b" not in text
    rows = re.findall(r"^  (zero|own|parents') +([\d,]+) +([\d.]+) % .* hot ([\d,]+)$", text, re.MULTILINE)
    assert {name.strip("'"): (int(n), int(hot)) for name, n, _, hot in rows} == {
        name: (seen["pages"][name], seen["working_set"][name]) for name in ("zero", "own", "parents")}
    packs = text.split("PACK OF")[1].splitlines()[1:]
    assert [line.split()[:3] for line in packs] == [
        [image, pack["image"][:12], f"{pack['pages']:,}"]
        for image, pack in zip(("three", "two", "one"), seen["packs"], strict=True)]
    assert f"working set  150 pages (600 KiB) in {seen['working_set_runs']:,} runs" in text
    assert all(len(line) <= 130 for line in text.splitlines())
    assert family.out("inspect", seen["id"][:20]) == text


def test_every_member_of_the_json_is_in_the_manual_page(family):
    page = (thawtest.ROOT / "man/thaw-image.1.scd").read_text(encoding="utf-8")
    seen = inspected(family, "three")
    for part in (seen, seen["pages"], seen["stored"], seen["codecs"], seen["parents"][0], seen["packs"][0]):
        for key in part:
            assert f"*{key}*" in page, key


def test_a_parent_that_is_not_known_any_more_is_said_to_be_so(family):
    two = inspected(family, "two")["id"]
    (family.path / "names" / "two").unlink()
    assert inspected(family, "three")["parents"][0] == {"id": two, "name": None}
    assert f"(no name)                {two[:12]}" in family.out("inspect", "three")
    (family.path / "manifests" / two).unlink()
    seen = inspected(family, "three")
    assert [pack["image"] is None for pack in seen["packs"]] == [False, True, False]
    assert not seen["packs"][1]["own"]
    assert "not known" in family.out("inspect", "three")


def test_an_image_of_zeroes_is_inspected(lab, store):
    store.pack(write_pages(lab.dir / "memory", [None] * 9), "zero")
    seen = inspected(store, "zero")
    assert seen["pages"] == {"all": 9, "zero": 9, "own": 0, "parents": 0}
    assert seen["ratio"] == 0 and seen["packs"] == []
    text = store.out("inspect", "zero")
    assert "stored       nothing" in text and "frames       none" in text and "PACK OF" not in text


@pytest.mark.parametrize("args", [[], ["a", "b"], ["--no", "a"], ["--picture"], ["--picture", "p.gif", "a"],
                                  ["--picture", ".png", "a"]], ids=" ".join)
def test_inspect_refuses_what_it_does_not_know(lab, store, args):
    ImageWriter(store.path, 1).put("a")
    store.fails("inspect", *args, code=2, cwd=lab.dir)
    assert not list(lab.dir.glob("*.gif"))


def test_an_image_that_is_not_there_is_said_to_be_so(store):
    ImageWriter(store.path, 1).put("a")
    for verb in ("inspect", "verify"):
        done = store.run(verb, "b")
        assert done.returncode == 1 and done.stderr == f"thaw image {verb}: no image b in the store {store.path}\n"


# ---- the picture ----


def drawn(store, name, path):
    """Draw an image; the test skips without the drawing library."""
    done = store.run("inspect", name, "--picture", path)
    if done.returncode == 1 and "libcairo" in done.stderr:
        pytest.skip(done.stderr.strip())
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    return path


def png_size(path):
    data = path.read_bytes()
    assert data[:8] == b"\x89PNG\r\n\x1a\n" and data[12:16] == b"IHDR" and data[-8:-4] == b"IEND"
    return struct.unpack(">II", data[16:24])


def test_an_image_is_drawn_into_a_file(lab, family):
    width, height = png_size(drawn(family, "three", lab.dir / "p.png"))
    root = xml.etree.ElementTree.parse(drawn(family, "three", lab.dir / "p.svg")).getroot()
    assert root.tag.endswith("svg") and (root.get("width"), root.get("height")) == (f"{width}px", f"{height}px")
    assert 300 <= width <= 1400 and 300 <= height <= 1700
    assert json.loads(family.out("inspect", "three", "--json", "--picture", lab.dir / "again.png"))["name"] == "three"
    assert (lab.dir / "again.png").read_bytes() == (lab.dir / "p.png").read_bytes()
    assert "cannot create" in family.fails("inspect", "three", "--picture", lab.dir / "none" / "p.png")


def test_the_largest_image_is_drawn(lab, store):
    writer = ImageWriter(store.path, (1 << 46) // PAGE)
    (frame,) = writer.add_pack([(ZSTD, bytes(512 * PAGE))])
    writer.add_run(77, 512, frame)
    writer.add_run((1 << 46) // PAGE - 512, 512, frame)
    writer.hot = [(0, 1 << 30)]
    writer.put("large")
    assert inspected(store, "large")["pages"]["own"] == 1024
    width, height = png_size(drawn(store, "large", lab.dir / "p.png"))
    assert width <= 1400 and height <= 1700


def test_on_a_terminal_the_image_is_drawn_as_well(family):
    text = thawtest.on_terminal(family.argv("inspect", "three"), 100, 50)
    assert "\u2580" in text and "\x1b[38;2;76;159;112m" in text, "pages of its own are green"
    plain = re.sub(r"\x1b\[[0-9;]*m", "", text)
    seen = inspected(family, "three")
    legend = {name: int(n.replace(",", "")) for name, n in
              re.findall(r"^   +(zero|parent's|own|zero, hot|parent's, hot|own, hot) +([\d,]+) +[\d.]+ %", plain, re.MULTILINE)}
    assert plain.startswith(family.out("inspect", "three"))
    assert sum(legend.values()) == 1000
    assert legend["own, hot"] == seen["working_set"]["own"]
    assert legend["zero, hot"] + legend["zero"] == seen["pages"]["zero"]
    assert "\u2580" not in thawtest.on_terminal(family.argv("inspect", "--json", "three"), 100, 50)


# ---- verify ----


def defects(store, *args):
    """The lines of an image in which something is wrong."""
    done = store.run("verify", *args)
    lines = done.stderr.splitlines()
    assert done.returncode == 1 and lines and all(line.startswith("thaw image verify: ") for line in lines), done.stderr
    n = len(lines)
    assert done.stdout.endswith(f": {n} defect{'' if n == 1 else 's'}\n"), done.stdout
    return [line.removeprefix("thaw image verify: ") for line in lines]


def flip(path, offset, mask=0x10):
    with open(path, "r+b") as file:
        file.seek(offset)
        byte = file.read(1)[0]
        file.seek(offset)
        file.write(bytes([byte ^ mask]))


def test_images_that_are_whole_have_no_defects_whatever_the_threads(family):
    alone = family.out("verify", "three")
    assert alone.startswith("1 image, 3 packs of ") and alone.endswith(": no defects\n")
    all_of_them = family.out("verify", "--all")
    assert all_of_them == family.out("verify", "two", "three", "one", "--threads", "1")
    assert all_of_them.startswith("3 images, 3 packs of ")
    assert all_of_them == family.out("verify", "--all", "--threads", "7")


@pytest.mark.parametrize("threads", [1, 4])
def test_every_defect_is_found_with_its_file_and_offset(lab, store, threads):
    rng = new_rng()
    writer = ImageWriter(store.path, 300)
    packs = []
    for number in range(3):
        kinds_of_frames = [STORED, LZ4, ZSTD] * 10
        frames = writer.add_pack([(codec, page_bytes(rng) * 3) for codec in kinds_of_frames], gap=16)
        for frame in frames:
            writer.add_run(frame * 3, 3, frame)
        packs.append((store.path / "packs" / writer.packs[number][0].hex(), [writer.frames[frame] for frame in frames]))
    writer.put("image")
    store.out("verify", "image", "--threads", threads)
    expected = set()
    for path, frames in packs[:2]:
        for frame in rng.sample(frames, 4):
            at = frame.off + rng.randrange(frame.stored_bytes)
            flip(path, at, 0xff)
            expected.add((str(path), frame.off))
        expected.add((str(path), 0))
    path, frames = packs[2]
    flip(path, frames[3].off + frames[3].stored_bytes + 5)  # in a gap: only the whole pack's SHA-256 knows
    expected.add((str(path), 0))
    found = [re.fullmatch(r"pack (\S+) is damaged: .* \(offset (\d+)\)", line) for line in
             defects(store, "image", "--threads", threads)]
    assert all(found) and len(found) == len(expected)
    places = [(match.group(1), int(match.group(2))) for match in found]
    assert set(places) == expected and places == sorted(places)


def test_a_pack_that_is_cut_longer_or_gone_is_one_defect_and_the_others_are_looked_at(family):
    names = [pack["sha256"] for pack in inspected(family, "three")["packs"]]
    cut, longer, gone = (family.path / "packs" / name for name in names)
    length = cut.stat().st_size
    os.truncate(cut, length - 100)
    with open(longer, "ab") as file:
        file.write(b"x")
    gone.unlink()
    lines = defects(family, "three")
    assert sorted(lines) == sorted([
        f"pack {cut} is damaged: it has {length - 100} bytes, expected {length}",
        f"pack {longer} is damaged: it has {longer.stat().st_size} bytes, expected {longer.stat().st_size - 1}",
        f"cannot open pack {gone}: No such file or directory",
    ])
    gone.mkdir()
    assert f"pack {gone} is not a regular file" in defects(family, "three")


def test_of_a_pack_that_is_cut_the_frames_that_are_there_are_looked_at(store):
    writer = ImageWriter(store.path, 100)
    frames = writer.add_pack([(STORED, bytes([i]) * PAGE) for i in range(10)])
    writer.put("image")
    path = store.path / "packs" / writer.packs[0][0].hex()
    os.truncate(path, writer.frames[frames[7]].off + 5)
    flip(path, writer.frames[frames[2]].off)
    lines = defects(store, "image")
    assert len(lines) == 2
    assert f"expected {writer.packs[0][1]}" in lines[0]
    assert lines[1] == (f"pack {path} is damaged: a frame of 4096 bytes has the wrong checksum "
                        f"(offset {writer.frames[frames[2]].off})")


def test_what_images_share_is_looked_at_and_told_once(family):
    one = inspected(family, "one")
    path = family.path / "packs" / one["packs"][0]["sha256"]
    frame = Image(family.path, "one").manifest.frames[0]
    flip(path, frame[2])
    lines = defects(family, "--all")
    assert [int(re.search(r"\(offset (\d+)\)$", line).group(1)) for line in lines] == [0, frame[2]]
    assert all(str(path) in line for line in lines)


def test_a_manifest_that_is_broken_is_a_defect_and_the_other_images_are_looked_at(family):
    ids = family.names()
    path = family.path / "manifests" / ids["two"]
    flip(path, 200)
    lines = defects(family, "two", "three", "none")
    assert [line.split(":")[0] for line in lines] == ["two", f"no image none in the store {family.path}"]
    assert str(path) in lines[0] and "its sha256 is wrong (offset " in lines[0]
    assert family.run("verify", "two", "three").stdout.startswith("1 image, 3 packs")
    (line,) = defects(family, "three")
    assert str(path) in line and line.endswith(f"(a parent of image {ids['three'][:12]})")
    assert len(defects(family, "--all")) == 1
    (family.path / "names" / "two").write_text("no id\n", encoding="ascii")
    assert "names/two is damaged" in family.fails("verify", "--all")


def test_a_parent_that_is_gone_is_a_defect_and_told_once(family):
    ids = family.names()
    path = family.path / "manifests" / ids["one"]
    path.unlink()
    expected = rf"cannot open {path}: No such file or directory \(a parent of image ({ids['two'][:12]}|{ids['three'][:12]})\)"
    for names in (["two"], ["three", "two"]):
        (line,) = defects(family, *names)
        assert re.fullmatch(expected, line), line
    (family.path / "names" / "one").unlink()
    (line,) = defects(family, "--all")
    assert re.fullmatch(expected, line), line
    assert len(family.unpack("three", family.path.parent / "out").read_bytes()) == 1000 * PAGE


def test_a_frame_that_is_in_too_many_places_to_be_served_is_told(store):
    page = page_bytes(new_rng())
    writer = ImageWriter(store.path, 2000)
    frames = writer.add_pack([(STORED, page), (STORED, page)])
    for i in range(512 + 513):
        writer.add_run(i, 1, frames[i >= 512])
    writer.put("many")
    assert defects(store, "many") == [f"image {store.names()['many'][:12]} cannot be served: frame 1 is in 513 pages of its memory, "
                                      "expected at most 512"]
    served = subprocess.run([thawtest.program("THAW"), "serve", "--socket", str(store.path.parent / "socket"), "--image", "many",
                             "--store", str(store.path), "--state", "none"], check=False, capture_output=True, text=True,
                            stdin=subprocess.DEVNULL, timeout=LIMIT)
    assert served.returncode == 1 and "frame 1 in more than 512 pages" in served.stderr


@pytest.mark.parametrize("args", [[], ["--all", "a"], ["--no"], ["--threads", "0", "a"], ["--threads", "x", "a"]],
                         ids=" ".join)
def test_verify_refuses_what_it_does_not_know(store, args):
    ImageWriter(store.path, 1).put("a")
    store.fails("verify", *args, code=2)


def test_on_a_terminal_a_bar_says_how_far_it_is(family):
    text = thawtest.on_terminal(family.argv("verify", "--all"), 100, 50)
    assert re.search(r"\r\[\.{30}\]   0 % verifying", text)
    assert text.endswith(": no defects\n")


def catches(process, number):
    """Does a process have a handler for this signal?"""
    mask = re.search(r"^SigCgt:\s+([0-9a-f]+)$", pathlib.Path(f"/proc/{process.pid}/status").read_text(), re.MULTILINE).group(1)
    return int(mask, 16) >> number - 1 & 1


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_verify_that_is_stopped_says_so(lab, store, number):
    writer = ImageWriter(store.path, 1)
    # A few bytes that are 2 MiB, again and again: much to do, and little to be written here.
    writer.add_pack([(STORED, bytes([7]) * PAGE)] + [(ZSTD, bytes(512 * PAGE))] * 2)
    small = writer.frames[1]
    writer.frames += [dataclasses.replace(small, off=writer.frames[2].off + (i + 1) * small.stored_bytes)
                      for i in range(60000)]
    path = store.path / "packs" / writer.packs[0][0].hex()
    stored = path.read_bytes()[-small.stored_bytes:]
    data = path.read_bytes() + stored * 60000
    path.unlink()
    writer.packs[0] = (hashlib.sha256(data).digest(), len(data))
    path = store.path / "packs" / writer.packs[0][0].hex()
    path.write_bytes(data)
    writer.put("image")
    verify = lab.start("verify", store.argv("verify", "image", "--threads", 1))
    thawtest.wait_until(lambda: catches(verify, number), "a handler for the signal")
    verify.signal(number)
    verify.expect_exit(1)
    assert (verify.out, verify.err) == ("", "thaw image verify: stopped by a signal\n")
