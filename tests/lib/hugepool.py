# SPDX-License-Identifier: Apache-2.0
"""
hugepool.py - the host's pool of 2 MiB pages, which tests share

    with hugepages(40):           40 more for a while
    with no_hugepages():          nobody else has any meanwhile
        with more_hugepages(3):   so it must be exactly these

Tests that run side by side, of one build or of several, agree by locks on two files of sysfs.
"""

import contextlib
import fcntl
import os
import pathlib
import time

import pytest

HUGE = pathlib.Path("/sys/kernel/mm/hugepages/hugepages-2048kB")
LOCK_SECONDS = 90  # all tests of one file may have huge pages for their whole time


def _change_hugepages(delta):
    """Add to the pool of 2 MiB pages. Return: by how much it changed."""
    pool = HUGE / "nr_hugepages"
    with open(pool, encoding="ascii") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # other tests do the same at the same time
        before = int(pool.read_text())
        pool.write_text(str(max(0, before + delta)))
        return int(pool.read_text()) - before


@contextlib.contextmanager
def _pool_lock(how, what):
    """Whether others may use the pool of 2 MiB pages at the same time (LOCK_SH), or may not (LOCK_EX)."""
    end = time.monotonic() + LOCK_SECONDS
    with open(HUGE / "free_hugepages", encoding="ascii") as lock:
        while True:
            with contextlib.suppress(BlockingIOError):
                fcntl.flock(lock, how | fcntl.LOCK_NB)
                break
            if time.monotonic() > end:
                raise TimeoutError(f"{LOCK_SECONDS} s were not enough for {what}")
            time.sleep(0.02)
        yield


@contextlib.contextmanager
def no_hugepages():
    """No other test has 2 MiB pages for a while, and none takes them that more_hugepages() makes."""
    if not HUGE.exists():
        yield
        return
    with _pool_lock(fcntl.LOCK_EX, "the end of tests with huge pages"):
        yield


@contextlib.contextmanager
def hugepages(count):
    """Have `count` more 2 MiB pages for a while; skips, in one line, where they cannot be had."""
    if not HUGE.exists():
        pytest.skip("cannot reserve huge pages: there is no " + str(HUGE))
    with _pool_lock(fcntl.LOCK_SH, "the end of a test that wants no huge pages"), more_hugepages(count):
        yield


@contextlib.contextmanager
def more_hugepages(count):
    """The same within no_hugepages()."""
    if not os.access(HUGE / "nr_hugepages", os.W_OK):
        pytest.skip("cannot reserve huge pages: " + str(HUGE / "nr_hugepages") + " is not writable")
    got = _change_hugepages(count)
    try:
        if got < count:
            pytest.skip(f"cannot reserve {count} huge pages: the kernel gave {got}")
        yield
    finally:
        _change_hugepages(-got)
