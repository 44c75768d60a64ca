# SPDX-License-Identifier: Apache-2.0
"""What the tests of records and of prefetching share: a memory of few pages, and the text of a working set."""

import json
import re
import subprocess

import thawtest
from thawtest import wait_until

PAGES = 64
PAGE = 4096


def image(page):
    """The first word of a page of make_memory()'s file, if that is not in a hole."""
    return int.from_bytes(bytes([page % 255 + 1]) * 8, "little")


def make_memory(path, pages=PAGES, holes=()):
    """A memory file; its n-th page is full of bytes n % 255 + 1. holes: ranges of pages that are none. Return: the path."""
    with open(path, "wb") as file:
        file.truncate(pages * PAGE)
        for page in range(pages):
            if not any(page in hole for hole in holes):
                file.seek(page * PAGE)
                file.write(bytes([page % 255 + 1]) * PAGE)
    return path


def start(lab, memory, *args, pages=PAGES):
    """A pager and a VMM that it serves."""
    pager = lab.serve(memory, *args)
    peer = thawtest.Peer(lab, pages)
    peer.connect(pager)
    assert peer.send(json.dumps([peer.region()]).encode(), "uffd") == 0
    pager.wait_line("serving")
    return pager, peer


def finish(pager, peer):
    """End the VMM and then the pager. Return: the statistics."""
    peer.quit()
    pager.expect_exit(0)
    stats = pager.stats()
    thawtest.check_stats(stats)
    return stats


def thaw(*args, code=0):
    """Run a verb to its end. Return: what it printed."""
    done = subprocess.run([thawtest.program("THAW"), *map(str, args)], check=False, capture_output=True, text=True,
                          stdin=subprocess.DEVNULL, timeout=thawtest.DEADLINE)
    assert done.returncode == code, done.stderr
    return done.stdout if code == 0 else done.stderr


def shown(path):
    """The entries of a working set: (unit number, "read" or "write"), in order."""
    entries = re.findall(r"^0x([0-9a-f]+)\s+\S+\s+(read|write)$", thaw("workingset", "show", path), re.MULTILINE)
    return [(int(offset, 16) // PAGE, access) for offset, access in entries]


def facts(path):
    """What `thaw workingset stat --json` says of it."""
    return json.loads(thaw("workingset", "stat", "--json", path))


def record(lab, memory, pages, *, n_pages=PAGES):
    """Record a guest that reads these pages in this order. Return: the file's path."""
    path = lab.dir / f"set{len(lab.processes)}"
    pager, peer = start(lab, memory, "--record", path, pages=n_pages)
    for page in pages:
        peer.word(page)
    finish(pager, peer)
    assert shown(path) == [(page, "read") for page in pages]
    return path


def ask(pager):
    """The statistics of this moment. A pager that dies takes the question with it: it is asked again."""
    for _ in range(20):
        try:
            return pager.ask_stats(1)
        except TimeoutError:
            pass
    raise AssertionError(f"{pager.name} does not answer")


def wait_over(pager):
    """Wait until nothing is to be installed ahead any more. Return: the statistics."""
    def over():
        stats = ask(pager)
        return stats if stats["ahead"]["over"] else None
    return wait_until(over, "the plan to be over")
