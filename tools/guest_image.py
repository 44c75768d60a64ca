#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Get what a small Linux guest needs: Debian's cloud kernel, and an initramfs made of busybox and a few modules.

The kernel package is the one that linux-image-cloud-amd64 depends on today; its name changes with every update. It is
downloaded with apt-get and unpacked, not installed. The result is kept in $XDG_CACHE_HOME/thaw (or ~/.cache/thaw), in
one folder for each combination of kernel, busybox and recipe, and is used again from there.

A folder is built under a temporary name and renamed when it is complete, so that several runs at once do no harm and
a run that was interrupted leaves nothing that could be taken for a whole image.

    tools/guest_image.py            prints the folder with vmlinuz and initrd.gz
"""

import argparse
import dataclasses
import gzip
import hashlib
import lzma
import os
import pathlib
import re
import shutil
import stat
import subprocess
import sys
import tempfile

META_PACKAGE = "linux-image-cloud-amd64"
BUSYBOX = pathlib.Path("/bin/busybox")
# The guest needs a balloon behind PCI; what these modules need in turn is read from the modules.
MODULES = ("virtio_pci", "virtio_balloon")
READY = "guest-is-ready"

INIT = f"""#!/bin/busybox sh
# The guest's first process: mounts, the balloon's driver, a shell on the serial line.
/bin/busybox --install -s /bin
export PATH=/bin HOME=/root
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev 2>/dev/null
mount -t tmpfs -o size=90% tmpfs /tmp
for module in $(cat /lib/modules.order); do
    insmod /lib/$module || echo "insmod $module failed"
done
cd /tmp
echo {READY}
while :; do setsid cttyhack sh; done
"""


class GuestImageError(Exception):
    """Says in one line what is missing and what to do about it."""


@dataclasses.dataclass(frozen=True)
class GuestImage:
    """What QEMU's -kernel and -initrd want."""

    kernel: pathlib.Path
    initrd: pathlib.Path
    release: str  # such as 6.1.0-18-cloud-amd64


def cache_dir():
    base = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return pathlib.Path(base) / "thaw"


def run(argv, **kwargs):
    """The output of a command; GuestImageError with its last words if it fails."""
    try:
        done = subprocess.run(argv, check=True, capture_output=True, text=True, timeout=120, **kwargs)
    except FileNotFoundError:
        raise GuestImageError(f"{argv[0]} is not installed") from None
    except subprocess.TimeoutExpired:
        raise GuestImageError(f"'{' '.join(argv)}' did not end within 120 s") from None
    except subprocess.CalledProcessError as e:
        words = [line for line in e.stderr.splitlines() if line.strip()] or ["no message"]
        raise GuestImageError(f"'{' '.join(argv)}' failed: {words[-1]}") from None
    return done.stdout


def kernel_package():
    """The package with the current cloud kernel, or None if apt knows none."""
    try:
        text = run(["apt-cache", "show", "--no-all-versions", META_PACKAGE])
    except GuestImageError:
        return None
    found = re.search(r"^Depends:.*?\b(linux-image-[0-9][^ ,]*)", text, re.MULTILINE)
    return found.group(1) if found else None


def update_package_lists():
    as_root = [] if os.geteuid() == 0 else ["sudo", "-n"]
    run(as_root + ["apt-get", "update", "-q"])


def recipe_digest():
    """Changes when an image built earlier would be another one today."""
    digest = hashlib.sha256()
    for part in (INIT.encode(), repr(MODULES).encode(), BUSYBOX.read_bytes()):
        digest.update(hashlib.sha256(part).digest())
    return digest.hexdigest()[:12]


# --- kernel modules ---------------------------------------------------------------------------------------------------


def module_files(root):
    """{name: path} of all modules below root; - and _ mean the same in module names."""
    found = {}
    for path in root.rglob("*.ko*"):
        name = path.name.split(".ko")[0].replace("-", "_")
        if path.suffix in (".ko", ".xz"):
            found[name] = path
    return found


def module_bytes(path):
    data = path.read_bytes()
    return lzma.decompress(data) if path.suffix == ".xz" else data


def module_needs(data):
    """The modules that must be loaded before, from the module's own note."""
    found = re.search(rb"\0depends=([^\0]*)\0", data)
    return [name.decode().replace("-", "_") for name in found.group(1).split(b",") if name] if found else []


def modules_in_order(root, wanted):
    """[(name, bytes)] so that each comes after what it needs. A module that is not there is built into the kernel."""
    files = module_files(root)
    order = {}

    def add(name):
        if name in order or name not in files:
            return
        data = module_bytes(files[name])
        for need in module_needs(data):
            add(need)
        order[name] = data

    for name in wanted:
        add(name)
    return list(order.items())


# --- the initramfs ----------------------------------------------------------------------------------------------------


def cpio_member(number, name, mode, data):
    """One file in the kernel's "newc" archive format."""
    fields = (number, mode, 0, 0, 1, 0, len(data), 0, 0, 0, 0, len(name) + 1, 0)
    head = b"070701" + b"".join(b"%08X" % field for field in fields) + name.encode() + b"\0"
    return head + b"\0" * (-len(head) % 4) + data + b"\0" * (-len(data) % 4)


def initramfs(modules):
    """The archive, compressed."""
    folder, program, plain = stat.S_IFDIR | 0o755, stat.S_IFREG | 0o755, stat.S_IFREG | 0o644
    members = [(name, folder, b"") for name in ("bin", "dev", "lib", "proc", "root", "sys", "tmp")]
    members += [("bin/busybox", program, BUSYBOX.read_bytes()), ("init", program, INIT.encode())]
    members += [(f"lib/{name}.ko", plain, data) for name, data in modules]
    order = "".join(f"{name}.ko\n" for name, _ in modules)
    members += [("lib/modules.order", plain, order.encode())]
    archive = b"".join(cpio_member(i + 1, *member) for i, member in enumerate(members))
    archive += cpio_member(0, "TRAILER!!!", 0, b"")
    return gzip.compress(archive, compresslevel=1, mtime=0)


# --- putting it together ----------------------------------------------------------------------------------------------


def build(package, folder):
    """Fill folder with vmlinuz and initrd.gz from the kernel package."""
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".download-") as work:
        # apt-get hands the download to another user where it can, who must be able to write here.
        os.chmod(work, 0o755)
        try:
            run(["apt-get", "download", "-q", package], cwd=work)
        except GuestImageError as e:
            raise GuestImageError(f"cannot download the guest kernel, try 'apt-get update': {e}") from None
        debs = list(pathlib.Path(work).glob("*.deb"))
        if len(debs) != 1:
            raise GuestImageError(f"apt-get download {package} brought {len(debs)} files, expected one")
        root = pathlib.Path(work) / "root"
        run(["dpkg", "-x", str(debs[0]), str(root)])
        kernels = list((root / "boot").glob("vmlinuz-*"))
        if len(kernels) != 1:
            raise GuestImageError(f"{package} has {len(kernels)} kernels in /boot, expected one")
        (folder / "initrd.gz").write_bytes(initramfs(modules_in_order(root, MODULES)))
        shutil.copyfile(kernels[0], folder / "vmlinuz")
        os.chmod(folder, 0o755)


def image_in(folder):
    release = folder.name.removeprefix("guest-linux-image-").rsplit("-", 1)[0]
    return GuestImage(folder / "vmlinuz", folder / "initrd.gz", release)


def guest_image(say=lambda line: None):
    """The GuestImage, from the cache or made. say() gets a line before anything slow. Raises GuestImageError."""
    if os.uname().machine != "x86_64":
        raise GuestImageError(f"the test guest is x86-64, this machine is {os.uname().machine}")
    if not BUSYBOX.exists():
        raise GuestImageError(f"{BUSYBOX} is missing: install busybox-static")
    if subprocess.run(["ldd", str(BUSYBOX)], capture_output=True, check=False).returncode == 0:
        raise GuestImageError(f"{BUSYBOX} needs shared libraries: install busybox-static")
    cache = cache_dir()
    digest = recipe_digest()
    package = kernel_package()
    if package is None:
        # Without package lists an image made earlier is as good as any.
        made = sorted(cache.glob(f"guest-*-{digest}"), key=lambda path: path.stat().st_mtime)
        if made:
            return image_in(made[-1])
        say("asking Debian for the current kernel's name")
        update_package_lists()
        package = kernel_package()
    if package is None:
        raise GuestImageError(f"apt knows no package {META_PACKAGE}, not even after 'apt-get update'")

    final = cache / f"guest-{package}-{digest}"
    if not final.is_dir():
        say(f"downloading {package}")
        cache.mkdir(parents=True, exist_ok=True)
        folder = pathlib.Path(tempfile.mkdtemp(dir=cache, prefix=".guest-"))
        try:
            build(package, folder)
            os.rename(folder, final)
        except OSError as e:
            # Somebody else was faster: theirs is the same.
            if not final.is_dir():
                raise GuestImageError(f"cannot make {final}: {e}") from None
        finally:
            shutil.rmtree(folder, ignore_errors=True)
    return image_in(final)


def main():
    parser = argparse.ArgumentParser(description="Get a kernel and an initramfs for the test guest.")
    parser.parse_args()
    try:
        image = guest_image(say=lambda line: print(line, file=sys.stderr))
    except GuestImageError as e:
        print(f"guest_image: {e}", file=sys.stderr)
        return 1
    print(image.kernel.parent)
    return 0


if __name__ == "__main__":
    sys.exit(main())
