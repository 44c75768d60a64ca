# SPDX-License-Identifier: Apache-2.0
"""
A paused sandbox has a working set: what its guest touches when it goes on is installed ahead the next time.

On the stand-in for Firecracker; what a real guest gains by it is in tests/guest/test_guest_sandbox.py.
"""

import json
import os
import signal

import image_reader
import sandboxlib
import thawtest
from sandboxlib import everything_is_right

PATTERN = [page for page in range(1024, 2048) if page % 8 != 5]  # what `check` reads of the template's memory


def working_set(node, image):
    """Its pages, in the order of the first touches."""
    manifest = image_reader.Image(node.store, image).manifest
    return [page for first, n in manifest.hot for page in range(first, first + n)]


def with_bytes(node, image):
    """Pages that are not zero."""
    return {page for first, n, *_ in image_reader.Image(node.store, image).manifest.runs for page in range(first, first + n)}


def all_installed(node, name):
    """Until nothing more is installed ahead. Return: how many pages were."""
    log = node.path(name, "vm", "pager.log")
    thawtest.wait_until(lambda: "installed ahead" in log.read_text(), "the working set to be there")
    return sandboxlib.counters(node, name)["pages_ahead"]


def test_what_a_guest_touched_after_its_resume_is_there_before_it_asks_the_next_time(node):
    node.ok("run", "small", "--name", "a", "--wait")
    node.exec("a", "check")
    node.ok("pause", "a")
    assert not set(PATTERN) & set(working_set(node, "small"))  # nobody had touched them when the template was built
    assert not list(node.path("a").rglob("missed"))  # the record goes with the folder of the VM
    hot = working_set(node, "sandbox.a.1")
    assert set(PATTERN) <= set(hot) <= with_bytes(node, "sandbox.a.1")
    shown = json.loads(node.ok("image", "inspect", "--json", "sandbox.a.1"))["working_set"]
    assert shown["all"] == len(hot) and shown["zero"] == 0 and shown["parents"] >= len(PATTERN)
    node.ok("image", "verify", "sandbox.a.1")
    node.ok("fork", "a", "--name", "f", "--paused")
    for name in ("a", "f"):
        node.ok("resume", name, "--wait")
        assert all_installed(node, name) >= len(PATTERN)
        before = sandboxlib.counters(node, name)["faults"]
        node.exec(name, "check")
        assert sandboxlib.counters(node, name)["faults"] - before <= len(PATTERN) // 50
        everything_is_right(node, name)


def test_pages_that_were_removed_are_zero_and_leave_the_set(node):
    node.ok("run", "small", "--name", "a", "--wait")
    first = int(node.exec("a", "fill 300"))
    pages = set(range(first, first + 300))
    node.ok("pause", "a")
    node.ok("resume", "a", "--wait")
    node.exec("a", "check")
    node.ok("pause", "a")
    assert pages <= set(working_set(node, "sandbox.a.2"))
    node.ok("resume", "a")
    # While they are being installed ahead: what was given back stays zero, whichever came first.
    assert node.exec("a", f"free 300; touch-page {first}; touch-page {first + 299}") == "300\n" + 2 * f"{0:016x}\n"
    everything_is_right(node, "a")
    node.ok("pause", "a")
    assert not pages & set(working_set(node, "sandbox.a.3")) and set(PATTERN) & set(working_set(node, "sandbox.a.3"))
    for generation in (4, 5):
        node.ok("resume", "a", "--wait")
        everything_is_right(node, "a")
        node.exec("a", "fill 100; free 50")
        node.ok("pause", "a")
        hot = working_set(node, f"sandbox.a.{generation}")
        assert set(hot) <= with_bytes(node, f"sandbox.a.{generation}")
    node.ok("resume", "a", "--wait")
    everything_is_right(node, "a")


def test_without_a_record_a_layer_has_the_set_of_its_parent(node):
    node.ok("run", "small", "--name", "a", "--wait")
    node.exec("a", "check")
    os.kill(node.serving_pid("a"), signal.SIGKILL)
    node.exec("a", "check all")  # by a successor, which does not go on with the record
    node.ok("pause", "a")
    there = with_bytes(node, "sandbox.a.1")
    assert working_set(node, "sandbox.a.1") == [page for page in working_set(node, "small") if page in there]
    node.ok("resume", "a", "--wait")
    everything_is_right(node, "a")
