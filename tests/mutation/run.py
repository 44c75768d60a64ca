#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""run.py - take a fix out, and see the test fail that is there for it

    run.py [--list] [--only TEXT] [--build FOLDER]

Copies the tree, builds it with gcc, and runs each test that table.py names: it must pass. Then for each mutation: the
change is made, what the test needs is built again, the test is run and must fail. TAP on stdout. Takes some minutes;
nothing in the tree is touched. With --build the copy stays in FOLDER and is used again. --only takes the mutations whose
name, file or test contains TEXT.
"""

import argparse
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time

sys.dont_write_bytecode = True
import table  # noqa: E402  (without leaving a __pycache__ beside it)

ROOT = pathlib.Path(__file__).resolve().parents[2]
PYTHON = "/usr/bin/python3"
BUILD_TIMEOUT, TEST_TIMEOUT = 300, 150  # seconds
TEST_DEADLINE = "10"  # seconds; what takes longer in a process test is taken for stuck
PROGRAMS = {
    "THAW": "src/cli/thaw",
    "FAKEVMM": "tests/process/fakevmm",
    "VMM_CTL": "tests/process/vmm_ctl",
    "HOST_PAGER": "tests/process/host_pager",
    "UFFD_PEER": "tests/process/uffd_peer",
    "FAKE_PAGER": "tests/process/fake_pager",
    "KILLSTEP": "tests/process/killstep",
    "MAKE_CHAIN": "tests/process/make_chain",
}


class ToolError(Exception):
    """Something went wrong besides the test: nothing can be said about the mutation."""


def run(command, folder, timeout, env=None):
    """Run to its end, in a process group of its own. Return: exit status, output; status None: it took too long."""
    with subprocess.Popen([str(word) for word in command], cwd=folder, stdin=subprocess.DEVNULL,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace",
                          start_new_session=True, env=env) as child:
        try:
            output, _ = child.communicate(timeout=timeout)
        except BaseException as error:
            os.killpg(child.pid, signal.SIGKILL)
            if isinstance(error, subprocess.TimeoutExpired):
                return None, f"{command[0]} did not end within {timeout} s"
            raise
        return child.returncode, output


class Workshop:
    """A copy of the tree and its build folder."""

    def __init__(self, folder):
        self.tree = folder / "tree"
        self.build = folder / "build"
        files = subprocess.run(["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"], cwd=ROOT,
                               check=True, capture_output=True).stdout.decode().split("\0")
        for name in filter(None, files):
            source, copy = ROOT / name, self.tree / name
            if not source.is_file() or (copy.exists() and copy.read_bytes() == source.read_bytes()):
                continue
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, copy)
            shutil.copymode(source, copy)
        if not (self.build / "build.ninja").exists():
            self.must_run(["meson", "setup", "-Dman=disabled", "-Dwerror=false", self.build, self.tree],
                          dict(os.environ, CC="gcc"))

    def must_run(self, command, env=None):
        """Run a tool that has to succeed."""
        status, output = run(command, self.tree, BUILD_TIMEOUT, env)
        if status != 0:
            raise ToolError(f"{command[0]} failed:\n{output[-3000:]}")

    def make(self, targets):
        """Build. Return: does it compile?"""
        status, output = run(["ninja", "-C", self.build, *targets], self.tree, BUILD_TIMEOUT)
        if status != 0 and " error: " not in output:
            raise ToolError(f"ninja: {output[-3000:]}")
        return status == 0

    def make_all(self, tests):
        """Build all that these tests need."""
        if not self.make(sorted({target for test in tests for target in targets_of(test)})):
            raise ToolError("it does not build without a mutation")


def split_test(test):
    """"process:test_x::test_y[z]" in parts: kind, file, name."""
    kind, _, rest = test.partition(":")
    file, _, name = rest.partition("::")
    return kind, file, name


def targets_of(test):
    """What must be built for a test."""
    kind, file, _ = split_test(test)
    if kind == "unit":
        return ["tests/unit/" + file]
    if kind == "trace":
        return ["tests/trace/run_trace"]
    return list(PROGRAMS.values())


def run_unit(workshop, file, name):
    status, output = run([workshop.build / "tests/unit" / file], workshop.tree, TEST_TIMEOUT)
    if f"[ RUN      ] {name}\n" not in output:
        raise ToolError(f"{file} has no test {name}")
    if f"[       OK ] {name}\n" in output:
        return True
    # A test that crashed is the last one that was begun.
    begun = re.findall(r"^\[ RUN      \] (\w+)$", output, re.MULTILINE)
    if f"[  FAILED  ] {name}" in output or (status != 0 and begun[-1] == name):
        return False
    raise ToolError(f"{file}: what became of {name}?\n{output[-2000:]}")


def run_process(workshop, file, name):
    programs = {key: str(workshop.build / path) for key, path in PROGRAMS.items()}
    env = dict(os.environ, THAW_TEST_DEADLINE=TEST_DEADLINE, NAIVE_DIR=str(workshop.build / "tests/process"), **programs)
    status, output = run([PYTHON, "-B", "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", f"{file}.py::{name}"],
                         workshop.tree / "tests/process", TEST_TIMEOUT, env)
    if status == 0 and not re.search(r"\d+ passed", output):
        return None
    if status not in (0, 1, None) or not re.search(r"\d+ (passed|failed|error)|did not end", output):
        raise ToolError(f"pytest ended with {status}:\n{output[-3000:]}")
    return status == 0


def passes(workshop, test):
    """Build what the test needs and run it. Return: did it pass? None: it was skipped."""
    kind, file, name = split_test(test)
    built = workshop.make(targets_of(test))
    if kind == "build":
        return built
    if not built:
        raise ToolError("the mutation does not compile")
    if kind == "unit":
        return run_unit(workshop, file, name)
    if kind == "trace":
        status, _ = run([workshop.build / "tests/trace/run_trace", f"tests/trace/{file}.trace"], workshop.tree,
                        TEST_TIMEOUT)
        return status == 0
    return run_process(workshop, file, name)


def tell(text):
    for line in text.splitlines():
        print("# " + line, flush=True)


def try_mutation(workshop, mutation):
    """Whether the test noticed."""
    path = workshop.tree / mutation.file
    right = path.read_text(encoding="utf-8")
    if right.count(mutation.old) != 1:
        raise ToolError(f"its old text is in {mutation.file} {right.count(mutation.old)} times, expected once")
    path.write_text(right.replace(mutation.old, mutation.new), encoding="utf-8")
    try:
        return passes(workshop, mutation.test) is False
    finally:
        path.write_text(right, encoding="utf-8")


def try_all(workshop, mutations):
    """TAP for all of them. Return: how many went wrong."""
    tests = sorted({mutation.test for mutation in mutations})
    workshop.make_all(tests)
    # "build" is compiled all the time.
    before = {test: test == "build" or passes(workshop, test) for test in tests}
    failed = 0
    for number, mutation in enumerate(mutations, 1):
        start = time.monotonic()
        what = f"{number} - it {mutation.name}: {mutation.test}"
        if before[mutation.test] is None:
            print(f"ok {what} # SKIP the test cannot run here", flush=True)
            continue
        if not before[mutation.test]:
            tell(f"fails without any mutation: {mutation.test}")
        try:
            good = before[mutation.test] and try_mutation(workshop, mutation)
        except ToolError as error:
            tell(str(error))
            good = False
        failed += not good
        print(f"{'ok' if good else 'not ok'} {what} {'fails' if good else 'does not notice'} "
              f"({time.monotonic() - start:.0f} s)", flush=True)
    return failed


def main(argv):
    parser = argparse.ArgumentParser(description="take fixes out, one by one, and see the tests fail")
    parser.add_argument("--list", action="store_true", help="name the mutations and do nothing")
    parser.add_argument("--only", default="", metavar="TEXT", help="mutations whose name, file or test contains TEXT")
    parser.add_argument("--build", metavar="FOLDER", help="keep the copy there, and use it again")
    options = parser.parse_args(argv)
    mutations = [mutation for mutation in table.MUTATIONS
                 if any(options.only in text for text in (mutation.name, mutation.file, mutation.test))]
    if options.list:
        for mutation in mutations:
            print(f"{mutation.name}: {mutation.file}: {mutation.test}")
        return 0
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that nothing is left running or lying about
    print(f"1..{len(mutations)}", flush=True)
    if options.build:
        return 1 if try_all(Workshop(pathlib.Path(options.build).resolve()), mutations) else 0
    with tempfile.TemporaryDirectory(prefix="thaw-mutation-") as folder:
        return 1 if try_all(Workshop(pathlib.Path(folder)), mutations) else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
