# SPDX-License-Identifier: Apache-2.0
"""
fc_standin_balloon.py - the devices through which the stand-in's guest gives memory back: balloon and hot-plugged memory

Each has two halves. The driver's half runs on the guest's thread (balloon_driver, hotplug_driver): it decides which pages.
The device's half runs on the VMM's thread: it discards them, in the pieces in which the real one does.

FC_STANDIN_BALLOON says what the guest's driver is like: "none": there is none; "deaf": it does not know hinting;
"slow-hint": it hints a first range and no more until it is stopped. FC_STANDIN_BALLOON_STRIDE=2: it takes every other page.
"""

import os

from fc_standin_api import Refused
from fc_standin_memory import MIB, PAGE, page_runs

STOP, DONE = 0, 1
DESCRIPTOR_PAGES, BATCH_PAGES = 256, 2048
HINT_PAGES = 1024
MIB_PAGES = MIB // PAGE


class Devices:
    """The part of a Vm that gives memory back."""

    def init_devices(self):
        """Nothing is configured."""
        self.balloon = None  # its configuration
        self.actual_pages = 0
        self.driver_up = False
        self.host_cmd, self.guest_cmd, self.last_cmd, self.acknowledge = STOP, None, 0, True
        self.hotplug = None
        self.requested_mib = self.plugged_mib = 0
        self.driver = os.environ.get("FC_STANDIN_BALLOON", "")
        self.stride = int(os.environ.get("FC_STANDIN_BALLOON_STRIDE", "1"))

    def device_state(self):
        """For the vmstate file."""
        return {"balloon": self.balloon, "actual_pages": self.actual_pages, "driver_up": self.driver_up,
                "last_cmd": self.last_cmd, "hotplug": self.hotplug, "requested_mib": self.requested_mib,
                "plugged_mib": self.plugged_mib}

    def restore_devices(self, state):
        """The same, the other way round. A run of hinting does not outlive a snapshot."""
        for name, value in state.items():
            setattr(self, name, value)
        self.host_cmd, self.guest_cmd = (DONE if self.version < (1, 15) and self.hints() else STOP), None

    def kick(self):
        """A restored VM goes on."""
        if self.version >= (1, 15) and self.hints() and self.host_cmd == STOP:
            self.host_cmd = DONE

    def driver_is_up(self):
        """The guest has found its balloon."""
        self.driver_up = self.driver != "none"
        if self.driver_up and self.hints() and self.version < (1, 15):
            self.host_cmd = DONE
        self.guest.wake()

    def reports(self):
        """Whether freed pages are reported."""
        return bool(self.balloon and self.balloon.get("free_page_reporting") and self.driver != "none")

    def hints(self):
        """Whether there is hinting."""
        return bool(self.balloon and self.balloon.get("free_page_hinting"))

    def deflates_on_oom(self):
        """Whether the guest may take pages back by itself."""
        return bool(self.balloon and self.balloon["deflate_on_oom"])

    def plugged_pages(self):
        """How much memory the guest has beyond what it was born with."""
        return self.plugged_mib * MIB_PAGES

    # ---- requests

    def balloon_config(self):
        """What GET answers, or None."""
        if not self.balloon:
            return None
        names = ["amount_mib", "deflate_on_oom", "stats_polling_interval_s"]
        if self.version >= (1, 14):
            names += ["free_page_hinting", "free_page_reporting"]
        return {name: self.balloon[name] for name in names}

    def _balloon(self):
        """The balloon that a driver uses, or Refused."""
        if not self.balloon:
            raise Refused("No balloon device found.")
        if not self.driver_up:
            raise Refused("Device not activated yet.")
        return self.balloon

    def do_put_balloon(self, params):
        """PUT /balloon"""
        if params["amount_mib"] > self.machine["mem_size_mib"]:
            raise Refused("Amount of pages requested is too large.")
        if self.machine["huge_pages"] == "2M" and self.version < (1, 14):
            raise Refused("Firecracker's huge pages support is incompatible with memory ballooning.")
        self.balloon = params

    def do_get_balloon(self, _params):
        """GET /balloon"""
        config = self.balloon_config()
        if not config:
            raise Refused("No balloon device found.")
        return config

    def do_patch_balloon(self, params):
        """PATCH /balloon: answered before the guest has done anything"""
        balloon = self._balloon()
        if params["amount_mib"] > self.memory_mib():
            raise Refused(f"Requested memory should be less than {self.memory_mib()}MiB")
        balloon["amount_mib"] = params["amount_mib"]
        self.guest.wake()

    def do_get_statistics(self, _params):
        """GET /balloon/statistics"""
        balloon = self._balloon()
        if not balloon["stats_polling_interval_s"]:
            raise Refused("Received stats query when stats are disabled.")
        pages = balloon["amount_mib"] * MIB_PAGES
        stats = {"target_pages": pages, "actual_pages": self.actual_pages, "target_mib": balloon["amount_mib"],
                 "actual_mib": self.actual_pages // MIB_PAGES, "swap_in": 0, "swap_out": 0, "major_faults": 0,
                 "minor_faults": 0, "total_memory": self.memory.n_dram * PAGE}
        return stats | ({"oom_kill": 0, "alloc_stall": 0} if self.version >= (1, 14) else {})

    def do_patch_statistics(self, params):
        """PATCH /balloon/statistics"""
        balloon = self._balloon()
        if bool(params["stats_polling_interval_s"]) != bool(balloon["stats_polling_interval_s"]):
            raise Refused("Statistics cannot be enabled/disabled after activation.")
        balloon["stats_polling_interval_s"] = params["stats_polling_interval_s"]

    def _hinting(self):
        self._balloon()
        if not self.hints():
            raise Refused("Attempting to use hinting when not enabled")

    def do_start_hinting(self, params):
        """PATCH /balloon/hinting/start"""
        self._hinting()
        self.last_cmd = self.last_cmd + 1 if self.last_cmd + 1 > DONE else DONE + 1
        self.host_cmd, self.acknowledge = self.last_cmd, params["acknowledge_on_stop"]
        self.guest.wake()

    def do_get_hinting(self, _params):
        """GET /balloon/hinting/status"""
        self._hinting()
        return {"host_cmd": self.host_cmd, "guest_cmd": self.guest_cmd}

    def do_stop_hinting(self, _params):
        """PATCH /balloon/hinting/stop"""
        self._hinting()
        self.host_cmd = DONE
        self.guest.wake()

    def do_put_hotplug(self, params):
        """PUT /hotplug/memory"""
        total, block, slot = params["total_size_mib"], params["block_size_mib"], params["slot_size_mib"]
        for wrong, what in ((block < 2, "Block size must not be lower than 2 MiB"),
                            (block & (block - 1), "Block size must be a power of 2"),
                            (slot < 128, "Slot size must not be lower than 128 MiB"),
                            (slot % block if block else 1, f"Slot size must be a multiple of block size ({block} MiB)"),
                            (total < slot, f"Total size must not be lower than slot size ({slot} MiB)"),
                            (total % slot if slot else 1, f"Total size must be a multiple of slot size ({slot} MiB)")):
            if wrong:
                raise Refused(what)
        self.hotplug = params

    def _hotplug(self):
        if not self.hotplug:
            raise Refused("Memory hotplug error: device not found")
        return self.hotplug

    def do_get_hotplug(self, _params):
        """GET /hotplug/memory"""
        return self._hotplug() | {"plugged_size_mib": self.plugged_mib, "requested_size_mib": self.requested_mib}

    def do_patch_hotplug(self, params):
        """PATCH /hotplug/memory: answered before the guest has done anything"""
        config, size = self._hotplug(), params["requested_size_mib"]
        if size > config["total_size_mib"] or size % config["block_size_mib"]:
            raise Refused("Memory hotplug error: the requested size is too large or no multiple of the block size")
        self.requested_mib = size
        self.guest.wake()

    # ---- the driver's halves, on the guest's thread

    def balloon_driver(self, guest):
        """Inflate, deflate and hint as far as it is wanted."""
        if not self.driver_up or not self.balloon:
            return
        want = self.balloon["amount_mib"] * MIB_PAGES
        if want > len(guest.ballooned):
            take = guest.free_pages()[::-self.stride][:want - len(guest.ballooned)]
            for at in range(0, len(take), BATCH_PAGES):
                batch = take[at:at + BATCH_PAGES]
                guest.gate()
                guest.ask(lambda batch=batch: self.inflate(batch))
                guest.ballooned.update(batch)
                guest.stale.difference_update(batch)
        while len(guest.ballooned) > want:
            guest.ballooned.pop()
        if len(guest.ballooned) != self.actual_pages:
            guest.ask(lambda: self.balloon_actual(len(guest.ballooned)))
        if self.hints() and self.driver != "deaf" and self.host_cmd != guest.hinted:
            guest.hinted = self.host_cmd
            if guest.hinted > DONE:
                self._hint_all(guest, guest.hinted)

    def _hint_all(self, guest, command):
        guest.ask(lambda: self.hint_command(command))
        for first, n_pages in page_runs(guest.free_pages()):
            for at in range(0, n_pages, HINT_PAGES):
                if self.host_cmd != command:
                    break
                guest.gate()
                guest.ask(lambda at=at, first=first, n=n_pages: self.hint(first + at, min(HINT_PAGES, n - at), command))
                if self.driver == "slow-hint":
                    return
        guest.ask(lambda: self.hint_command(STOP))

    def hotplug_driver(self, guest):
        """Plug or unplug block by block, highest last and first."""
        block = (self.hotplug or {}).get("block_size_mib", 1)
        while self.plugged_mib < self.requested_mib:
            guest.gate()
            guest.ask(lambda: self.plug(block))
        while self.plugged_mib > self.requested_mib:
            guest.gate()
            top = guest.memory.n_dram + self.plugged_pages()
            if any(page in guest.owned or page in guest.ballooned for page in range(top - block * MIB_PAGES, top)):
                return
            guest.ask(lambda: self.unplug_block(block))
            guest.stale.difference_update(range(top - block * MIB_PAGES, top))

    # ---- the devices' halves, on the VMM's thread

    def balloon_actual(self, n_pages):
        """What the guest says that the balloon has."""
        self.actual_pages = n_pages

    def inflate(self, pages):
        """Up to BATCH_PAGES page numbers, in descriptors of DESCRIPTOR_PAGES, are put together to runs."""
        for first, n_pages in page_runs(sorted(pages)):
            self.memory.discard(first, n_pages)
        self.actual_pages += len(pages)

    def report(self, runs):
        """Free page reporting. Return: whether all of it could be discarded."""
        before = self.memory.discard_errors
        for first, n_pages in runs:
            self.memory.discard(first, n_pages)
        return self.memory.discard_errors == before

    def hint_command(self, command):
        """The guest has echoed a command id, or has come to the end (STOP)."""
        self.guest_cmd = command
        if command == STOP and self.acknowledge:
            self.host_cmd = DONE

    def hint(self, first, n_pages, command):
        """A free range; one that comes after the end is not looked at."""
        if command == self.host_cmd:
            self.memory.discard(first, n_pages)

    def _slots(self, mib):
        return -(-mib // self.hotplug["slot_size_mib"])

    def plugged_slots(self):
        """Which slots of the hot-pluggable region have anything in them."""
        return range(self._slots(self.plugged_mib)) if self.hotplug else ()

    def plug(self, mib):
        """One more block."""
        before, slot = self._slots(self.plugged_mib), self.hotplug["slot_size_mib"] * MIB_PAGES
        self.plugged_mib += mib
        if self._slots(self.plugged_mib) > before:
            self.memory.protect(self.memory.n_dram + before * slot, slot, True)

    def unplug_block(self, mib):
        """One block less."""
        slot = self.hotplug["slot_size_mib"] * MIB_PAGES
        self.plugged_mib -= mib
        self.memory.discard(self.memory.n_dram + self.plugged_pages(), mib * MIB_PAGES)
        after = self._slots(self.plugged_mib)
        if self.plugged_mib % self.hotplug["slot_size_mib"] == 0:
            self.memory.protect(self.memory.n_dram + after * slot, slot, False)
