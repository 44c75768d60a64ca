#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""
bench_restore.py - from a template to its guest's first answer, with a real Linux guest in QEMU

    bench_restore.py [--thaw FILE] [--dir DIR] [-- OPTIONS of `thaw bench restore`]

Builds a template of Debian's kernel (tools/guest_image.py) in a store of its own, measures, and removes both. --dir must be
on a disk for the cold half: $TMPDIR or /var/tmp. With `firecracker` on PATH, /dev/kvm and the two files that
$FIRECRACKER_KERNEL and $FIRECRACKER_INITRD name (a kernel that Firecracker boots, an initramfs with a shell that says
guest-is-ready) it measures that as well, against Firecracker's own File backend.
"""

import argparse
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tools"))

import guest_image  # noqa: E402

MEMORY_MIB = 256


def run(*argv):
    """Run a program whose output is for whoever reads this one's."""
    status = subprocess.run([str(word) for word in argv], check=False).returncode
    if status != 0:
        sys.exit(f"bench_restore: '{argv[0]} {argv[1]} {argv[2]}' ended with status {status}")


def measure(thaw, folder, name, build, options):
    """Build a template and restore it."""
    store = folder / f"store-{name}"
    run(thaw, "template", "build", name, "--store", store, "--memory", MEMORY_MIB, "--ready", guest_image.READY, *build)
    run(thaw, "bench", "restore", name, "--store", store, "--dir", folder, *options)


def firecracker_files():
    """What a template of Firecracker is built of, or None, with a line that says what is missing."""
    kernel, initrd = os.environ.get("FIRECRACKER_KERNEL"), os.environ.get("FIRECRACKER_INITRD")
    if not shutil.which("firecracker") or not os.access("/dev/kvm", os.R_OK | os.W_OK):
        print("bench_restore: Firecracker is not measured: no `firecracker` on PATH, or no /dev/kvm")
    elif not kernel or not initrd:
        print("bench_restore: Firecracker is not measured: $FIRECRACKER_KERNEL and $FIRECRACKER_INITRD are not set")
    else:
        return ["--vmm", "firecracker", "--kernel", kernel, "--initrd", initrd]
    return None


def main():
    parser = argparse.ArgumentParser(description="from a template to its guest's first answer")
    parser.add_argument("--thaw", type=pathlib.Path, default=ROOT / "build/thaw")
    parser.add_argument("--dir", default=os.environ.get("TMPDIR") or "/var/tmp")
    parser.add_argument("options", nargs="*", help="of `thaw bench restore`, behind --")
    arguments = parser.parse_args()

    try:
        image = guest_image.guest_image()
    except guest_image.GuestImageError as e:
        print(f"bench_restore: no guest: {e}")
        sys.exit(77)
    with tempfile.TemporaryDirectory(prefix="thaw-", dir=arguments.dir) as name:
        folder = pathlib.Path(name)
        # QEMU punches holes into a file that it maps where the guest reports pages: its own way is measured without.
        build = ["--vmm", "qemu", "--accel", "tcg", "--kernel", image.kernel, "--initrd", image.initrd,
                 "--free-page-reporting", "off"]
        measure(arguments.thaw, folder, "qemu", build, arguments.options)
        build = firecracker_files()
        if build:
            measure(arguments.thaw, folder, "firecracker", build, arguments.options)


if __name__ == "__main__":
    main()
