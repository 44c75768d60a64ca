# SPDX-License-Identifier: Apache-2.0
"""
fc_standin_snapshot.py - snapshots of the stand-in for Firecracker

A state file: magic, format version, JSON, CRC. Like the real one it is made for the program that wrote it; only the version
can be asked for (--describe-snapshot). A memory file: see fc_standin_memory.py.
"""

import json
import os
import struct
import zlib

from fc_standin_api import Refused
from fc_standin_guest import GENID_PAGE
from fc_standin_memory import PAGE, SEED, MemoryError_

MAGIC = 0x0710_1984_8664_0000
HEAD = struct.Struct("<QHHHQ")
FORMATS = {10: 3, 11: 5, 12: 6, 13: 8, 14: 8, 15: 9, 16: 10, 17: 11}  # by minor version of the program
PARTS = ("machine", "drives", "pmem", "nets", "vsock", "entropy", "mmds_config")


def format_of(version):
    """The format that a version writes: (major, minor, patch)."""
    return FORMATS.get(version[1], 11), 0, 0


def read_state(path):
    """(format version, state) of a state file."""
    what = "Failed to get snapshot state from file: "
    try:
        with open(path, "rb") as file:
            data = file.read()
    except OSError as e:
        raise Refused(f"{what}Failed to open snapshot file: {e.strerror} (os error {e.errno})") from None
    if len(data) < HEAD.size + 4 or HEAD.unpack_from(data)[0] != MAGIC:
        raise Refused(f"{what}Failed to load snapshot state from file: Magic value does not match arch")
    if zlib.crc32(data[:-4]) != int.from_bytes(data[-4:], "little"):
        raise Refused(f"{what}Failed to load snapshot state from file: CRC64 validation failed")
    _, *version, n = HEAD.unpack_from(data)
    return tuple(version), json.loads(data[HEAD.size:HEAD.size + n])


def write_state(path, version, state):
    """Write a state file."""
    text = json.dumps(state).encode()
    data = HEAD.pack(MAGIC, *version, len(text)) + text
    try:
        with open(path, "wb") as file:
            file.write(data + zlib.crc32(data).to_bytes(4, "little"))
    except OSError as e:
        raise Refused("Create snapshot error: Cannot perform open on the snapshot backing file: "
                      f"{e.strerror} (os error {e.errno})") from None


def create(vm, params):
    """The state first, then the memory; the VM stands before and after."""
    if vm.state != "Paused":
        raise Refused("Create snapshot error: Cannot save the microVM state: Operation not allowed: save/restore "
                      "unavailable while running")
    tracked = vm.machine["track_dirty_pages"]
    if params["snapshot_type"] == "Diff" and not tracked and vm.version < (1, 13):
        raise Refused("Create snapshot error: Diff snapshots are not allowed on uVMs with dirty page tracking disabled.")
    if any(drive["socket"] for drive in vm.drives.values()):
        raise Refused("Create snapshot error: Cannot save the microVM state: vhost-user devices cannot be saved")
    state = {name: getattr(vm, name) for name in PARTS}
    state |= {"devices": vm.device_state(), "guest": vm.guest.state(), "boot": vm.boot, "seed": SEED,
              "split": [region.n_pages for region in vm.memory.regions]}
    write_state(params["snapshot_path"], format_of(vm.version), state)
    try:
        vm.memory.save(params["mem_file_path"], params["snapshot_type"] == "Diff", tracked, vm.plugged_slots())
    except MemoryError_ as e:
        raise Refused(f"Create snapshot error: {e}") from None


def check_loadable(vm, version, state, params):
    """Refused if this VMM cannot go on with that state."""
    major, minor, _ = format_of(vm.version)
    if version[0] != major or version[1] > minor:
        raise Refused("Failed to get snapshot state from file: Failed to load snapshot state from file: Snapshot version "
                      f"{'.'.join(map(str, version))} is not supported by this one, {major}.{minor}.0")
    for override in params.get("network_overrides") or ():
        if override["iface_id"] not in state["nets"]:
            raise Refused(f"Unknown Network Device: {override['iface_id']}")
        state["nets"][override["iface_id"]]["host_dev_name"] = override["host_dev_name"]
    if params.get("vsock_override"):
        if not state["vsock"]:
            raise Refused("Unknown Vsock Device")
        state["vsock"]["uds_path"] = params["vsock_override"]["uds_path"]
    if state["machine"]["huge_pages"] == "2M" and params["backend"]["backend_type"] == "File":
        raise Refused("Failed to load guest memory: Cannot restore hugetlbfs backed snapshot by mapping the memory file. "
                      "Please use uffd.")


def touch_devices(vm):
    """What the VMM's own thread touches before it answers: rings and buffers of devices, and a new generation id."""
    vm.memory.read(0)
    vm.memory.read(vm.memory.n_dram - 1)
    vm.memory.write(GENID_PAGE, os.urandom(16), PAGE - 64)


def load(vm, params):
    """In the order of the real one: state, memory, the pager, devices."""
    params["backend"] = params["mem_backend"] or {"backend_type": "File", "backend_path": params["mem_file_path"]}
    version, state = read_state(params["snapshot_path"])
    check_loadable(vm, version, state, params)
    for name in PARTS:
        setattr(vm, name, state[name])
    if vm.version >= (1, 13):  # whether writes are tracked is not kept
        vm.machine["track_dirty_pages"] = params.get("track_dirty_pages") or params["enable_diff_snapshots"]
    else:
        vm.machine["track_dirty_pages"] = params["enable_diff_snapshots"]
    vm.restore_devices(state["devices"])
    vm.memory = vm.make_memory(vm.machine, vm.hotplug)
    if [region.n_pages for region in vm.memory.regions] != state["split"]:
        raise Refused("Invalid snapshot state: the memory regions are others")
    if params["backend"]["backend_type"] == "Uffd":
        vm.memory.map_uffd(params["backend"]["backend_path"], vm.balloon is not None)
    else:
        vm.memory.map_file(params["backend"]["backend_path"])
    for slot in vm.plugged_slots():
        n = vm.memory.regions[-1].slot_pages
        vm.memory.protect(vm.memory.n_dram + slot * n, n, True)
    for drive in vm.drives.values():
        vm.open_backing(drive["path_on_host"], drive["is_read_only"])
    for pmem in vm.pmem.values():
        vm.open_backing(pmem["path_on_host"], pmem["read_only"])
    vm.bind_vsock()
    touch_devices(vm)
    vm.make_guest()
    vm.boot = {"boot_args": None}
    vm.guest.restore(state["guest"])
    vm.guest.start()
