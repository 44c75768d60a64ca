# SPDX-License-Identifier: Apache-2.0
"""Fixtures of the process tests; what they are made of is in tests/lib/thawtest.py."""

import pathlib
import shutil
import signal
import sys

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "lib"))

import sandboxlib  # noqa: E402  (found through the path above)
import thawtest  # noqa: E402

TEST_SECONDS = 100  # for one test, all included


@pytest.fixture(scope="session")
def memory_cache():
    """Memory files that several tests use; removed at the end."""
    cache = {}
    yield cache
    for memory in cache.values():
        shutil.rmtree(memory.path.parent, ignore_errors=True)


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    """Remember on the test itself whether it failed, for the fixture below."""
    outcome = yield
    if call.when == "call":
        item.failed = outcome.get_result().failed


@pytest.fixture
def lab(request, memory_cache):
    """A directory and processes for one test; all is ended, reaped and removed afterwards."""
    one = thawtest.Lab(memory_cache)

    def too_long(_number, _frame):
        raise TimeoutError(f"the test took more than {TEST_SECONDS} s")

    before = signal.signal(signal.SIGALRM, too_long)
    signal.alarm(TEST_SECONDS)
    try:
        yield one
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
        if getattr(request.node, "failed", False):
            print(one.describe())
        one.close()


@pytest.fixture
def only_thaw():
    """Of tests that are about thaw itself: no other pager can be asked."""
    if thawtest.reference():
        pytest.skip("about thaw, not about the reference pager")


@pytest.fixture(scope="module")
def huge():
    """The host has 2 MiB pages enough for the tests of one file."""
    with thawtest.hugepages(80):
        yield


@pytest.fixture(scope="module")
def template():
    """Of the tests of sandboxes: sandboxlib.small_template(), in memory."""
    with sandboxlib.small_template_in_memory() as one:
        yield one


@pytest.fixture
def node(lab, template):  # pylint: disable=unused-argument
    """A store of one's own with the template; all that was started in it is killed."""
    with sandboxlib.node_of(template) as one:
        yield one
