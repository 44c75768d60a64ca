# SPDX-License-Identifier: Apache-2.0
"""
fc_standin_guest.py - the guest of the stand-in for Firecracker: a thread that owns memory and talks on the serial line

It boots: fills part of its memory with a pattern, says that it is ready (marker=TEXT on the kernel's command line: that text;
listen=PORT@SECONDS: so much later it listens there), and gives a prompt. Then it is a little shell, enough
for what tests type (echo, true, false, eval, sleep, cat, redirection into files, ; && || $? $NAME), and for asking about memory:

    fill N         take N pages of free memory and write to them; prints the first one's number
    free N         let go of the N pages taken last; reported to the VMM if the balloon has free page reporting
    sum            sha256 of all memory but the one page that a VMM changes when it loads a snapshot (GENID_PAGE)
    check [all]    is every page of its own as it was written, and (all) every free page that must be zero, zero
    touch-page N   read a page; prints its first word
    listen PORT    at the vsock: whoever connects gets back what it says
    poweroff       the VMM ends with status 0
    vmm-exit N     the VMM ends with status N
    oops           the kernel panics: the VMM ends with status 0, as it does for any end of a guest

Files are kept in guest memory: whoever restores the memory wrongly loses them. Where each page's content is from is known to
the guest (`owned`), which goes with the devices' state into a snapshot: it can be asked after any number of generations.

A guest that stands (pause) is parked before its next step. It counts as parked, too, while it waits for input or for the VMM.
A thread of it that waits for a page cannot be parked: pause then fails after PAUSE_SECONDS, as it does there.
"""

import hashlib
import json
import os
import re
import select
import shlex
import threading
import time

from fc_standin_memory import PAGE, page_runs, pattern

PAUSE_SECONDS = float(os.environ.get("FC_STANDIN_PAUSE_SECONDS", "30"))
GENID_PAGE = 255  # just under 1 MiB, as there
FILES_PAGE, FILES_PAGES = 512, 64
PATTERN_PAGE = 1024
CHUNK_PAGES = 256
HINT_PAGES = 1024  # the largest range that one hint gives: 4 MiB
PROMPT = "# "


def is_patterned(page):
    """Whether the guest writes to this page of its first memory when it boots. The others stay untouched."""
    return page % 8 != 5


def parse_line(line):
    """[(what joins it to the one before, words, file to write to or None, append)] of a line of shell."""
    line = re.sub(r"'[^']*'", lambda m: m.group().replace("$", "\0"), line)
    lexer = shlex.shlex(line, posix=True, punctuation_chars=True)
    lexer.whitespace_split, lexer.commenters = True, ""
    commands, words, target, append, join = [], [], None, False, ";"
    redirect = None
    for token in lexer:
        if token in (";", "&&", "||", "&", "|", "\n"):
            commands.append((join, words, target, append))
            words, target, append, join = [], None, False, ";" if token == "&" else token
        elif token in (">", ">>", ">&", "<"):
            redirect = token
            if words and words[-1] == "2":
                words.pop()
                redirect = "2" + token
        elif redirect:
            if redirect in (">", ">>"):
                target, append = token, redirect == ">>"
            redirect = None
        elif token not in ("(", ")", "{", "}"):
            words.append(token)
    commands.append((join, words, target, append))
    return [c for c in commands if c[1] or c[2]]


class Guest:
    """vm: what runs it; see fc_standin_vm.py for what is asked of it."""

    def __init__(self, vm, memory, serial_in, serial_out):
        self.vm, self.memory = vm, memory
        self.serial_in, self.serial_out = serial_in, serial_out
        self.cond = threading.Condition()
        self.running = self.inside = False
        self.wake_r, self.wake_w = os.pipe()
        n_pattern = min(int(os.environ.get("FC_STANDIN_PATTERN_MIB", "8")) * 256, memory.n_dram - PATTERN_PAGE)
        self.pool_page = PATTERN_PAGE + max(n_pattern, 0)
        self.owned = {}  # page -> generation
        self.stale = set()  # free pages that nobody promises anything of
        self.ballooned = set()
        self.generation = 0
        self.variables = {"?": "0"}
        self.pending = b""
        self.echo = True
        self.hinted = 0  # the command id that was seen last
        self.has_booted = False
        self.ports = set()  # of the vsock, at which it listens
        self.commands = {name[3:].replace("_", "-"): getattr(self, name) for name in dir(self) if name.startswith("do_")}

    # ---- what a snapshot knows of it

    def state(self):
        """For the vmstate file."""
        by_generation = {}
        for page in sorted(self.owned):
            by_generation.setdefault(self.owned[page], []).append(page)
        return {"pool_page": self.pool_page, "generation": self.generation, "variables": self.variables,
                "owned": [[g, page_runs(pages)] for g, pages in by_generation.items()],
                "stale": page_runs(sorted(self.stale)), "ballooned": page_runs(sorted(self.ballooned)),
                "pending": self.pending.decode(errors="replace"), "echo": self.echo, "hinted": self.hinted,
                "ports": sorted(self.ports)}

    def restore(self, state):
        """The same, the other way round."""
        def pages(runs):
            return {page for first, n in runs for page in range(first, first + n)}

        self.pool_page, self.generation = state["pool_page"], state["generation"]
        self.variables, self.pending = state["variables"], state["pending"].encode()
        self.owned = {page: g for g, runs in state["owned"] for page in pages(runs)}
        self.stale, self.ballooned = pages(state["stale"]), pages(state["ballooned"])
        self.echo, self.hinted = state["echo"], state["hinted"]
        self.ports = set(state["ports"])
        self.has_booted = True

    # ---- running and standing

    def start(self):
        """Begin, standing."""
        threading.Thread(target=self._run, daemon=True).start()

    def resume(self):
        """Let it go on."""
        with self.cond:
            self.running = True
            self.cond.notify_all()
        self.wake()

    def pause(self):
        """Have it stand. Return: whether it does."""
        with self.cond:
            self.running = False
            return self.cond.wait_for(lambda: not self.inside, PAUSE_SECONDS)

    def wake(self):
        """A device has something for it."""
        os.write(self.wake_w, b"w")

    def enter(self):
        """From here on the guest runs."""
        with self.cond:
            self.cond.wait_for(lambda: self.running)
            self.inside = True

    def leave(self):
        """From here on it counts as standing."""
        with self.cond:
            self.inside = False
            self.cond.notify_all()

    def gate(self):
        """Stand here if that is wanted."""
        if not self.running:
            self.leave()
            self.enter()

    def ask(self, work):
        """Have the VMM's thread do something; its result."""
        done, result = threading.Event(), []
        self.vm.post(lambda: (result.append(work()), done.set()))
        self.leave()
        done.wait()
        self.enter()
        return result[0]

    # ---- the thread

    def _run(self):
        self.enter()
        if not self.has_booted:
            self._boot()
        while True:
            self.device_work()
            self.leave()
            line = self._next_line()
            self.enter()
            if line is not None:
                self._obey(line)

    def _boot(self):
        for page in range(PATTERN_PAGE, self.pool_page):
            self.gate()
            if is_patterned(page):
                self.memory.write(page, pattern(page))
        self._files_write({})
        self.has_booted = True
        self.vm.post(self.vm.driver_is_up)
        marker = re.search(r"(?:^| )marker=(\S+)", self.vm.boot_args())
        listens = re.search(r"(?:^| )listen=(\d+)@([\d.]+)", self.vm.boot_args())
        if listens:
            threading.Timer(float(listens.group(2)), self.ports.add, [int(listens.group(1))]).start()
        self.say("Linux version 0.0 (stand-in)\n" + (marker.group(1) if marker else "guest-is-ready") + "\n" + PROMPT)

    def say(self, text):
        """Write to the serial line."""
        data = text.replace("\n", "\r\n").encode()
        while data and self.serial_out >= 0:
            try:
                data = data[os.write(self.serial_out, data):]
            except OSError:
                return

    def _next_line(self):
        """A line that was typed, or None if something else is to be done."""
        while b"\n" not in self.pending:
            sources = [self.wake_r] + ([self.serial_in] if self.serial_in >= 0 and self.running else [])
            ready, _, _ = select.select(sources, [], [])
            if self.wake_r in ready:
                os.read(self.wake_r, 4096)
                return None
            data = os.read(self.serial_in, 64)  # as much as the serial device holds
            if not data:
                self.serial_in = -1
            self.pending += data
        if not self.running:
            os.read(self.wake_r, 4096)  # wait until resumed
            return None
        line, self.pending = self.pending.split(b"\n", 1)
        line = line.rpartition(b"\x15")[2]  # what comes before a Ctrl-U is forgotten
        return line.decode(errors="replace").rstrip("\r")

    def device_work(self):
        """What drivers do when a device has called."""
        if self.has_booted:
            self.vm.balloon_driver(self)
            self.vm.hotplug_driver(self)

    # ---- the shell

    def _obey(self, line):
        if self.echo:
            self.say(line + "\n")
        self._evaluate(line)
        self.say(PROMPT)

    def _evaluate(self, line):
        try:
            commands = parse_line(line)
        except ValueError as e:
            self.say(f"sh: syntax error: {e}\n")
            commands, self.variables["?"] = [], "2"
        for join, words, target, append in commands:
            self.gate()
            failed = self.variables["?"] != "0"
            if join == "&&" and failed or join == "||" and not failed:
                continue
            words = [re.sub(r"\$(\?|\w+)", lambda m: self.variables.get(m.group(1), ""), w).replace("\0", "$")
                     for w in words]
            status, output = self._command(words)
            self.variables["?"] = str(status)
            if target and not target.startswith(("/proc", "/sys", "/dev")):
                files = self._files_read()
                files[target] = (files.get(target, "") if append else "") + output
                self._files_write(files)
            elif not target:
                self.say(output)

    def _command(self, words):
        if not words:
            return 0, ""
        assignment = re.fullmatch(r"(\w+)=(.*)", words[0])
        if assignment:
            self.variables[assignment.group(1)] = assignment.group(2)
            return 0, ""
        command = self.commands.get(words[0])
        if not command:
            return 127, f"sh: {words[0]}: not found\n"
        try:
            return command(words[1:])
        except (ValueError, IndexError):
            return 2, f"{words[0]}: what is meant by {' '.join(words[1:])!r}?\n"

    def _files_read(self):
        raw = self.memory.read(FILES_PAGE, FILES_PAGES)
        return json.loads(raw[8:8 + int.from_bytes(raw[:8], "little")])

    def _files_write(self, files):
        data = json.dumps(files).encode()
        self.memory.write(FILES_PAGE, len(data).to_bytes(8, "little") + data[:FILES_PAGES * PAGE - 8])

    def do_echo(self, words):
        """echo"""
        return (0, " ".join(words[1:])) if words[:1] == ["-n"] else (0, " ".join(words) + "\n")

    def do_true(self, _words):
        """true; and whatever else has nothing to do here"""
        return 0, ""

    do_sync = do_mkdir = do_mount = do_export = do_touch = do_clear = do_true

    def do_false(self, _words):
        """false"""
        return 1, ""

    def do_eval(self, words):
        """eval 'LINE'"""
        self._evaluate(" ".join(words))
        return int(self.variables["?"]), ""

    def do_stty(self, words):
        """stty -echo, stty echo"""
        self.echo = "-echo" not in words
        return 0, ""

    def do_cat(self, words):
        """cat FILE..."""
        files = self._files_read()
        missing = [name for name in words if name not in files]
        if missing:
            return 1, f"cat: can't open '{missing[0]}': No such file or directory\n"
        return 0, "".join(files[name] for name in words)

    def do_listen(self, words):
        """listen PORT"""
        self.ports.add(int(words[0]))
        return 0, ""

    def do_rm(self, words):
        """rm FILE..."""
        files = self._files_read()
        for name in words:
            files.pop(name, None)
        self._files_write(files)
        return 0, ""

    def do_sleep(self, words):
        """sleep SECONDS"""
        end = time.monotonic() + float(words[0])
        while time.monotonic() < end:
            self.gate()
            self.device_work()
            time.sleep(0.005)
        return 0, ""

    # ---- memory

    def pool(self):
        """Page numbers of memory that is free or was, lowest first; what is plugged included."""
        yield from range(self.pool_page, self.memory.n_dram)
        yield from range(self.memory.n_dram, self.memory.n_dram + self.vm.plugged_pages())

    def free_pages(self):
        """Those that nobody has."""
        return [page for page in self.pool() if page not in self.owned and page not in self.ballooned]

    def do_fill(self, words):
        """fill N"""
        n = int(words[0])
        free = self.free_pages()
        if len(free) < n and self.vm.deflates_on_oom():
            while len(free) < n and self.ballooned:
                free.append(self.ballooned.pop())
            self.ask(lambda: self.vm.balloon_actual(len(self.ballooned)))
        if len(free) < n:
            return 1, "out of memory\n"
        self.generation += 1
        for page in free[:n]:
            self.gate()
            self.memory.write(page, pattern(page, self.generation))
            self.owned[page] = self.generation
            self.stale.discard(page)
        return 0, f"{free[0] if n else ''}\n"

    def do_free(self, words):
        """free N"""
        newest = sorted(self.owned, key=lambda page: (self.owned[page], page))[-int(words[0]):] if int(words[0]) else []
        for page in newest:
            del self.owned[page]
        runs = page_runs(sorted(newest))
        discarded = self.ask(lambda: self.vm.report(runs)) if self.vm.reports() else False
        if not discarded:
            self.stale.update(newest)
        return 0, f"{len(newest)}\n"

    def do_sum(self, _words):
        """sum"""
        digest = hashlib.sha256()
        for page in range(0, self.memory.n_dram, CHUNK_PAGES):
            self.gate()
            data = self.memory.read(page, min(CHUNK_PAGES, self.memory.n_dram - page))
            digest.update(data[:-PAGE] if page + CHUNK_PAGES == GENID_PAGE + 1 else data)
        return 0, digest.hexdigest() + "\n"

    def _expected(self, page, everything):
        """What a page must be, or None if it may be anything."""
        if PATTERN_PAGE <= page < self.pool_page:
            return pattern(page) if is_patterned(page) else bytes(PAGE) if everything else None
        if page in self.owned:
            return pattern(page, self.owned[page])
        if not everything or page < PATTERN_PAGE or page in self.stale or page in self.ballooned:
            return None
        return bytes(PAGE)

    def do_check(self, words):
        """check [all]"""
        everything = words == ["all"]
        looked_at = 0
        for page in [*range(PATTERN_PAGE, self.pool_page), *self.pool()]:
            expected = self._expected(page, everything)
            if expected is None:
                continue
            self.gate()
            got = self.memory.read(page)
            looked_at += 1
            if got != expected:
                return 1, f"page {page} has {got[:8].hex()}, not {expected[:8].hex()}\n"
        self._files_read()
        return 0, f"{looked_at} pages are right\n"

    def do_touch_page(self, words):
        """touch-page N"""
        return 0, self.memory.read(int(words[0]))[:8].hex() + "\n"

    # ---- ends

    def do_poweroff(self, _words):
        """poweroff"""
        self.vm.exit(0)
        return 0, ""

    do_reboot = do_halt = do_oops = do_poweroff

    def do_vmm_exit(self, words):
        """vmm-exit N"""
        self.vm.exit(int(words[0]))
        return 0, ""
