# SPDX-License-Identifier: Apache-2.0
"""
fc_standin_vm.py - the virtual machine of the stand-in for Firecracker: what each action does, and when it may be asked for

All actions and all work of devices are done by the one thread that also answers requests, as in the real one the thread of
the VMM does: while it waits for a page, nothing is answered. The guest is another thread (fc_standin_guest.py), which posts
what it wants of the devices.
"""

import collections
import os

import fc_standin_balloon
import fc_standin_snapshot
from fc_standin_api import Refused
from fc_standin_guest import GENID_PAGE, Guest
from fc_standin_memory import MIB, PAGE, Memory, MemoryError_
from fc_standin_vsock import Vsock

PRE_BOOT = "The requested operation is not supported before starting the microVM."
POST_BOOT = "The requested operation is not supported after starting the microVM."
NOT_FOUND = "Invalid device ID: the device was not found"
ONLY_BEFORE = {"put_boot", "put_machine", "patch_machine", "put_cpu", "put_vsock", "put_entropy", "put_serial", "put_logger",
               "put_metrics", "put_mmds_config", "put_balloon", "put_hotplug", "load"}
ONLY_AFTER = {"get_statistics", "get_hinting", "get_hotplug", "patch_drive", "patch_pmem", "patch_net", "patch_vm",
              "patch_hotplug", "patch_balloon", "patch_statistics", "start_hinting", "stop_hinting", "create", "unplug"}
PLUGGED = {"put_drive", "put_pmem", "put_net"}  # afterwards only from 1.16 on, and with --enable-pci
BOOT_SPECIFIC = {"put_boot", "put_machine", "patch_machine", "put_vsock", "put_entropy", "put_mmds_config", "put_balloon",
                 "put_hotplug", "put_drive", "put_pmem", "put_net"}
DEFAULT_BOOT_ARGS = "reboot=k panic=1 nomodule 8250.nr_uarts=0 i8042.noaux i8042.nomux i8042.dumbkbd swiotlb=noforce"


def rust_error(e):
    """An OSError as it is said there."""
    return f"{e.strerror} (os error {e.errno})"


class Vm(fc_standin_balloon.Devices):
    """One microVM. options: the command line, as fc_standin.py has understood it."""

    def __init__(self, options, version):
        self.options, self.version = options, version
        self.state = "Not started"
        self.machine = {"vcpu_count": 1, "mem_size_mib": 128, "smt": False, "track_dirty_pages": False,
                        "huge_pages": "None"}
        self.boot, self.cpu, self.logger, self.metrics = None, None, None, None
        self.drives, self.pmem, self.nets = {}, {}, {}
        self.vsock = self.entropy = self.mmds_config = self.mmds = None
        self.vsock_device = None
        self.serial_path = None
        self.has_boot_config = False
        self.fatal = None  # set when this process cannot go on after the answer
        self.memory = self.guest = None
        self.posted = collections.deque()
        self.work_r, self.work_w = os.pipe()
        self.init_devices()

    # ---- the two threads

    def post(self, work):
        """From the guest: have the VMM's thread do something."""
        self.posted.append(work)
        os.write(self.work_w, b"w")

    def do_posted(self):
        """The VMM's thread: do what was posted."""
        os.read(self.work_r, 4096)
        while self.posted:
            self.posted.popleft()()

    def exit(self, status):
        """From anywhere: the process ends at once."""
        self.options.log(f"Firecracker exiting {'successfully' if status == 0 else 'with error'}. exit_code={status}")
        os._exit(status)

    def boot_args(self):
        """The kernel's command line."""
        return (self.boot or {}).get("boot_args") or DEFAULT_BOOT_ARGS

    # ---- every action comes through here

    def act(self, action, params):
        """Do it. Return: what to answer with, None for nothing; or Refused."""
        started = self.state != "Not started"
        if action == "act":
            action = {"InstanceStart": "start", "FlushMetrics": "flush", "SendCtrlAltDel": "reset"}[params["action_type"]]
        if started and (action in ONLY_BEFORE or action == "start"):
            raise Refused(POST_BOOT)
        if not started and (action in ONLY_AFTER or action in ("flush", "reset")):
            raise Refused(PRE_BOOT)
        if started and action in PLUGGED | {"unplug"}:
            if self.version < (1, 16):
                raise Refused(POST_BOOT)
            if not self.options.enable_pci:
                raise Refused("PCI is not enabled.")
        if action in BOOT_SPECIFIC:
            self.has_boot_config = True
        return getattr(self, "do_" + action)(params)

    # ---- what is read

    def do_get_info(self, _params):
        """GET /"""
        return {"id": self.options.id, "state": self.state, "vmm_version": self.options.version_text,
                "app_name": "Firecracker"}

    def do_get_version(self, _params):
        """GET /version"""
        return {"firecracker_version": self.options.version_text}

    def do_get_machine(self, _params):
        """GET /machine-config"""
        return self.machine

    def do_get_config(self, _params):
        """GET /vm/config"""
        config = {"balloon": self.balloon_config(), "drives": list(self.drives.values()), "boot-source": self.boot or {},
                  "cpu-config": self.cpu, "logger": self.logger, "machine-config": self.machine, "metrics": self.metrics,
                  "mmds-config": self.mmds_config, "network-interfaces": list(self.nets.values()), "vsock": self.vsock,
                  "entropy": self.entropy}
        if self.version >= (1, 14):
            config |= {"pmem": list(self.pmem.values()), "memory-hotplug": self.hotplug}
        return config

    def do_get_mmds(self, _params):
        """GET /mmds"""
        if self.state != "Not started" and self.mmds_config is None:
            raise Refused("The MMDS data store is not initialized.")
        return {} if self.mmds is None else self.mmds

    # ---- what is configured

    def do_put_boot(self, params):
        """PUT /boot-source: both files are opened at once"""
        for name, what in (("kernel_image_path", "The kernel file cannot be opened: "),
                           ("initrd_path", "The initrd file cannot be opened due to invalid path or invalid permissions. ")):
            try:
                if params[name] is not None:
                    os.close(os.open(params[name], os.O_RDONLY))
            except OSError as e:
                raise Refused(f"Boot source error: {what}{rust_error(e)}") from None
        if len(params["boot_args"] or "") >= 2048:
            raise Refused("Boot source error: The kernel command line is invalid: command line too large.")
        self.boot = params

    def _set_machine(self, machine):
        n = machine["vcpu_count"]
        if n == 0 or n > 32 or machine["smt"] and n > 1 and n % 2:
            raise Refused("The number of vCPUs must be greater than 0, less than 32 and must be 1 or an even number if SMT "
                          "is enabled.")
        if machine["mem_size_mib"] == 0 or machine["huge_pages"] != "None" and machine["mem_size_mib"] % 2:
            raise Refused("The memory size (MiB) is either 0, or not a multiple of the configured page size.")
        if self.balloon and self.balloon["amount_mib"] > machine["mem_size_mib"]:
            raise Refused("The memory size (MiB) is smaller than the previously set balloon device target size.")
        if self.balloon and machine["huge_pages"] == "2M" and self.version < (1, 14):
            raise Refused("Firecracker's huge pages support is incompatible with memory ballooning.")
        self.machine = {name: value for name, value in machine.items() if name != "cpu_template"}

    def do_put_machine(self, params):
        """PUT /machine-config"""
        self._set_machine(params)

    def do_patch_machine(self, params):
        """PATCH /machine-config"""
        self._set_machine(self.machine | {name: value for name, value in params.items() if value is not None})

    def do_put_cpu(self, params):
        """PUT /cpu-config"""
        self.cpu = params

    def do_put_drive(self, params):
        """PUT /drives/ID"""
        if params["socket"] is not None:
            if any(params[name] is not None for name in ("path_on_host", "rate_limiter", "io_engine")):
                raise Refused("Unable to create the block device: vhost-user takes no path_on_host, rate_limiter, io_engine")
        elif params["path_on_host"] is None:
            raise Refused("Unable to create the block device: Cannot create config")
        else:
            self.open_backing(params["path_on_host"], params["is_read_only"])
        others = [one for one in self.drives.values() if one["drive_id"] != params["drive_id"]]
        if params["is_root_device"] and any(one["is_root_device"] for one in others):
            raise Refused("A root block device already exists!")
        self.drives[params["drive_id"]] = params

    def open_backing(self, path, read_only):
        """A drive's file must be there, and writable unless it is not to be written to."""
        try:
            os.close(os.open(path, os.O_RDONLY if read_only else os.O_RDWR))
        except OSError as e:
            raise Refused("Unable to create the block device: Virtio backend error: Error manipulating the backing file: "
                          f"{rust_error(e)} {path}") from None

    def do_put_pmem(self, params):
        """PUT /pmem/ID"""
        self.open_backing(params["path_on_host"], params["read_only"])
        self.pmem[params["id"]] = params

    def do_put_net(self, params):
        """PUT /network-interfaces/ID: the name is not looked up"""
        others = [one for one in self.nets.values() if one["iface_id"] != params["iface_id"]]
        if params["guest_mac"] and any(one["guest_mac"] == params["guest_mac"] for one in others):
            raise Refused(f"The MAC address is already in use: {params['guest_mac']}")
        self.nets[params["iface_id"]] = params

    def do_put_vsock(self, params):
        """PUT /vsock"""
        if params["guest_cid"] < 3:
            raise Refused("Cannot create vsock device: guest_cid must be at least 3")
        self.vsock = params

    def bind_vsock(self):
        """A stale socket is in the way."""
        if self.vsock:
            try:
                self.vsock_device = Vsock(self.vsock["uds_path"], lambda: self.guest)
            except OSError as e:
                raise Refused(f"Error binding to the host-side Unix socket: {rust_error(e)}") from None

    def do_put_entropy(self, params):
        """PUT /entropy"""
        self.entropy = params

    def do_put_serial(self, params):
        """PUT /serial"""
        self.serial_path = params["serial_out_path"]

    def do_put_logger(self, params):
        """PUT /logger"""
        if params["log_path"] is not None:
            try:
                self.options.log_to(params["log_path"])
            except OSError as e:
                raise Refused(f"Failed to initialize logger: {rust_error(e)}") from None
        self.logger = params

    def do_put_metrics(self, params):
        """PUT /metrics: once"""
        if self.metrics:
            raise Refused("Cannot initialize the metrics system due to bad user input: Reinitialization of metrics not "
                          "allowed.")
        if self.version < (1, 14) and not os.path.exists(params["metrics_path"]):
            raise Refused("Cannot initialize the metrics system due to bad user input: No such file or directory "
                          "(os error 2)")
        self.metrics = params

    def do_put_mmds_config(self, params):
        """PUT /mmds/config"""
        unknown = [one for one in params["network_interfaces"] if one not in self.nets]
        if not params["network_interfaces"] or unknown:
            raise Refused("The MMDS network interfaces are none, or not ones that were configured.")
        self.mmds_config = params

    def _set_mmds(self, value):
        if self.state != "Not started" and self.mmds_config is None:
            raise Refused("The MMDS data store is not initialized.")
        if not isinstance(value, dict):
            raise Refused("The MMDS resource is not a JSON object.")
        self.mmds = value

    def do_put_mmds(self, params):
        """PUT /mmds"""
        self._set_mmds(params)

    def do_patch_mmds(self, params):
        """PATCH /mmds"""
        if self.mmds is None:
            raise Refused("The MMDS data store is not initialized.")
        self._set_mmds(self.mmds | (params if isinstance(params, dict) else {}))

    # ---- life

    def make_memory(self, machine, hotplug):
        """The regions of such a machine; nothing is mapped."""
        split = 3 * 1024 if self.version >= (1, 13) else 3328
        return Memory(machine["mem_size_mib"], machine["huge_pages"] == "2M", (hotplug or {}).get("total_size_mib", 0),
                      (hotplug or {}).get("slot_size_mib", 0), int(os.environ.get("FC_STANDIN_SPLIT_MIB", split)),
                      self.version)

    def make_guest(self):
        """The other thread, standing."""
        out = 1
        if self.serial_path:
            flags = os.O_WRONLY | os.O_NONBLOCK | (os.O_CREAT if self.version >= (1, 14) else 0)
            out = os.open(self.serial_path, flags, 0o666)
            os.set_blocking(out, True)
        self.guest = Guest(self, self.memory, 0, out)

    def do_start(self, _params):
        """InstanceStart"""
        if not self.boot:
            raise Refused("Cannot start microvm without kernel configuration.")
        if self.balloon and self.balloon["amount_mib"] > self.machine["mem_size_mib"]:
            raise Refused("Requested memory should be less than the guest's")
        self.memory = self.make_memory(self.machine, self.hotplug)
        try:
            self.memory.map_anonymous()
        except MemoryError_ as e:
            raise Refused(str(e)) from None
        self.bind_vsock()
        self.make_guest()
        self.memory.write(GENID_PAGE, os.urandom(16), PAGE - 64)
        self.guest.start()
        self.guest.resume()
        self.state = "Running"

    def do_flush(self, _params):
        """FlushMetrics"""

    def do_reset(self, _params):
        """SendCtrlAltDel: this guest reboots, and that ends the VMM"""
        self.post(lambda: self.exit(0))

    def do_patch_vm(self, params):
        """PATCH /vm: asking twice is no mistake"""
        if params["state"] == "Paused":
            self.pause()
        else:
            self.kick()
            self.guest.resume()
            self.state = "Running"

    def pause(self):
        """All of the guest stands when this returns."""
        if self.state == "Running":
            if not self.guest.pause():
                raise Refused("Failed to pause the vCPUs: vCPU did not answer in time.")
            self.state = "Paused"

    def do_create(self, params):
        """PUT /snapshot/create"""
        fc_standin_snapshot.create(self, params)

    def do_load(self, params):
        """PUT /snapshot/load: a failure is the end, unless nothing was tried"""
        if self.has_boot_config:
            raise Refused("Load snapshot error: Loading a microVM snapshot not allowed after configuring boot-specific "
                          "resources.")
        try:
            fc_standin_snapshot.load(self, params)
        except (MemoryError_, Refused) as e:
            self.fatal = 1
            raise Refused(f"Load snapshot error: Failed to restore from snapshot: {e}") from None
        self.state = "Paused"
        if params["resume_vm"]:
            self.do_patch_vm({"state": "Resumed"})

    # ---- devices of a running one

    def do_patch_drive(self, params):
        """PATCH /drives/ID"""
        if params["drive_id"] not in self.drives:
            raise Refused(NOT_FOUND)
        drive = self.drives[params["drive_id"]]
        if params["path_on_host"] is not None:
            self.open_backing(params["path_on_host"], drive["is_read_only"])
        drive.update({name: value for name, value in params.items() if value is not None})

    def do_patch_net(self, params):
        """PATCH /network-interfaces/ID"""
        if params["iface_id"] not in self.nets:
            raise Refused(NOT_FOUND)
        self.nets[params["iface_id"]].update({name: value for name, value in params.items() if value is not None})

    def do_patch_pmem(self, params):
        """PATCH /pmem/ID"""
        if params["id"] not in self.pmem:
            raise Refused(NOT_FOUND)
        self.pmem[params["id"]].update({name: value for name, value in params.items() if value is not None})

    def do_unplug(self, params):
        """DELETE /drives/ID and the like"""
        devices = {"drives": self.drives, "pmem": self.pmem, "network-interfaces": self.nets}[params["kind"]]
        if params["id"] not in devices:
            raise Refused(NOT_FOUND)
        if devices[params["id"]].get("is_root_device"):
            raise Refused("Cannot unplug the root device.")
        del devices[params["id"]]

    def memory_mib(self):
        """How much memory the guest was given."""
        return self.memory.n_dram * PAGE // MIB
