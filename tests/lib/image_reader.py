#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""
image_reader.py - images, read by another program than Thaw

    image_reader.py STORE NAME FILE      unpack an image into a raw memory file

Written from the manual page thaw-image(5) alone, to show that it says enough: it knows nothing of Thaw's source. All that
the page fixes is checked; what is wrong is a ValueError that names file and offset.
"""

import hashlib
import pathlib
import re
import struct
import sys

import lz4.block
import xxhash
import zstandard

PAGE = 4096
HEADER = struct.Struct("<8sIIQQIIIIQQ64s")
PACK = struct.Struct("<32sQ")
FRAME = struct.Struct("<IIQHB5sQ")
RUN = struct.Struct("<QIIII")
HOT = struct.Struct("<QQ")
PACK_HEADER = struct.Struct("<8sII48s")
STORED, LZ4, ZSTD = 0, 1, 2


def need(truth, path, offset, what):
    """What the manual page promises of a file."""
    if not truth:
        raise ValueError(f"{path}: {what} (offset {offset})")


class Manifest:
    """A manifest, of which everything is checked."""

    def __init__(self, path):
        self.path, data = path, pathlib.Path(path).read_bytes()
        need(len(data) >= HEADER.size, path, 0, "no header")
        (magic, version, header_bytes, self.image_bytes, self.created_s, n_parents, n_packs, n_frames, self.has_own_pack,
         n_runs, n_hot, reserved) = HEADER.unpack_from(data)
        need(magic == b"ThwIMan\1" and version == 1 and header_bytes == 128, path, 0, "no manifest of version 1")
        need(0 < self.image_bytes <= 1 << 46 and self.image_bytes % PAGE == 0, path, 16, "size of the image")
        need(self.created_s < 1 << 63, path, 24, "time")
        self.n_pages = self.image_bytes // PAGE
        need(n_parents <= 65536 and n_packs <= 65536 and self.has_own_pack <= min(1, n_packs), path, 32, "counts")
        need(n_runs <= self.n_pages and n_hot <= self.n_pages and reserved == bytes(64), path, 48, "counts")
        at = HEADER.size
        for name, entry, n in (("parents", struct.Struct("<32s"), n_parents), ("packs", PACK, n_packs),
                               ("frames", FRAME, n_frames), ("runs", RUN, n_runs), ("hot", HOT, n_hot)):
            need(at + n * entry.size + 32 <= len(data), path, at, f"no room for {name}")
            setattr(self, name, list(entry.iter_unpack(data[at:at + n * entry.size])))
            setattr(self, "at_" + name, at)
            at += n * entry.size
        need(at + 32 == len(data), path, at, "length")
        self.id = hashlib.sha256(data[:at]).digest()
        need(self.id == data[at:], path, at, "sha256")
        self.check()

    def check(self):
        """The tables."""
        path = self.path
        need(len(set(self.parents)) == len(self.parents), path, self.at_parents, "a parent twice")
        need(len({sha256 for sha256, _ in self.packs}) == len(self.packs), path, self.at_packs, "a pack twice")
        for i, (_, length) in enumerate(self.packs):
            need(64 <= length < 1 << 63, path, self.at_packs + i * PACK.size, "length of a pack")
        before = (0, 64)
        for i, (pack, stored, off, n_pages, codec, reserved, _) in enumerate(self.frames):
            at = self.at_frames + i * FRAME.size
            need(pack < len(self.packs) and 64 <= off <= self.packs[pack][1] - stored, path, at, "place of a frame")
            need(before <= (pack, off), path, at, "order of frames")
            need(1 <= n_pages <= 512 and codec <= ZSTD and reserved == bytes(5), path, at, "frame")
            need(1 <= stored <= n_pages * PAGE and (codec != STORED or stored == n_pages * PAGE), path, at, "stored length")
            before = (pack, off + stored)
        end = 0
        for i, (first, n, frame, index, reserved) in enumerate(self.runs):
            at = self.at_runs + i * RUN.size
            need(n > 0 and end <= first and first + n <= self.n_pages and reserved == 0, path, at, "run")
            need(frame < len(self.frames) and index + n <= self.frames[frame][3], path, at, "frame of a run")
            end = first + n
        end = 0
        for first, n in sorted(self.hot):
            need(n > 0 and end <= first and first + n <= self.n_pages, path, self.at_hot, "working set")
            end = first + n


class Image:
    """An image of a store, to be read page by page."""

    def __init__(self, store, name):
        store = pathlib.Path(store)
        text = (store / "names" / name).read_text(encoding="ascii")
        need(re.fullmatch("[0-9a-f]{64}\n", text), store / "names" / name, 0, "no id and line end")
        self.manifest = Manifest(store / "manifests" / text.strip())
        need(self.manifest.id.hex() == text.strip(), self.manifest.path, 0, "another image's manifest")
        self.packs = [store / "packs" / sha256.hex() for sha256, _ in self.manifest.packs]
        for path, (_, length) in zip(self.packs, self.manifest.packs, strict=True):
            with open(path, "rb") as file:
                head = file.read(64)
                need(file.seek(0, 2) == length, path, length, "length")
            need(PACK_HEADER.unpack(head) == (b"ThwIPac\1", 1, 64, bytes(48)), path, 0, "header")

    def verify(self):
        """The SHA-256 of all packs."""
        for path, (sha256, _) in zip(self.packs, self.manifest.packs, strict=True):
            with open(path, "rb") as file:
                need(hashlib.file_digest(file, "sha256").digest() == sha256, path, 0, "sha256")

    def frame(self, number):
        """The bytes that come out of a frame."""
        pack, stored, off, n_pages, codec, _, checksum = self.manifest.frames[number]
        path, length = self.packs[pack], n_pages * PAGE
        with open(path, "rb") as file:
            file.seek(off)
            data = file.read(stored)
        need(len(data) == stored, path, off, "frame cut off")
        if codec == LZ4:
            data = lz4.block.decompress(data, uncompressed_size=length)
        elif codec == ZSTD:
            decoder = zstandard.ZstdDecompressor().decompressobj()
            data, rest = decoder.decompress(data), decoder.unused_data
            need(not rest, path, off, "more than one frame of zstd")
        need(len(data) == length and xxhash.xxh3_64_intdigest(data) == checksum, path, off, "frame")
        return data

    def unpack(self, target):
        """Write the guest's memory into a file, with holes where it is zero."""
        last, data = None, b""
        with open(target, "wb") as out:
            out.truncate(self.manifest.image_bytes)
            for first, n, frame, index, _ in self.manifest.runs:
                if frame != last:
                    last, data = frame, self.frame(frame)
                out.seek(first * PAGE)
                out.write(data[index * PAGE:(index + n) * PAGE])


if __name__ == "__main__":
    Image(sys.argv[1], sys.argv[2]).unpack(sys.argv[3])
