# SPDX-License-Identifier: Apache-2.0
"""ctllib.py - a VM through src/vmm/driver.h, one operation a process (tests/lib/vmm_ctl.c)."""

import os
import pathlib
import subprocess

import fclib
import thawtest


class Ctl:
    """One VM: its folder, and the options that say what it is made of."""

    def __init__(self, lab, *options, folder=None, **environment):
        self.lab = lab
        self.folder = pathlib.Path(folder or lab.dir / f"vm{len(list(lab.dir.glob('vm*')))}")
        self.folder.mkdir(exist_ok=True)
        self.options = list(options)
        self.environment = environment
        self.root = self.folder
        self.console = fclib.Console(self.folder / "serial.in", self.folder / "console.log")
        # Whatever it is typed into is the driver's.
        self.console.type = lambda text: self.ok("type", text)

    def run(self, *words, options=()):
        """An operation's end: (status, stdout, stderr)."""
        argv = [thawtest.program("VMM_CTL"), *self.options, *options, self.folder, *words]
        done = subprocess.run([str(a) for a in argv], capture_output=True, text=True, check=False,
                              timeout=thawtest.DEADLINE + 20, env={**os.environ, **self.environment})
        return done.returncode, done.stdout, done.stderr

    def ok(self, *words, options=()):
        """What an operation says that must succeed."""
        status, out, err = self.run(*words, options=options)
        assert status == 0, f"{words}: {status} {err}; {self.log()}"
        return out.strip()

    def fails(self, *words, options=()):
        """The error of an operation that must fail, in one line."""
        status, _, err = self.run(*words, options=options)
        assert status == 1 and err.count("\n") == 1, f"{words}: {status} {err}"
        return err

    def log(self):
        """The end of the VMM's log."""
        path = self.folder / "vmm.log"
        return path.read_text(errors="replace")[-1000:] if path.exists() else "no log"

    def pid(self):
        """Of the VMM."""
        return int((self.folder / "pid").read_text().split()[0])

    def end(self):
        """Kill what runs."""
        if (self.folder / "pid").exists():
            self.run("kill")
