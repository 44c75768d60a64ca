#!/usr/bin/python3 -BSE
# SPDX-License-Identifier: Apache-2.0
"""
fc_standin.py - a strict stand-in for Firecracker, for tests

Started as if it were the `firecracker` binary: the same command line, the same API on the same kind of socket, snapshots, a
userfaultfd handed to a pager in the same words; instead of a guest a thread that owns memory and has a little shell on the
serial line (fc_standin_guest.py). Where the real one refuses, this one refuses, too: it is there to find mistakes of clients.
It is written from what is known of Firecracker, and shares nothing with the client that it judges.

    FC_STANDIN_VERSION        which version it is: 1.10 to 1.17 make a difference. Default 1.14.1
    FC_STANDIN_FAULT          what goes wrong, separated by commas. WHERE is a path such as /snapshot/load
        exit-at-start=N           ends with status N before the socket is there
        die@WHERE=N               ends with status N instead of answering (148: a system call was refused)
        hang@WHERE                answers nothing any more
        slow@WHERE=MS             answers later
        refuse@WHERE              400; for /snapshot/load that is the end, as always
        bad-body@WHERE            400 with a body that is not JSON
        late-devices              what the guest has asked of its devices is done after a pause was answered
        restless-devices          after the first snapshot devices go on writing to memory, until the guest goes on
    FC_STANDIN_SPLIT_MIB      memory above this is a second region (default: 3 GiB, as there)
    FC_STANDIN_PATTERN_MIB    how much of its memory the guest fills when it boots (default 8)
    FC_STANDIN_PAUSE_SECONDS  how long a pause waits for the guest (default 30, as there)
    FC_STANDIN_BALLOON, FC_STANDIN_BALLOON_STRIDE     see fc_standin_balloon.py
    FC_STANDIN_CHROOT, _UID, _GID                     set by jailer_standin.py: what to become once everything is loaded

What it does not have: a KVM, devices that do anything, --config-file, rate limits, metrics, MMDS for the guest. Files are not
fsynced.
"""

import ctypes
import json
import mmap
import os
import re
import signal
import sys
import threading
import time

import fc_standin_api
import fc_standin_http
import fc_standin_snapshot
import fc_standin_vm
from fc_standin_guest import GENID_PAGE
from fc_standin_memory import libc

FLAGS = ("no-seccomp", "show-level", "show-log-origin", "boot-timer", "version", "snapshot-version", "enable-pci", "help")
VALUES = ("api-sock", "id", "config-file", "metadata", "seccomp-filter", "log-path", "level", "module", "metrics-path",
          "describe-snapshot", "http-api-max-payload-size", "mmds-size-limit", "start-time-us", "start-time-cpu-us",
          "parent-cpu-time-us")
LEVELS = ("off", "trace", "debug", "info", "warn", "warning", "error")
SIGBUS_STATUS, GENERIC, BAD_CONFIG, BAD_ARGUMENTS = 149, 1, 152, 153


class Usage(Exception):
    """A wrong command line."""


def parse_version(text):
    """(1, 14, 1) of "1.14.1", "v1.14.1_abc" or "1.17.0-dev"."""
    found = re.match(r"v?(\d+)\.(\d+)(?:\.(\d+))?", text)
    return tuple(int(number or 0) for number in found.groups())


def parse_arguments(argv):
    """{name: value or True}; Usage for anything unknown, twice or without its value."""
    options, rest = {}, list(argv)
    while rest:
        word = rest.pop(0)
        name = word[2:] if word.startswith("--") else None
        if name in options:
            raise Usage(f"The argument '{name}' was provided more than once.")
        if name in FLAGS:
            options[name] = True
        elif name in VALUES:
            if not rest or rest[0].startswith("--"):
                raise Usage(f"The argument '{name}' requires a value, but none was supplied.")
            options[name] = rest.pop(0)
        else:
            raise Usage(f"Found argument '{word}' which wasn't expected, or isn't valid in this context.")
    if "no-seccomp" in options and "seccomp-filter" in options:
        raise Usage("The argument 'no-seccomp' cannot be used together with argument 'seccomp-filter'.")
    return options


class Options:
    """What the command line and the environment say, and the log."""

    def __init__(self, arguments, version_text):
        self.version_text = version_text.lstrip("v")
        self.version = parse_version(version_text)
        self.id = arguments.get("id", "anonymous-instance")
        self.api_sock = arguments.get("api-sock", "/run/firecracker.socket")
        self.enable_pci = "enable-pci" in arguments
        self.body_max = int(arguments.get("http-api-max-payload-size", 51200))
        self.log_file = sys.stdout
        self.level = arguments.get("level", "info").lower()
        if not re.fullmatch(r"[A-Za-z0-9-]{1,64}", self.id):
            raise Usage(f"Invalid instance ID: {self.id}")

    def log_to(self, path):
        """Another log. Before 1.14 the file must be there."""
        flags = os.O_WRONLY | os.O_APPEND | os.O_NONBLOCK | (os.O_CREAT if self.version >= (1, 14) else 0)
        self.log_file = os.fdopen(os.open(path, flags, 0o644), "w")

    def log(self, text):
        """One line."""
        if self.level != "off":
            self.log_file.write(time.strftime("%Y-%m-%dT%H:%M:%S.000000000 ") + f"[{self.id}:main] {text}\n")
            self.log_file.flush()


class Faults:
    """FC_STANDIN_FAULT."""

    def __init__(self, text):
        self.all = []
        for one in filter(None, text.split(",")):
            what, _, value = one.partition("=")
            kind, _, where = what.partition("@")
            self.all.append((kind, where, value))

    def find(self, kind, where=""):
        """The value of such a fault, or None."""
        return next((value or "0" for k, w, value in self.all if k == kind and w == where), None)

    def before(self, path, options):
        """What goes wrong instead of looking at a request. Return: a Response, or None."""
        slow, die = self.find("slow", path), self.find("die", path)
        if slow is not None:
            time.sleep(int(slow) / 1000)
        if die is not None:
            options.log(f"Firecracker exiting with error. exit_code={die}")
            os._exit(int(die))
        while self.find("hang", path) is not None:
            signal.pause()
        if self.find("bad-body", path) is not None:
            return fc_standin_http.Response(400, "something went wrong\n<not json>")
        if self.find("refuse", path) is not None:
            fatal = path == "/snapshot/load"
            return fc_standin_http.Response(400, json.dumps({"fault_message": "Load snapshot error: refused by the test"}),
                                            then=(lambda: os._exit(GENERIC)) if fatal else None)
        return None


class Program:
    """A VM and the server that it is asked through."""

    def __init__(self, options):
        self.options = options
        self.vm = fc_standin_vm.Vm(options, options.version)
        self.rest = None  # set: they stop writing
        self.faults = Faults(os.environ.get("FC_STANDIN_FAULT", ""))
        methods = ["GET", "PUT", "PATCH"] + (["DELETE"] if options.version >= (1, 16) else [])
        self.server = fc_standin_http.Server(options.api_sock, self.handle, methods, options.body_max)
        self.server.watch(self.vm.work_r, self.vm.do_posted)

    def handle(self, request):
        """Answer one request."""
        with_body = "" if request.body is None else f" with body {json.dumps(request.body.decode(errors='replace'))}"
        self.options.log(f"The API server received a {request.method.title()} request on \"{request.path}\"{with_body}.")
        response = self.faults.before(request.path, self.options)
        if response:
            return response
        try:
            action, params, deprecated = fc_standin_api.parse(request.method, request.path, request.body,
                                                              self.options.version)
            answer = self.vm.act(action, params)
        except fc_standin_api.Refused as e:
            self.options.log(f"Received Error. Status code: 400 Bad Request. Message: {e}")
            fatal = self.vm.fatal
            return fc_standin_http.Response(400, json.dumps({"fault_message": str(e)}),
                                            then=(lambda: self.vm.exit(fatal)) if fatal else None)
        then = self.devices_after(action, params)
        if answer is None:
            return fc_standin_http.Response(204, then=then, deprecated=deprecated)
        return fc_standin_http.Response(200, json.dumps(answer), then=then, deprecated=deprecated)

    def devices_after(self, action, params):
        """What devices do once the request is answered; None: nothing."""
        if action == "patch_vm" and self.rest:
            self.rest.set()
        elif action == "create" and not self.rest and self.faults.find("restless-devices") is not None:
            self.rest = threading.Event()
            self.vm.memory.write(GENID_PAGE, os.urandom(4), 64)  # one is there before the answer
            threading.Thread(target=self.write_on, daemon=True).start()
        is_pause = action == "patch_vm" and params["state"] == "Paused"
        return self.do_late if is_pause and self.faults.find("late-devices") is not None else None

    def do_late(self):
        """The device writes to memory, before the next request is looked at."""
        time.sleep(0.05)
        self.vm.memory.write(GENID_PAGE, b"late", 64)
        self.options.log("The devices have nothing to do any more.")

    def write_on(self):
        """So does this one, again and again."""
        while not self.rest.wait(0.001):
            self.vm.memory.write(GENID_PAGE, os.urandom(4), 64)


def exit_on_sigbus():
    """SIGBUS ends the process with a status of its own: no huge page was left."""
    if os.uname().machine != "x86_64":
        return
    code = mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
    code.write(b"\xbf" + SIGBUS_STATUS.to_bytes(4, "little") + b"\xb8\xe7\x00\x00\x00\x0f\x05")  # exit_group(149)
    handler = ctypes.addressof(ctypes.c_char.from_buffer(code))
    libc.signal(ctypes.c_int(signal.SIGBUS), ctypes.c_void_p(handler))


def become_jailed():
    """The second half of the jail: everything is loaded, so the file system can be left."""
    root = os.environ.get("FC_STANDIN_CHROOT")
    if root:
        os.chroot(root)
        os.chdir("/")
        os.setgroups([])
        os.setgid(int(os.environ["FC_STANDIN_GID"]))
        os.setuid(int(os.environ["FC_STANDIN_UID"]))


def print_and_end(arguments, version_text):
    """What is answered without a VM. Return: whether it was."""
    version = parse_version(version_text)
    if "help" in arguments or "version" in arguments:
        print(f"Firecracker v{version_text.lstrip('v')}\n")
    elif "snapshot-version" in arguments:
        print("v" + ".".join(map(str, fc_standin_snapshot.format_of(version))))
    elif "describe-snapshot" in arguments:
        print("v" + ".".join(map(str, fc_standin_snapshot.read_state(arguments["describe-snapshot"])[0])))
    else:
        return False
    return True


def run(argv):
    """The exit status."""
    version_text = os.environ.get("FC_STANDIN_VERSION", "1.14.1")
    become_jailed()
    arguments = parse_arguments(argv)
    try:
        if print_and_end(arguments, version_text):
            return 0
    except fc_standin_api.Refused as e:
        print(f"Error: {e}", file=sys.stderr)
        return GENERIC
    options = Options(arguments, version_text)
    early = Faults(os.environ.get("FC_STANDIN_FAULT", "")).find("exit-at-start")
    if early is not None:
        print("Error: asked to end at once", file=sys.stderr)
        return int(early)
    if options.level not in LEVELS or "config-file" in arguments or "metadata" in arguments:
        print("Error: a value that cannot be had here", file=sys.stderr)
        return BAD_CONFIG
    if "log-path" in arguments:
        try:
            options.log_to(arguments["log-path"])
        except OSError as e:
            print(f"Error: Could not initialize logger: {e.strerror}", file=sys.stderr)
            return GENERIC
    options.log(f"Running Firecracker v{options.version_text}")
    exit_on_sigbus()
    try:
        program = Program(options)
    except OSError:
        text = f"Failed to open the API socket at: {options.api_sock}. Check that it is not already used."
        options.log(text)
        print(f"Error: RunWithApi({text})", file=sys.stderr)
        return GENERIC
    options.log("API server started.")
    program.server.serve()
    return 0


if __name__ == "__main__":
    try:
        sys.exit(run(sys.argv[1:]))
    except Usage as error:
        print(f"Error: ParseArguments({error})", file=sys.stderr)
        sys.exit(BAD_ARGUMENTS)
