# SPDX-License-Identifier: Apache-2.0
"""
workingset.py - working sets' files, written and read by another program than Thaw

    make_workingset(path, image_bytes, [7, (99, 3, True), 0])       units in the order of the first touches
    read_workingset(path).entries

The format is that of thaw-workingset(5); the checksum is that of the Python module xxhash. What a test wants to be wrong is
said by name: make_workingset(path, ..., version=2). The checksum is made to fit unless it is given.
"""

import dataclasses
import pathlib
import struct

import xxhash

MAGIC = b"\x01ThWsBlk"
HEADER = struct.Struct("<8sIIIIQQQQQ")
FIELDS = ("magic", "version", "header_bytes", "unit_shift", "flags", "image_bytes", "n_entries", "window_ns", "checksum",
          "reserved")
COMPLETE = 1


@dataclasses.dataclass
class WorkingSet:
    """What is in a file. Entries are (unit, time class, write)."""

    image_bytes: int
    entries: list
    unit_shift: int = 12
    window_ns: int = 0
    complete: bool = True


def _entry(entry):
    """The word of an entry, which is a unit, or (unit, time class, write)."""
    unit, time_class, write = (entry, 0, False) if isinstance(entry, int) else entry
    return unit | time_class << 48 | int(write) << 56


def format_workingset(image_bytes, entries, unit_shift=12, *, window_ns=5_000_000_000, complete=True, tail=b"", **wrong):
    """The bytes of a file. `tail` comes behind the last entry; further names are fields of the header."""
    header = {"magic": MAGIC, "version": 1, "header_bytes": HEADER.size, "unit_shift": unit_shift,
              "flags": COMPLETE if complete else 0, "image_bytes": image_bytes, "n_entries": len(entries),
              "window_ns": window_ns, "checksum": 0, "reserved": 0}
    assert set(wrong) <= set(header), wrong
    header.update(wrong)
    body = b"".join(struct.pack("<Q", _entry(entry)) for entry in entries) + tail
    if "checksum" not in wrong:
        header["checksum"] = xxhash.xxh3_64_intdigest(HEADER.pack(*(header[name] for name in FIELDS)) + body)
    return HEADER.pack(*(header[name] for name in FIELDS)) + body


def make_workingset(path, image_bytes, entries, unit_shift=12, **more):
    """Write a file; see format_workingset(). Return: the path."""
    pathlib.Path(path).write_bytes(format_workingset(image_bytes, entries, unit_shift, **more))
    return path


def read_workingset(path):
    """Read a file, of which everything is checked. Return: the WorkingSet."""
    data = pathlib.Path(path).read_bytes()
    header = dict(zip(FIELDS, HEADER.unpack_from(data), strict=True))
    assert header["magic"] == MAGIC and header["version"] == 1 and header["header_bytes"] == HEADER.size
    assert header["unit_shift"] in (12, 21) and header["reserved"] == 0 and header["flags"] in (0, COMPLETE)
    assert 0 < header["image_bytes"] < 1 << 63 and header["image_bytes"] % (1 << header["unit_shift"]) == 0
    assert len(data) == HEADER.size + 8 * header["n_entries"]
    blank = HEADER.pack(*(0 if name == "checksum" else header[name] for name in FIELDS))
    assert header["checksum"] == xxhash.xxh3_64_intdigest(blank + data[HEADER.size:])
    entries = []
    for (word,) in struct.iter_unpack("<Q", data[HEADER.size:]):
        assert word >> 57 == 0, hex(word)
        entries.append((word & (1 << 48) - 1, word >> 48 & 0xff, bool(word >> 56 & 1)))
    assert len({unit for unit, _, _ in entries}) == len(entries)
    assert all(unit < header["image_bytes"] >> header["unit_shift"] and time_class < 64 for unit, time_class, _ in entries)
    return WorkingSet(header["image_bytes"], entries, header["unit_shift"], header["window_ns"],
                      header["flags"] == COMPLETE)
