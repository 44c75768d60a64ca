# SPDX-License-Identifier: Apache-2.0
"""What the guest tests share: the programs under test, the snapshots (one boot each a session), watchdogs."""

import contextlib
import hashlib
import os
import pathlib
import shutil
import signal
import sys
import tempfile
import types

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "tests/lib"), str(ROOT / "tools")]

import guest  # noqa: E402
import guest_image  # noqa: E402
import thawtest  # noqa: E402

TEST_SECONDS = 100

BIG_MIB = 64  # the file that the guest frees
BIG_MIB_OF_TWO = 160  # the same of the guest with two memory regions
LIST_LENGTH = 60000  # the numbers that the guest sorts


def numbers():
    """The list that the guest makes with awk: x = x * 16807 mod (2^31 - 1)."""
    x = 1
    for _ in range(LIST_LENGTH):
        x = x * 16807 % 2147483647
        yield x


def md5_of_lines(lines):
    return hashlib.md5("".join(f"{line}\n" for line in lines).encode()).hexdigest()


@pytest.fixture(autouse=True)
def watchdog():
    """No test runs for longer than its deadline, whatever it waits for."""

    def expired(_signal, _frame):
        raise guest.GuestError(f"watchdog: the test ran for more than {TEST_SECONDS} s")

    before = signal.signal(signal.SIGALRM, expired)
    signal.alarm(TEST_SECONDS)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


@pytest.fixture(scope="session")
def programs():
    """Paths of what Meson built, from the environment."""
    names = {"thaw": "THAW", "preload": "THAW_PRELOAD"}
    names |= {"naive_dir": "NAIVE_DIR", "madvise_log": "THAW_MADVISE_LOG"}
    missing = [variable for variable in names.values() if not os.environ.get(variable)]
    if missing:
        pytest.exit(f"not set: {' '.join(missing)} (run it with meson test --suite guest)", returncode=2)
    return types.SimpleNamespace(**{name: pathlib.Path(os.environ[v]) for name, v in names.items()})


@pytest.fixture(scope="session")
def image(programs):  # pylint: disable=unused-argument
    """Kernel and initramfs, or a skip that says what is missing."""
    if not shutil.which("qemu-system-x86_64"):
        pytest.skip("no qemu-system-x86_64: install qemu-system-x86")
    if os.geteuid() != 0 and not os.access("/dev/userfaultfd", os.R_OK | os.W_OK):
        pytest.skip("/dev/userfaultfd may not be opened: run as root or give this user access")
    try:
        return guest_image.guest_image()
    except guest_image.GuestImageError as e:
        pytest.skip(f"no guest image: {e}")


@pytest.fixture(scope="session")
def session_folder():
    """A short path: unix sockets live below it."""
    with tempfile.TemporaryDirectory(prefix="thaw-") as folder:
        yield pathlib.Path(folder)


@pytest.fixture(scope="session")
def snapshot(image, session_folder):
    """256 MiB and 2 vCPUs, stopped after files with known checksums were written; .sums has them."""
    folder = session_folder / "one"
    folder.mkdir()
    with guest.boot(image, folder, mem_mib=[256], smp=2) as vm:
        run = vm.console.run
        run("for i in 1 2 3; do dd if=/dev/urandom of=/tmp/file$i bs=1M count=4 2>/dev/null; done")
        run("dd if=/dev/urandom of=/tmp/seed bs=1M count=16 2>/dev/null")
        run(f"cat $(yes /tmp/seed | head -n {BIG_MIB // 16}) >/tmp/big && rm /tmp/seed")
        program = 'BEGIN { x = 1; for (i = 0; i < %d; i++) { x = x * 16807 %% 2147483647; printf "%%d\\n", x } }'
        run(f"awk '{program % LIST_LENGTH}' >/tmp/list")
        assert run("md5sum </tmp/list").split()[0] == md5_of_lines(numbers())
        run("md5sum /tmp/file1 /tmp/file2 /tmp/file3 >/tmp/sums && md5sum /tmp/big >/tmp/big.sum")
        taken = guest.take_snapshot(vm, folder)
    return taken


@pytest.fixture(scope="session")
def snapshot_of_two_regions(image, session_folder):
    """Two NUMA nodes, each its own memory region; the big file lies in both.

    Linux reports free memory of a node only when more than 64 MiB of it are free: so they are not made smaller.
    """
    folder = session_folder / "two"
    folder.mkdir()
    with guest.boot(image, folder, mem_mib=[192, 192], smp=1) as vm:
        vm.console.run("dd if=/dev/urandom of=/tmp/seed bs=1M count=8 2>/dev/null")
        vm.console.run(f"cat $(yes /tmp/seed | head -n {BIG_MIB_OF_TWO // 8}) >/tmp/big")
        vm.console.run("md5sum /tmp/seed /tmp/big >/tmp/sums")
        return guest.take_snapshot(vm, folder)


@pytest.fixture
def folder(session_folder):
    """An empty folder for one test."""
    with tempfile.TemporaryDirectory(dir=session_folder, prefix="t") as path:
        yield pathlib.Path(path)


@pytest.fixture
def restore(programs, folder):
    """restore(snapshot, *thaw's arguments, ...): the guest, its memory served by `thaw serve`; see guest.restore().

    When the test is done with the guest, the pager must have ended well, with statistics that make sense and say end.
    """

    @contextlib.contextmanager
    def restored(snapshot, *arguments, huge=False, end="vmm-gone"):
        argv = guest.thaw_argv(programs.thaw, *arguments)
        with guest.restore(snapshot, folder, argv, programs.preload, huge, programs.madvise_log) as running:
            yield running
        thawtest.check_stats(running.pager.last_stats(), end=end)

    return restored


@pytest.fixture
def restore_with_naive_stale(programs, folder):
    """The same with a handler that forgets discards."""

    def restored(snapshot):
        argv = guest.handler_argv(programs.naive_dir / "naive_stale")
        return guest.restore(snapshot, folder, argv, programs.preload, madvise_log_lib=programs.madvise_log)

    return restored


@pytest.fixture
def huge_pages():
    """Room for 256 MiB of huge pages, given back afterwards."""
    with thawtest.hugepages(128):
        yield
