# SPDX-License-Identifier: Apache-2.0
"""Fixtures of the KVM tests: those of the process tests, and a KVM that can run the guest."""

import importlib.util
import pathlib
import subprocess
import sys

import pytest

TESTS = pathlib.Path(__file__).resolve().parent.parent
sys.path[:0] = [str(TESTS / "lib"), str(TESTS / "process")]

import thawtest  # noqa: E402  (found through the path above)

_spec = importlib.util.spec_from_file_location("process_conftest", TESTS / "process" / "conftest.py")
_process = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(_process)
lab = _process.lab
memory_cache = _process.memory_cache
pytest_runtest_makereport = _process.pytest_runtest_makereport

PROBE_SECONDS = 10


class Kvm:
    """What the KVM of this host can run."""

    def __init__(self):
        self._found = {}  # {options: None or what is in the way}

    def need(self, *options):
        """Skips, in one line, where the guest cannot run in this way by itself, without a pager."""
        if options not in self._found:
            self._found[options] = self._try(options)
        if self._found[options]:
            pytest.skip(f"no usable KVM here: {self._found[options]}")

    @staticmethod
    def _try(options):
        argv = [thawtest.program("FAKEVMM"), "--local", "--size", "64K", "--seed", "1", "--timeout", str(PROBE_SECONDS),
                *options, "walk", "fill", "verify"]
        try:
            done = subprocess.run(argv, check=False, capture_output=True, text=True, stdin=subprocess.DEVNULL,
                                  timeout=3 * PROBE_SECONDS)
        except subprocess.TimeoutExpired:
            return "KVM_RUN cannot be ended"
        if done.returncode == 0:
            return None
        lines = done.stderr.splitlines() or [f"tinyvmm ended with {done.returncode}"]
        return "; ".join(lines)[:200]


@pytest.fixture(scope="session")
def kvm():
    """KVM, which is asked once for each way to run a guest."""
    return Kvm()
