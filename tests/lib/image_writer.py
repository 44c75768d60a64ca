# SPDX-License-Identifier: Apache-2.0
"""
image_writer.py - images as thaw-image(5) allows them and `thaw image pack` never makes them

    writer = ImageWriter(lab.dir / "store", n_pages=100)
    pack = writer.add_pack([(ZSTD, pages), (LZ4, pages)], gap=7)      frames, with bytes between them that are nobody's
    writer.add_run(first=3, n=2, frame=pack.frames[0], index=1)
    writer.put("name")

What a test wants to be wrong is said by name: writer.put("name", version=2). All checksums fit unless they are given.
"""

import dataclasses
import hashlib
import pathlib
import struct

import lz4.block
import xxhash
import zstandard

PAGE = 4096
STORED, LZ4, ZSTD = 0, 1, 2
ENCODERS = {
    STORED: lambda data: data,
    LZ4: lambda data: lz4.block.compress(data, mode="high_compression", store_size=False),
    # With all that a frame of zstd may say of itself.
    ZSTD: lambda data: zstandard.ZstdCompressor(level=7, write_checksum=True, write_content_size=True).compress(data),
}


@dataclasses.dataclass
class Frame:
    """A frame, as the manifest has it."""

    pack: int
    stored_bytes: int
    off: int
    n_pages: int
    codec: int
    checksum: int

    def entry(self):
        """Its bytes in the manifest."""
        return struct.pack("<IIQHB5xQ", self.pack, self.stored_bytes, self.off, self.n_pages, self.codec, self.checksum)


def make_store(path):
    """The folders of a store, if they are not there."""
    path = pathlib.Path(path)
    for name in ("names", "manifests", "packs", "tmp"):
        (path / name).mkdir(parents=True, exist_ok=True)
    (path / "lock").touch()
    return path


class ImageWriter:
    """An image on its way into a store."""

    def __init__(self, store, n_pages, created_s=0):
        self.store = make_store(store)
        self.n_pages = n_pages
        self.created_s = created_s
        self.parents, self.packs, self.frames, self.runs, self.hot = [], [], [], [], []

    def add_pack(self, frames, gap=0, **wrong):
        """A pack with frames of (codec, pages), each followed by `gap` bytes of noise. Return: the numbers of its frames."""
        header = {"magic": b"ThwIPac\1", "version": 1, "header_bytes": 64, "reserved": bytes(48)}
        assert set(wrong) <= set(header), wrong
        header.update(wrong)
        data = struct.pack("<8sII48s", *header.values())
        numbers = []
        for codec, pages in frames:
            stored = ENCODERS[codec](pages)
            if len(stored) > len(pages):  # noise
                codec, stored = STORED, pages
            numbers.append(len(self.frames))
            self.frames.append(Frame(len(self.packs), len(stored), len(data), len(pages) // PAGE, codec,
                                     xxhash.xxh3_64_intdigest(pages)))
            data += stored + b"\xa5" * gap
        sha256 = hashlib.sha256(data).digest()
        (self.store / "packs" / sha256.hex()).write_bytes(data)
        self.packs.append((sha256, len(data)))
        return numbers

    def add_run(self, first, n, frame, index=0):
        """Pages of a frame at `first` of the guest's memory. Runs are sorted by put()."""
        self.runs.append((first, n, frame, index))

    def manifest(self, has_own_pack=None, version=1):
        """The bytes of the manifest."""
        own = bool(self.packs) if has_own_pack is None else has_own_pack
        data = struct.pack("<8sIIQQIIIIQQ64x", b"ThwIMan\1", version, 128, self.n_pages * PAGE, self.created_s,
                           len(self.parents), len(self.packs), len(self.frames), own, len(self.runs), len(self.hot))
        data += b"".join(self.parents)
        data += b"".join(struct.pack("<32sQ", *pack) for pack in self.packs)
        data += b"".join(frame.entry() for frame in self.frames)
        data += b"".join(struct.pack("<QIII4x", *run) for run in sorted(self.runs))
        data += b"".join(struct.pack("<QQ", *hot) for hot in self.hot)
        return data + hashlib.sha256(data).digest()

    def put(self, name, **more):
        """Manifest and name. Return: the id."""
        data = self.manifest(**more)
        image = data[-32:].hex()
        (self.store / "manifests" / image).write_bytes(data)
        (self.store / "names" / name).write_text(image + "\n", encoding="ascii")
        return image
