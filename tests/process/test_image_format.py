# SPDX-License-Identifier: Apache-2.0
"""
The format of images is what thaw-image(5) says: another program reads what Thaw writes (tests/lib/image_reader.py), and Thaw
reads what another program writes (tests/lib/image_writer.py).
"""

import hashlib
import json
import pathlib

import pytest

import thawtest
from image_reader import Image, Manifest
from image_writer import LZ4, PAGE, STORED, ZSTD, ImageWriter
from imagelib import Store, make_memory, new_rng, page_bytes, read_pages, same_bytes
from workingset import make_workingset

pytestmark = pytest.mark.usefixtures("only_thaw")


@pytest.fixture
def store(lab):
    """A store that is not there yet."""
    return Store(lab.dir / "store")


# ---- Thaw writes, another program reads ----


@pytest.mark.parametrize("codec", ["zstd", "lz4", "none"])
@pytest.mark.parametrize("frame", ["4K", "64K", "2M"])
def test_another_program_unpacks_what_thaw_has_packed(lab, store, codec, frame):
    rng = new_rng()
    before = None
    for depth in range(3):
        memory = make_memory(lab.dir / f"memory{depth}", rng, n_pages=1500, parent=before)
        touched = rng.sample(range(1500), 200)
        working_set = make_workingset(lab.dir / "set", 1500 * PAGE, touched)
        parent = ["--parent", f"image{depth - 1}"] if depth else []
        image_id = store.pack(memory, f"image{depth}", *parent, "--codec", codec, "--frame", frame, "--working-set",
                              working_set)
        image = Image(store.path, f"image{depth}")
        image.verify()
        image.unpack(lab.dir / "out")
        assert same_bytes(lab.dir / "out", memory)
        assert image.manifest.id.hex() == image_id
        assert [page for first, n in image.manifest.hot for page in range(first, first + n)] == touched
        assert len(image.manifest.parents) == depth
        check_pack(image, {"zstd": ZSTD, "lz4": LZ4, "none": STORED}[codec], thawtest.parse_size(frame))
        before = memory


def check_pack(image, codec, frame_bytes):
    """An own pack is full of frames of the wanted kind; what is hot is at its beginning, in the order of the touches."""
    manifest = image.manifest
    own = [(number, *frame) for number, frame in enumerate(manifest.frames) if frame[0] == 0]
    end = 64
    for _, _, stored, off, n_pages, kind, _, _ in own:
        assert off == end and n_pages * PAGE <= frame_bytes and kind in (codec, STORED)
        end += stored
    assert end == manifest.packs[0][1]
    where = {first + i: (frame, index + i) for first, n, frame, index, _ in manifest.runs for i in range(n)}
    hot = [where[page] for first, n in manifest.hot for page in range(first, first + n) if page in where]
    hot = [place for place in hot if manifest.frames[place[0]][0] == 0]
    assert hot and hot == sorted(hot)
    in_order = [(number, index) for number, _, _, _, n_pages, _, _, _ in own for index in range(n_pages)]
    assert hot == in_order[:len(hot)]


def test_every_byte_of_a_packed_image_that_turns_over_is_noticed_by_thaw_and_by_another_program(lab, store):
    rng = new_rng()
    memory = make_memory(lab.dir / "memory", rng, n_pages=40)
    store.pack(memory, "image", "--frame", "16K")
    files = [*(store.path / "packs").iterdir(), *(store.path / "manifests").iterdir()]
    for path in files:
        data = path.read_bytes()
        for at in {0, 7, 8, 12, 63, len(data) - 1, *(rng.randrange(len(data)) for _ in range(6))}:
            path.write_bytes(data[:at] + bytes([data[at] ^ 1 << rng.randrange(8)]) + data[at + 1:])
            done = store.run("verify", "image")
            assert done.returncode == 1 and str(path) in done.stderr, (path, at)
            with pytest.raises(ValueError, match=path.name):
                Image(store.path, "image").verify()
        path.write_bytes(data)
    assert store.run("verify", "image").returncode == 0
    Image(store.path, "image").verify()


# ---- another program writes, Thaw reads ----


def odd_image(store, rng, pages):
    """
    An image of such pages with all that a manifest may say: several packs, none of them its own, with gaps; frames of all
    codecs and sizes; pages that are in two runs, frames that only a part of is needed.
    """
    writer = ImageWriter(store, len(pages), created_s=1)
    packs = []
    at = 0
    while at < len(pages):
        n = min(rng.choice([1, 1, 2, 3, 17, 200, 512]), len(pages) - at)
        data = b"".join(pages[at:at + n])
        codec = rng.choice([STORED, LZ4, ZSTD])
        if not any(data):
            at += n
            continue
        packs.append((at, n, codec, data))
        at += n
    for i in range(0, len(packs), 5):
        part = packs[i:i + 5]
        numbers = writer.add_pack([(codec, data) for _, _, codec, data in part], gap=rng.choice([0, 1, 4095]))
        for number, (first, n, _, _) in zip(numbers, part, strict=True):
            cut = rng.randrange(n)  # a run may be cut anywhere
            for begin, end in ((0, cut), (cut, n)):
                if begin < end:
                    writer.add_run(first + begin, end - begin, number, begin)
    return writer


def test_thaw_reads_whatever_the_manual_page_allows(lab, store):
    rng = new_rng()
    for turn in range(5):
        pages = read_pages(make_memory(lab.dir / "memory", rng, n_pages=900))
        parents = [store.pack(lab.dir / "memory", f"parent{turn}-{codec}", "--codec", codec) for codec in ("lz4", "none")]
        writer = odd_image(store.path, rng, pages)
        for first in rng.sample(range(0, 900, 10), 20):
            writer.hot.append((first, rng.randrange(1, 10)))
        writer.parents = [bytes.fromhex(parent) for parent in parents]
        image_id = writer.put("odd", has_own_pack=False)
        Image(store.path, "odd").verify()
        assert store.holds("odd", lab.dir / "memory", lab.dir / "out")
        assert store.out("verify", "odd").endswith(": no defects\n")
        seen = json.loads(store.out("inspect", "--json", "odd"))
        assert seen["id"] == image_id and seen["pages"]["own"] == 0
        assert seen["working_set"]["all"] == sum(n for _, n in writer.hot)


def test_a_page_may_be_in_memory_many_times_and_in_the_pack_once(lab, store):
    page = page_bytes(new_rng())
    writer = ImageWriter(store.path, 1000)
    (frame,) = writer.add_pack([(STORED, page)])
    for first in range(0, 1000, 3):
        writer.add_run(first, 1, frame)
    writer.put("many")
    store.unpack("many", lab.dir / "out")
    assert read_pages(lab.dir / "out") == [bytes(PAGE) if i % 3 else page for i in range(1000)]
    Image(store.path, "many").unpack(lab.dir / "other")
    assert same_bytes(lab.dir / "out", lab.dir / "other")


def test_an_image_of_zeroes_has_no_packs(lab, store):
    ImageWriter(store.path, 5).put("zero")
    assert store.out("verify", "zero") == "1 image, 0 packs of 0 bytes, 0 frames: no defects\n"
    store.unpack("zero", lab.dir / "out")
    assert (lab.dir / "out").read_bytes() == bytes(5 * PAGE)
    Image(store.path, "zero").unpack(lab.dir / "other")
    assert same_bytes(lab.dir / "out", lab.dir / "other")


@pytest.mark.parametrize("wrong, text", [
    ({"version": 2}, "is of version 2, this thaw reads version 1"),
    ({"has_own_pack": 2}, "a pack of its own is 0 or 1"),
], ids=str)
def test_a_manifest_of_another_kind_is_refused_by_both(store, wrong, text):
    writer = ImageWriter(store.path, 5)
    writer.add_pack([(STORED, bytes(PAGE))])
    image_id = writer.put("x", **wrong)
    for verb in ("inspect", "verify"):
        done = store.run(verb, "x")
        assert done.returncode == 1 and text in done.stderr and image_id in done.stderr
    with pytest.raises(ValueError, match=image_id):
        Manifest(store.path / "manifests" / image_id)


@pytest.mark.parametrize("wrong, text", [
    ({"magic": b"ThwIPac\2"}, "does not begin as a pack (offset 0)"),
    ({"version": 2}, "is of version 2, this thaw reads version 1 (offset 8)"),
    ({"header_bytes": 128}, "no such length of a header (offset 12)"),
    ({"reserved": bytes(47) + b"\1"}, "what is reserved is not 0 (offset 16)"),
], ids=str)
def test_a_pack_of_another_kind_is_refused_by_both(lab, store, wrong, text):
    writer = ImageWriter(store.path, 5)
    (frame,) = writer.add_pack([(STORED, bytes(PAGE - 1) + b"x")], **wrong)
    writer.add_run(0, 1, frame)
    writer.put("x")
    pack = store.path / "packs" / writer.packs[0][0].hex()
    assert hashlib.sha256(pack.read_bytes()).hexdigest() == pack.name
    assert text in store.fails("unpack", "x", "-o", lab.dir / "out")
    done = store.run("verify", "x")
    assert done.returncode == 1 and text in done.stderr and str(pack) in done.stderr
    with pytest.raises(ValueError, match=pack.name):
        Image(store.path, "x")


def changed(data, rng):
    """A manifest with another value somewhere, and the id that it then has."""
    at = rng.choice([rng.randrange(16, 64), rng.randrange(16, len(data) - 32)])
    size = rng.choice([1, 2, 4, 8])
    at = min(at - at % size, len(data) - 32 - size)
    was = int.from_bytes(data[at:at + size], "little")
    value = rng.choice([0, 1, was + 1, was - 1, was ^ 1 << rng.randrange(8 * size), rng.randrange(1 << 8 * size), -1,
                        1 << 8 * size - 1])
    data = data[:at] + (value % (1 << 8 * size)).to_bytes(size, "little") + data[at + size:-32]
    return data + hashlib.sha256(data).digest()


def accepted(path):
    """Does another program take it for a manifest?"""
    try:
        Manifest(path)
    except ValueError:
        return False
    return True


def test_of_a_manifest_that_lies_thaw_and_another_program_think_the_same(lab, store):
    rng = new_rng()
    writer = odd_image(store.path, rng, read_pages(make_memory(lab.dir / "memory", rng, n_pages=200)))
    writer.hot = [(150, 10), (20, 3), (23, 1)]
    writer.parents = [rng.randbytes(32), rng.randbytes(32)]
    data = writer.manifest()
    good = 0
    for i in range(200):
        lie = changed(data, rng)
        path = store.path / "manifests" / lie[-32:].hex()
        path.write_bytes(lie)
        done = store.run("inspect", "--json", path.name)
        lines = done.stderr.splitlines()
        if accepted(path):
            assert (done.returncode, lines) == (0, []) and json.loads(done.stdout)["id"] == path.name
            good += 1
        else:
            assert done.returncode == 1 and done.stdout == "" and len(lines) == 1 and path.name in lines[0], lines
            assert "(offset " in lines[0] or "version" in lines[0], lines
        if i % 4 == 0:  # what is used of it does no harm
            assert store.run("verify", path.name).returncode in (0, 1)
            assert store.run("unpack", path.name, "-o", lab.dir / "out").returncode in (0, 1)
        path.unlink()
    assert good > 0


def test_the_reader_is_as_short_as_the_format_is_plain():
    path = pathlib.Path(thawtest.ROOT / "tests/lib/image_reader.py")
    text = path.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 150
    assert "subprocess" not in text and "ctypes" not in text
