#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Restore a real Linux guest with every page of its memory served by Thaw, and show what happens.

    tools/demo.py --thaw PATH --preload PATH --out DIR

`make demo` installs what is needed, builds, and runs this. A Debian kernel with a busybox userland boots in QEMU, a
snapshot is taken, QEMU ends. A second QEMU restores it with empty memory: `thaw serve` fills in the pages that the
guest touches. The guest then checks its files, frees memory, and uses memory again. The guest is emulated (TCG) so
that it runs on every machine; DEMO_ACCEL=kvm asks for KVM, and falls back with one line if the guest does not boot.
"""

import argparse
import contextlib
import hashlib
import os
import pathlib
import signal
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "tests/lib"), str(ROOT / "tools")]

import guest  # noqa: E402
import guest_image  # noqa: E402

MIB = 1024 * 1024
GUEST_MIB = 384
FILE_MIB = 208  # what the guest keeps in memory, and frees later
NEW_MIB = 160  # what it writes then: more than was free before, so that freed memory is used again
DEMO_SECONDS = 150
LINE = b"this line is written into memory that was given back before\n"

START = time.monotonic()


class DemoError(Exception):
    """One line: what is wrong."""


def say(text):
    print(f"[{time.monotonic() - START:5.1f} s] {text}", flush=True)


def mib(n_bytes):
    return f"{n_bytes / MIB:.0f} MiB"


def microseconds(ns):
    return f"{ns / 1000:.0f} us"


def table(rows):
    """Lines of a two-column table."""
    width = max(len(name) for name, _ in rows)
    return "\n".join(f"  {name:<{width}}  {value}" for name, value in rows)


# --- the story, step by step ------------------------------------------------------------------------------------------


@contextlib.contextmanager
def booted(image, folder):
    """The guest, with KVM if that was asked for and works, else with TCG."""
    settings = {"mem_mib": [GUEST_MIB], "smp": 2}
    wish = os.environ.get("DEMO_ACCEL", "tcg")
    if wish not in ("tcg", "kvm"):
        raise DemoError(f"DEMO_ACCEL={wish}: expected tcg or kvm")
    if wish == "kvm":
        say(f"booting Linux {image.release} in QEMU with KVM, as DEMO_ACCEL asks")
        try:
            with guest.boot(image, folder, accel="kvm", attempts=1, seconds=15, **settings) as vm:
                yield vm
                return
        except guest.BootError as e:
            say(f"KVM does not boot the guest here ({e}): TCG instead")
    else:
        say("QEMU emulates the CPU (TCG), which works on every machine; DEMO_ACCEL=kvm tries KVM")
        say(f"booting Linux {image.release}, {GUEST_MIB} MiB, 2 vCPUs")
    with guest.boot(image, folder, **settings) as vm:
        yield vm


def make_snapshot(image, folder):
    """Boot a guest, give it files to remember, stop it."""
    with booted(image, folder) as vm:
        say("the guest is up; it fills a file with random bytes and notes the checksum")
        vm.console.run("dd if=/dev/urandom of=/tmp/seed bs=1M count=16 2>/dev/null")
        vm.console.run(f"cat $(yes /tmp/seed | head -n {FILE_MIB // 16}) >/tmp/big", 60)
        vm.console.run("md5sum /tmp/seed /tmp/big >/tmp/sums", 60)
        snapshot = guest.take_snapshot(vm, folder)
    data = os.stat(snapshot.memory).st_blocks * 512
    say(f"snapshot taken: memory file of {GUEST_MIB} MiB ({mib(data)} of it not zero); QEMU has ended")
    return snapshot


def read_files(restored):
    """The guest checks its files from before the snapshot: pages come in as it reads."""
    say("the guest checks its files from before the snapshot")
    began = time.monotonic()
    restored.vm.console.start("md5sum -c /tmp/sums")
    watch(restored, lambda _: restored.vm.console.has_finished(), "pages_installed", "pages installed")
    answer = restored.vm.console.finish()
    if answer.count(": OK") != 2:
        raise DemoError(f"a file from before the snapshot is damaged: {answer.strip()}")
    say(f"both checksums are right, {time.monotonic() - began:.1f} s")


def watch(restored, done, name, words):
    """Until done(counters): a line each second about the counter called name."""
    shown, next_line = None, time.monotonic() + 0.5
    deadline = time.monotonic() + 60
    while not done(counters := restored.pager.stats()["counters"]):
        if time.monotonic() > deadline:
            raise DemoError(f"nothing after 60 s while watching {words}")
        if time.monotonic() >= next_line and counters[name] != shown:
            shown, next_line = counters[name], time.monotonic() + 1.0
            say(f"  {shown} {words}, guest RAM on the host: {mib(restored.vm.guest_bytes())}")
        time.sleep(0.1)


class Settled:
    """True when a number has reached a target and then not moved for a second."""

    def __init__(self, target):
        self.target, self.last, self.since = target, None, 0.0

    def __call__(self, number):
        if number != self.last:
            self.last, self.since = number, time.monotonic()
        return number >= self.target and time.monotonic() - self.since > 1.0


def free_memory(restored):
    """The guest removes its big file; the kernel reports free memory, QEMU discards it, thaw hears of it."""
    say(f"the guest removes its file of {FILE_MIB} MiB; its kernel reports free memory after about 2 s")
    before = restored.pager.stats()["counters"]
    settled = Settled(before["pages_removed"] + FILE_MIB * MIB // 4096 * 7 // 10)
    restored.vm.console.run("rm /tmp/big")
    watch(restored, lambda c: settled(c["pages_removed"]), "pages_removed", "pages given back")
    after = restored.pager.stats()["counters"]
    pages, pieces = after["pages_removed"] - before["pages_removed"], after["removes"] - before["removes"]
    say(f"the guest has given back {mib(pages * 4096)} in {pieces} pieces: from here on that memory reads as zeroes")


def draw(options, restored):
    """The picture of guest memory at this moment."""
    picture = options.out / "guest-memory.png"
    argv = [options.thaw, "map", str(restored.pager.pid), "--state", restored.pager.folder / "run", "-o", picture]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=30, check=False)
    if done.returncode != 0 or not picture.exists():
        raise DemoError(f"thaw map failed: {done.stderr.strip() or done.stdout.strip()}")
    say(f"picture of guest memory: {picture}")


def use_again(restored):
    """New data goes into memory that was given back: each page comes up as zero first."""
    say(f"the guest writes {NEW_MIB} MiB of new data")
    run = restored.vm.console.run
    block = (LINE * (MIB // len(LINE) + 1))[:MIB]
    run(f"yes '{LINE.decode().strip()}' | head -c {MIB} >/tmp/block")
    run(f"cat $(yes /tmp/block | head -n {NEW_MIB}) >/tmp/new")
    if run("md5sum </tmp/new").split()[0] != hashlib.md5(block * NEW_MIB).hexdigest():
        raise DemoError("what the guest wrote reads otherwise")
    run("md5sum -c /tmp/seed.sum")
    say("it reads back right, and so does the file from before the snapshot that is still there")


def restored_guest(options, snapshot, folder):
    """Restore and tell; the rows of the table."""
    say("restoring: QEMU starts with empty memory, thaw serve has the memory file (--track wp)")
    argv = guest.thaw_argv(options.thaw, "--track", "wp")
    with guest.restore(snapshot, folder / "r", argv, options.preload) as restored:
        first = restored.pager.stats()["counters"]
        after_start = restored.vm.guest_bytes()
        say(
            f"the guest answers {restored.seconds_to_answer * 1000:.0f} ms after QEMU was started,"
            f" with {mib(after_start)} of its {GUEST_MIB} MiB in memory ({first['faults']} page faults)"
        )
        restored.vm.console.run("grep seed /tmp/sums >/tmp/seed.sum")
        read_files(restored)
        before = restored.vm.guest_bytes()
        free_memory(restored)
        guest.wait_for(lambda: restored.vm.guest_bytes() < before - FILE_MIB * MIB // 2, 10, "host memory falls")
        after = restored.vm.guest_bytes()
        draw(options, restored)
        use_again(restored)
        end = restored.vm.guest_bytes()
    stats = restored.pager.last_stats()
    say("QEMU was killed; thaw serve noticed and ended by itself")
    return table_rows(restored, stats, (after_start, before, after, end))


def table_rows(restored, stats, host):
    """host: bytes of host memory with guest RAM: at the first answer, before and after freeing, at the end."""
    counters, latency = stats["counters"], stats["fault_ns"]
    if counters["pages_refaulted"] == 0 or counters["pages_removed"] == 0:
        raise DemoError("no page was given back and used again: the demo has not shown what it should")
    return [
        ("restored guest's first answer", f"{restored.seconds_to_answer * 1000:.0f} ms after QEMU's start"),
        ("page faults answered", f"{counters['faults']} missing, {counters['wp_faults']} first writes"),
        ("pages installed from the image", f"{counters['pages_installed']} of {stats['pages']}"),
        ("pages installed as zero", f"{counters['pages_zeroed']}"),
        ("pages given back by the guest", f"{counters['pages_removed']} in {counters['removes']} discards"),
        ("  of them used again, from zero", f"{counters['pages_refaulted']}"),
        ("guest RAM", f"{GUEST_MIB} MiB"),
        ("host memory for it: at the first answer", mib(host[0])),
        ("  after the guest read its files", mib(host[1])),
        ("  after it freed memory", mib(host[2])),
        ("  after it wrote new data", mib(host[3])),
        ("fault latency, read to installed", f"p50 {microseconds(latency['p50'])}, p99 {microseconds(latency['p99'])}"),
    ]


def check_host(options):
    """What would only be noticed after the guest has booted."""
    for path in (options.thaw, options.preload):
        if not path.exists():
            raise DemoError(f"{path} does not exist: build first")
    device = pathlib.Path("/dev/userfaultfd")
    if device.exists() and not os.access(device, os.R_OK | os.W_OK):
        raise DemoError(f"{device} may not be opened: run as root, or give this user read and write permission on it")


def demo(options):
    image = guest_image.guest_image(say)
    options.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="thaw-demo-") as path:
        folder = pathlib.Path(path)
        rows = restored_guest(options, make_snapshot(image, folder), folder)
    print()
    print(table(rows))
    print()
    print(f"  picture of guest memory after it freed memory: {options.out / 'guest-memory.png'}")
    print()
    print("demo: ok")


def main():
    parser = argparse.ArgumentParser(description="Restore a Linux guest with its memory served by Thaw.")
    parser.add_argument("--thaw", type=pathlib.Path, required=True, help="the thaw program")
    parser.add_argument("--preload", type=pathlib.Path, required=True, help="libthaw-preload.so")
    parser.add_argument("--out", type=pathlib.Path, required=True, help="where the picture goes")
    options = parser.parse_args()
    options.thaw, options.preload = options.thaw.resolve(), options.preload.resolve()

    def stop(number, _frame):
        raise DemoError("stopped" if number == signal.SIGTERM else f"not done after {DEMO_SECONDS} s")

    signal.signal(signal.SIGALRM, stop)
    signal.signal(signal.SIGTERM, stop)
    signal.alarm(DEMO_SECONDS)
    try:
        check_host(options)
        demo(options)
    except (DemoError, guest.GuestError, guest_image.GuestImageError, OSError) as e:
        print(f"demo: {e}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("demo: interrupted", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
