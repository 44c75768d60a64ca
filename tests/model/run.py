#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""run.py - model-check the pager, and check that its mistakes are found

    run.py [--list] [--story] [--only TEXT] [GROUP...]

Each check is one TAP line. It expands src/core/page_states.def (tools/page_states.py), generates a verifier from
pager.pml with spin, compiles it, and runs it once or twice:

    what must never happen     assertions and invalid end states, every interleaving
    what must happen           cycles in which a vCPU or a discard sleeps, under weak fairness

A check without "(caught)" passes when nothing is found and the search was complete. A check with "(caught)" changes one
thing, in the pager (-DMUTATE_x) or in the table, and passes when an error of the right kind is found.

GROUP is one of those that --help names; all of them if none is given. --only takes the checks whose names contain TEXT.
--story tells how a caught mistake leads to its error (a failed check always does).
"""

import argparse
import dataclasses
import importlib.util
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent.parent
PICTURE = ROOT / "docs/page-states.svg"

# Seconds. Each is several times what a slow machine needs.
SPIN_TIMEOUT, CC_TIMEOUT, PAN_TIMEOUT = 60, 120, 150

# What is optimised more takes longer to compile: it pays for two pages, whose states are many. A mistake is found early.
CC_OPTIMISE = {"one-page": "-O1", "two-pages": "-O2", "two-pages-tracked": "-O2", "mutations": "-O0", "tables": "-O0"}

# NFAIR=2: up to 14 processes. NOSTUTTER: end states are the first run's business, and spin 6.5.2 takes some good ones
# for endless sleep when it looks for cycles with fairness.
CC_FLAGS = ("-w", "-DNFAIR=2", "-DNOSTUTTER", "-DMEMLIM=1500")
PAN_DEPTH = "-m2000000"

# What pan says when a check finds something.
STRANDED = r"invalid end state"
ENDLESS = r"acceptance cycle"
STALE = r"assertion violated .*heard"
UNTRUE = r"assertion violated .*allowed"
NO_EDGE = r"assertion violated 0 "

# Who speaks in the model's printf lines, and where a cycle begins.
STORY_LINE = re.compile(r"(vCPU|balloon|intruder|unmapper|kernel|pager|state|judge|<<<<<)")
STORY_LENGTH = 80


@dataclasses.dataclass(frozen=True)
class Check:
    """One question to spin. caught: what must be found, or None: nothing may be. table: changes of the page states."""

    group: str
    name: str
    defines: tuple = ()
    caught: str = None
    table: tuple = ()
    fair: bool = True


UNBOUNDED = ("OPS=0", "REMOVES=0")
TWO = ("PAGES=2", "REMOVES=1")


def correct(group, name, *defines):
    return Check(group, name, defines)


def unbounded(group, name, *defines):
    return Check(group, name + ", for any number of accesses and discards", (*UNBOUNDED, *defines), fair=False)


def mutation(name, mutate, caught, *defines):
    return Check("mutations", name + " (caught)", ("MUTATE_" + mutate, *defines), caught)


def table_mutation(name, change, caught, *defines):
    return Check("tables", name + " (caught)", defines, caught, (change,))


CHECKS = (
    correct("one-page", "every fault of a page is answered, and its discards return"),
    correct("one-page", "a page's bytes may be elsewhere when it faults", "FETCH"),
    correct("one-page", "a page that somebody else put there strands nobody", "INTRUDER"),
    correct("one-page", "a page that went away unheard strands nobody", "UNHEARD"),
    correct("one-page", "discards may overlap", "BALLOONS=2", "REMOVES=1"),
    correct("one-page", "no tracked write is lost", "TRACK"),
    correct("one-page", "no tracked write is lost while discards overlap", "TRACK", "BALLOONS=2", "REMOVES=1"),
    correct("one-page", "no tracked write is lost in a zero range", "TRACK", "ZERO_RANGE"),
    correct("one-page", "what is installed ahead strands nobody", "AHEAD", "INTRUDER"),
    correct("one-page", "what is installed ahead spoils no discard", "AHEAD", "BALLOONS=2", "REMOVES=1"),
    correct("one-page", "no tracked write is lost on what is installed ahead", "AHEAD", "TRACK"),
    unbounded("one-page", "nothing is stale or lost on what is installed ahead", "AHEAD", "TRACK"),
    correct("one-page", "what another thread installs strands nobody", "ASIDE", "INTRUDER"),
    correct("one-page", "what another thread installs spoils no discard", "ASIDE", "BALLOONS=2", "REMOVES=1"),
    unbounded("one-page", "nothing is stale or lost on what another thread installs", "ASIDE", "TRACK"),
    unbounded("one-page", "nothing is stale or lost", "FETCH", "INTRUDER"),
    unbounded("one-page", "nothing is stale or lost while discards overlap", "BALLOONS=2"),
    unbounded("one-page", "no tracked write is lost", "TRACK", "FETCH"),
    correct("two-pages", "pages that fault together are answered, and their discards return", *TWO),
    correct("two-pages", "a page faults while another one's bytes are fetched", *TWO, "FETCH"),
    correct("two-pages", "a neighbour that is taken along gets what is its own", *TWO, "AROUND"),
    correct("two-pages", "a neighbour that the image says is zero is not taken along", *TWO, "AROUND", "ZERO_RANGE"),
    correct("two-pages", "a page is installed ahead while the other one faults", *TWO, "AHEAD"),
    correct("two-pages", "another thread installs a page while a fault of the other one is answered", *TWO, "ASIDE"),
    unbounded("two-pages", "nothing is stale or lost on either page", "PAGES=2"),
    unbounded("two-pages", "nothing is stale or lost when neighbours are taken along", "PAGES=2", "AROUND"),
    correct("two-pages-tracked", "no tracked write is lost on either page", *TWO, "TRACK"),
    correct("two-pages-tracked", "no tracked write is lost on a neighbour taken along", *TWO, "TRACK", "AROUND"),
    unbounded("two-pages-tracked", "no tracked write is lost on either page", "PAGES=2", "TRACK"),
    mutation("ignoring a fault on a page believed installed strands a vCPU", "IGNORE_BELIEVED_INSTALLED", STRANDED),
    mutation("forgetting deferred faults strands a vCPU", "FORGET_DEFERRED", STRANDED),
    mutation("retrying only when a message comes strands a vCPU", "RETRY_NEEDS_MESSAGE", STRANDED),
    mutation("retrying before the queue is empty blocks a discard for ever", "RETRY_BEFORE_READ", ENDLESS),
    mutation("answering faults before removes installs stale bytes", "FAULTS_BEFORE_REMOVES", STALE),
    mutation("answering a fault on a removed page from the image installs stale bytes", "IMAGE_AFTER_REMOVE", STALE),
    # Without the intruder only installs make pages present, and they wake: EEXIST then never meets a sleeper.
    mutation("not waking after EEXIST strands a vCPU", "EEXIST_NO_WAKE", STRANDED, "INTRUDER"),
    mutation("not lifting protection after EEXIST strands a vCPU", "EEXIST_NO_UNPROTECT", STRANDED, "TRACK"),
    mutation("forgetting who waits for fetched bytes that are dropped strands a vCPU", "DROP_FETCH_WAITER", STRANDED,
             "FETCH"),
    mutation("installing fetched bytes whatever the page's state installs stale bytes", "FETCHED_BLINDLY", STALE,
             "FETCH"),
    mutation("reading messages beside a thread that installs ahead installs stale bytes", "READ_BESIDE_HELPER", STALE,
             "AHEAD"),
    mutation("leaving to another thread what was discarded meanwhile installs stale bytes", "KEEP_CHOSEN", STALE,
             "ASIDE"),
    mutation("ZEROPAGE and then WRITEPROTECT loses a write", "ZEROPAGE_THEN_PROTECT", UNTRUE, "TRACK"),
    mutation("taking a partial copy for a whole one strands a vCPU", "PARTIAL_IS_WHOLE", STRANDED, *TWO, "AROUND"),
    mutation("taking a neighbour along in whatever state gives it another page's bytes", "NEIGHBOUR_UNSEEN", UNTRUE,
             *TWO, "AROUND"),
    table_mutation("a table that answers faults on removed pages from the image installs stale bytes",
                   ("fault", "REMOVED", "IMAGE"), STALE),
    table_mutation("a table that forgets the discard of an absent page installs stale bytes",
                   ("edge", "REMOVE", "ABSENT", "ABSENT"), STALE),
    table_mutation("a table that forgets the discard of a clean page spoils the snapshot",
                   ("edge", "REMOVE", "CLEAN", "CLEAN"), UNTRUE, "TRACK"),
    table_mutation("a table that keeps a written zero page zero loses a write",
                   ("edge", "WRITTEN", "ZERO", "ZERO"), UNTRUE, "TRACK"),
    table_mutation("a table that does not expect EEXIST on a removed page misses a step",
                   ("edge", "FOUND", "REMOVED", None), NO_EDGE),
)

GROUPS = ("one-page", "two-pages", "two-pages-tracked", "mutations", "tables", "picture")


class StepError(Exception):
    """A tool failed or took too long; the check fails."""


def load_page_states():
    sys.dont_write_bytecode = True
    spec = importlib.util.spec_from_file_location("page_states", ROOT / "tools/page_states.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def run_step(command, folder, timeout):
    """Runs a tool to its end, in a process group of its own; returns (status, output)."""
    with subprocess.Popen(command, cwd=folder, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, text=True, start_new_session=True) as child:
        try:
            output, _ = child.communicate(timeout=timeout)
        except BaseException as error:
            os.killpg(child.pid, signal.SIGKILL)
            if isinstance(error, subprocess.TimeoutExpired):
                raise StepError(f"{command[0]} did not end within {timeout} s") from None
            raise
    return child.returncode, output


def must_run(command, folder, timeout):
    status, output = run_step(command, folder, timeout)
    if status != 0:
        raise StepError(f"{command[0]} failed:\n{output}")


def changed_table(page_states, changes):
    table = page_states.Table(page_states.DEFAULT_DEF.read_text(encoding="utf-8"))
    for kind, *what in changes:
        if kind == "fault":
            state, answer = what
            assert table.answers[state] != answer
            table.answers[state] = answer
            continue
        event, start, end = what
        assert table.edges[event, start] != end
        if end is None:
            del table.edges[event, start]
        else:
            table.edges[event, start] = end
    return table


def search(folder, arguments, tell):
    """Runs the verifier; returns what it found, or None if it looked everywhere and found nothing."""
    start = time.monotonic()
    _, output = run_step(["./pan", PAN_DEPTH, *arguments], folder, PAN_TIMEOUT)
    seconds = time.monotonic() - start
    errors = re.search(r"errors: (\d+)", output)
    numbers = [re.search(pattern, output) for pattern in
               (r"(\d[\d.e+]*) states, stored", r"depth reached (\d+)", r"([\d.]+)\s+total actual memory")]
    if not errors or not all(numbers):
        raise StepError(f"pan said nothing that makes sense:\n{output}")
    states, depth, megabytes = (number.group(1) for number in numbers)
    tell(f"{'must happen' if arguments else 'must never happen'}: {float(states):.0f} states, depth {depth}, "
         f"{float(megabytes):.0f} MB, {seconds:.1f} s")
    found = re.search(r"^pan:\d+: (.*)$", output, re.MULTILINE)
    if errors.group(1) != "0":
        return found.group(1) if found else "an error without a name"
    if "Search not completed" in output or "search depth too small" in output:
        raise StepError(f"the search was not complete:\n{output}")
    return None


def story(folder, spin_defines):
    """The error's trail, as printed by the model."""
    _, output = run_step(["spin", *spin_defines, "-t", "-T", "pager.pml"], folder, SPIN_TIMEOUT)
    lines = [line.strip() for line in output.splitlines()]
    lines = [line for line in lines if STORY_LINE.match(line)]
    if len(lines) > STORY_LENGTH:
        lines = ["..."] + lines[-STORY_LENGTH:]
    return lines


def run_check(check, page_states, want_story, tell):
    """Whether the check passed."""
    defines = ["-D" + define for define in check.defines]
    with tempfile.TemporaryDirectory(prefix="thaw-model-") as name:
        folder = pathlib.Path(name)
        for source in ("pager.pml", "kernel.pml", "guest.pml", "ahead.pml"):
            shutil.copy(HERE / source, folder)
        include = page_states.promela(changed_table(page_states, check.table))
        (folder / "page_states.pml").write_text(include, encoding="utf-8")
        must_run(["spin", *defines, "-a", "pager.pml"], folder, SPIN_TIMEOUT)
        must_run(["gcc", CC_OPTIMISE[check.group], *CC_FLAGS, "-o", "pan", "pan.c"], folder, CC_TIMEOUT)
        found = search(folder, [], tell)
        if not found and check.fair:
            found = search(folder, ["-a", "-f"], tell)
        if found:
            tell("found: " + found)
        good = bool(re.search(check.caught, found or "")) if check.caught else not found
        if found and (want_story or not good):
            for line in story(folder, defines):
                tell("    " + line)
    return good


def check_picture(page_states, tell):
    wanted = page_states.svg(page_states.Table(page_states.DEFAULT_DEF.read_text(encoding="utf-8")))
    if PICTURE.exists() and PICTURE.read_text(encoding="utf-8") == wanted:
        return True
    tell("run: tools/page_states.py svg -o docs/page-states.svg")
    return False


def selected(options):
    checks = [check for check in CHECKS if check.group in options.groups]
    if "picture" in options.groups:
        checks.append(Check("picture", "docs/page-states.svg shows the table of page states"))
    return [check for check in checks if options.only in check.name]


def parse_arguments(argv):
    parser = argparse.ArgumentParser(description="model-check the pager")
    parser.add_argument("groups", nargs="*", metavar="GROUP", help=" ".join(GROUPS))
    parser.add_argument("--list", action="store_true", help="name the checks and do nothing")
    parser.add_argument("--story", action="store_true", help="tell how caught mistakes go wrong")
    parser.add_argument("--only", default="", metavar="TEXT", help="checks whose names contain TEXT")
    options = parser.parse_args(argv)
    for group in options.groups:
        if group not in GROUPS:
            parser.error(f"no group {group}: {' '.join(GROUPS)}")
    options.groups = options.groups or GROUPS
    return options


def tell(text):
    for line in text.splitlines():
        print("# " + line, flush=True)


def main(argv):
    options = parse_arguments(argv)
    checks = selected(options)
    if options.list:
        for check in checks:
            print(f"{check.group:18} {check.name} [{' '.join(check.defines)}]")
        return 0
    for tool in ("spin", "gcc"):
        if not shutil.which(tool) and any(check.group != "picture" for check in checks):
            print(f"1..0 # SKIP {tool} is not installed")
            return 0
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that nothing is left running or lying about
    page_states = load_page_states()
    print(f"1..{len(checks)}", flush=True)
    failed = 0
    for number, check in enumerate(checks, 1):
        try:
            if check.group == "picture":
                good = check_picture(page_states, tell)
            else:
                good = run_check(check, page_states, options.story, tell)
        except (StepError, page_states.TableError) as error:
            tell(str(error))
            good = False
        failed += not good
        print(f"{'ok' if good else 'not ok'} {number} - {check.name}", flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
