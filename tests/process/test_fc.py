# SPDX-License-Identifier: Apache-2.0
"""
`thaw fc`: what Firecracker knows is sent and taken, what it does not is refused before.

The other side is a strict stand-in (tests/lib/fc_standin.py), which was written without a look at the table that `thaw fc`
works from; where a real Firecracker is at hand, the same requests go to that one, too. The stories below have every endpoint
and every field at least once, and a test counts.
"""

import json
import os
import re
import signal
import subprocess
import sys
import time

import pytest

import fclib
import thawtest

sys.path.insert(0, str(thawtest.ROOT / "man"))

import fc_tables  # noqa: E402  (found through the path above)

NEWEST = "1.17.0-dev"
SCHEMA = fc_tables.Schema(thawtest.ROOT / "src/vmm/fc_schema.def")
RATE = {"bandwidth": {"size": 1 << 20, "refill_time": 100, "one_time_burst": 4096},
        "ops": {"size": 1000, "refill_time": 100}}

# ---- the stories: (method, path, body)

LOOK = [
    ("GET", "/", None),
    ("GET", "/version", None),
    ("GET", "/vm/config", None),
    ("GET", "/machine-config", None),
]

# What needs files only, and no guest: for a real Firecracker, too.
PREPARE = [
    ("PUT", "/logger", {"log_path": "vmm.log", "level": "debug", "show_level": True, "show_log_origin": False,
                        "module": "api_server"}),
    ("PUT", "/metrics", {"metrics_path": "metrics", "emit_id": True, "properties": {"team": "blue"}}),
    ("PUT", "/serial", {"serial_out_path": "serial.out",
                        "rate_limiter": {"size": 65536, "refill_time": 100, "one_time_burst": 0}}),
    ("PUT", "/machine-config", {"vcpu_count": 2, "mem_size_mib": 64, "smt": False, "cpu_template": "None",
                                "track_dirty_pages": True, "huge_pages": "None"}),
    ("PATCH", "/machine-config", {"vcpu_count": 1, "mem_size_mib": 32, "smt": False, "cpu_template": "None",
                                  "track_dirty_pages": False, "huge_pages": "None"}),
    ("PUT", "/boot-source", {"kernel_image_path": "kernel", "initrd_path": "initrd", "boot_args": "console=ttyS0"}),
    ("PUT", "/drives/rootfs", {"drive_id": "rootfs", "is_root_device": True, "path_on_host": "rootfs",
                               "partuuid": "0eaa91a0-01", "is_read_only": False, "cache_type": "Writeback",
                               "io_engine": "Sync", "rate_limiter": RATE}),
    ("PUT", "/pmem/pmem0", {"id": "pmem0", "path_on_host": "pmem", "root_device": False, "read_only": True,
                            "rate_limiter": RATE}),
    ("PUT", "/vsock", {"guest_cid": 3, "uds_path": "v.sock", "vsock_id": "vsock0"}),
    ("PUT", "/entropy", {"rate_limiter": RATE}),
    ("PUT", "/balloon", {"amount_mib": 4, "deflate_on_oom": True, "stats_polling_interval_s": 1,
                         "free_page_hinting": True, "free_page_reporting": True}),
    ("GET", "/balloon", None),
    ("PUT", "/hotplug/memory", {"total_size_mib": 512, "block_size_mib": 2, "slot_size_mib": 128}),
]

# What needs more of the host.
PREPARE_MORE = [
    ("PUT", "/cpu-config", {"kvm_capabilities": ["121", "!171"],
                            "cpuid_modifiers": [{"leaf": "0x1", "subleaf": "0x0", "flags": 0,
                                                 "modifiers": [{"register": "eax", "bitmap": "0bxxxx0000"}]}],
                            "msr_modifiers": [{"addr": "0x10a", "bitmap": "0bx"}],
                            "reg_modifiers": [{"addr": "0x603000000013c020", "bitmap": "0bx"}],
                            "vcpu_features": [{"index": 0, "bitmap": "0b11x0"}]}),
    ("PUT", "/network-interfaces/eth0", {"iface_id": "eth0", "host_dev_name": "tap0", "guest_mac": "06:00:c0:a8:00:02",
                                         "mtu": 1500, "rx_rate_limiter": RATE, "tx_rate_limiter": RATE}),
    ("PUT", "/mmds/config", {"network_interfaces": ["eth0"], "version": "V2", "ipv4_address": "169.254.170.2",
                             "imds_compat": True}),
    ("PUT", "/mmds", {"latest": {"meta-data": {"id": "i-1"}}}),
    ("PATCH", "/mmds", {"latest": {"meta-data": {"zone": None, "n": 1.5}}}),
    ("GET", "/mmds", None),
]

START = [("PUT", "/actions", {"action_type": "InstanceStart"})]

RUN = [
    ("PUT", "/actions", {"action_type": "FlushMetrics"}),
    ("PATCH", "/drives/rootfs", {"drive_id": "rootfs", "path_on_host": "rootfs", "rate_limiter": RATE}),
    ("PATCH", "/pmem/pmem0", {"id": "pmem0", "rate_limiter": RATE}),
    ("PATCH", "/network-interfaces/eth0", {"iface_id": "eth0", "rx_rate_limiter": RATE, "tx_rate_limiter": RATE}),
    ("PATCH", "/balloon", {"amount_mib": 2}),
    ("GET", "/balloon/statistics", None),
    ("PATCH", "/balloon/statistics", {"stats_polling_interval_s": 2}),
    ("PATCH", "/balloon/hinting/start", None),
    ("GET", "/balloon/hinting/status", None),
    ("PATCH", "/balloon/hinting/start", {"acknowledge_on_stop": False}),
    ("PATCH", "/balloon/hinting/stop", None),
    ("PATCH", "/hotplug/memory", {"requested_size_mib": 128}),
    ("GET", "/hotplug/memory", None),
    ("PUT", "/drives/more", {"drive_id": "more", "is_root_device": False, "path_on_host": "rootfs"}),
    ("DELETE", "/drives/more", None),
    ("DELETE", "/pmem/pmem0", None),
    ("PUT", "/network-interfaces/eth1", {"iface_id": "eth1", "host_dev_name": "tap1"}),
    ("DELETE", "/network-interfaces/eth1", None),
    ("PATCH", "/vm", {"state": "Paused"}),
    ("PUT", "/snapshot/create", {"mem_file_path": "memory", "snapshot_path": "vmstate", "snapshot_type": "Full"}),
    ("PATCH", "/vm", {"state": "Resumed"}),
    ("GET", "/", None),
    ("GET", "/vm/config", None),
    ("PUT", "/actions", {"action_type": "SendCtrlAltDel"}),
]

LOAD = [
    ("PUT", "/snapshot/load", {"snapshot_path": "vmstate", "mem_backend": {"backend_type": "File", "backend_path": "memory"},
                               "track_dirty_pages": True, "resume_vm": True, "clock_realtime": True,
                               "network_overrides": [{"iface_id": "eth0", "host_dev_name": "tap7"}],
                               "vsock_override": {"uds_path": "other.sock"}, "huge_pages": "Snapshot"}),
    ("GET", "/", None),
]
LOAD_OLD = [
    ("PUT", "/snapshot/load", {"snapshot_path": "vmstate", "mem_file_path": "memory", "enable_diff_snapshots": True}),
    ("PATCH", "/vm", {"state": "Resumed"}),
]
VHOST = [("PUT", "/drives/vhost", {"drive_id": "vhost", "is_root_device": True, "socket": "vhost.sock"})]
ALL = [*LOOK, *PREPARE, *PREPARE_MORE, *START, *RUN, *LOAD, *LOAD_OLD, *VHOST]


# ---- a program, and somebody to talk to


def fc(*args, status=0, stdin="", **environment):
    """Run `thaw fc`. Return: (standard output, standard error)."""
    done = subprocess.run([thawtest.program("THAW"), "fc", *map(str, args)], input=stdin, capture_output=True, text=True,
                          timeout=thawtest.DEADLINE, check=False, env={**os.environ, **environment})
    assert done.returncode == status, f"{args} ended with {done.returncode}: {done.stdout}{done.stderr}"
    assert done.stderr.count("\n") == (1 if status else done.stderr.count("\n")), done.stderr
    return done.stdout, done.stderr


def send(vmm, method, path, body=None, *options, **more):
    """One request to a VMM."""
    return fc("--socket", vmm.api, *options, method, path, *([] if body is None else [json.dumps(body)]), **more)


def tell(vmm, story):
    """Every request of a story, each of which must be taken; the answers of those that have one."""
    answers = {}
    for method, path, body in story:
        out, _ = send(vmm, method, path, body)
        assert bool(out) == (method == "GET"), f"{method} {path}: {out!r}"
        if out:
            answers[path] = json.loads(out)
    return answers


def known(version, method, path, body=None):
    """Whether a version knows all that is in a request."""
    done = subprocess.run([thawtest.program("THAW"), "fc", "--dry-run", "--version", version, method, path,
                           *([] if body is None else [json.dumps(body)])],
                          capture_output=True, text=True, timeout=thawtest.DEADLINE, check=False)
    assert done.returncode == 0 or "does not know" in done.stderr, done.stderr
    return done.returncode == 0


def start(lab, folder=None, **environment):
    """A stand-in that has all files of the stories."""
    vmm = fclib.Vmm(lab, folder, "--enable-pci", **{"FC_STANDIN_VERSION": NEWEST, **environment})
    (vmm.folder / "initrd").write_text("initrd")
    (vmm.folder / "metrics").touch()  # before 1.14 it must be there
    with open(vmm.folder / "pmem", "wb") as f:
        f.truncate(2 << 20)
    return vmm


class Real:
    """A real Firecracker that was asked nothing yet."""

    def __init__(self, lab, program):
        self.folder = lab.dir
        for name in ("kernel", "initrd", "rootfs"):
            (self.folder / name).write_bytes(b"\0" * 4096)
        (self.folder / "pmem").write_bytes(b"\0" * (2 << 20))
        for name in ("vmm.log", "metrics"):
            (self.folder / name).touch()  # before 1.14 they must be there
        self.api = self.folder / "api.sock"
        self.process = lab.start("firecracker", ["env", "-C", str(self.folder), program, "--api-sock", "api.sock",
                                                 "--enable-pci"])
        thawtest.wait_until(self.api.exists, "the socket of Firecracker")
        self.version = json.loads(fc("--socket", self.api, "GET", "/version")[0])["firecracker_version"]


@pytest.fixture
def real(lab):
    """A real Firecracker."""
    program = fclib.real_firecracker()
    if not program:
        pytest.skip("no Firecracker here: neither $FIRECRACKER nor on PATH")
    try:
        os.close(os.open("/dev/kvm", os.O_RDWR))
    except OSError as e:
        pytest.skip(f"no usable KVM here: {e.strerror}")
    return Real(lab, program)


# ---- what is sent is taken


def test_every_endpoint_is_taken_before_the_start(lab):
    vmm = start(lab)
    answers = tell(vmm, [*LOOK, *PREPARE, *PREPARE_MORE, *LOOK])
    assert answers["/version"]["firecracker_version"] == NEWEST
    assert answers["/balloon"]["free_page_reporting"] is True
    assert answers["/mmds"]["latest"]["meta-data"]["n"] == 1.5
    assert answers["/vm/config"]["drives"][0]["drive_id"] == "rootfs"


def test_every_endpoint_is_taken_after_the_start_and_when_a_snapshot_is_loaded(lab):
    vmm = start(lab)
    tell(vmm, [*PREPARE, *PREPARE_MORE, *START])
    thawtest.wait_until(lambda: "guest-is-ready" in (vmm.folder / "serial.out").read_text(), "the guest")
    thawtest.wait_until(lambda: vmm.ask("GET", "/balloon/statistics").status == 200, "statistics of the balloon")
    answers = tell(vmm, RUN)
    assert answers["/hotplug/memory"]["requested_size_mib"] == 128
    vmm.end()
    (vmm.folder / "v.sock").unlink(missing_ok=True)
    loaded = start(lab, vmm.folder)
    assert tell(loaded, LOAD)["/"]["state"] == "Running"
    loaded.end()
    (vmm.folder / "v.sock").unlink(missing_ok=True)
    (vmm.folder / "other.sock").unlink(missing_ok=True)
    tell(start(lab, vmm.folder), LOAD_OLD)


def test_a_vhost_user_drive_is_taken(lab):
    tell(start(lab), VHOST)


def test_a_real_firecracker_takes_the_same(real):
    for method, path, body in [*LOOK, *PREPARE, *LOOK]:
        if known(real.version, method, path, body):
            send(real, method, path, body)


def names_of(model, body):
    """The fields of a model that a body has, and those of the models in it: (model, field)."""
    for name, kind, form, *_ in SCHEMA.models[model]:
        if name in body:
            yield model, name
            values = body[name] if kind == "LIST" else [body[name]] if kind == "OBJ" else []
            for value in values:
                yield from names_of(form, value)


def test_the_stories_have_every_endpoint_and_every_field():
    endpoints, fields, wanted = set(), set(), set()
    for method, path, body in ALL:
        for _, _, its_method, its_path, _, _, _, request, *_ in SCHEMA.endpoints:
            if its_method == method and re.fullmatch(its_path.replace("{id}", r"\w+"), path):
                endpoints.add((method, its_path))
                fields.update(names_of(request, body or {}))
    assert endpoints == {(e[2], e[3]) for e in SCHEMA.endpoints}
    left = {e[7] for e in SCHEMA.endpoints}
    while left:
        model = left.pop()
        wanted.update((model, f[0]) for f in SCHEMA.models[model] if f[0])
        left.update(f[2] for f in SCHEMA.models[model] if f[1] in ("OBJ", "LIST"))
    assert fields == wanted


# ---- what is not sent


def test_what_a_version_does_not_know_is_refused_before_it_is_sent(lab):
    """As many requests as the version does not know, each refused without one word to the stand-in."""
    for version, refused in (("1.13.1", 15), ("1.14.1", 8), ("1.15.1", 8), ("1.16.1", 2)):
        vmm = start(lab, FC_STANDIN_VERSION=version)
        n = 0
        for method, path, body in [*PREPARE, *PREPARE_MORE, *RUN, *LOAD]:
            if known(version, method, path, body):
                continue
            n += 1
            _, err = send(vmm, method, path, body, status=1)
            assert f"Firecracker {version} does not know " in err and " brought it" in err, err
            # It is not for nothing: the stand-in, which looks by itself, would not take it either.
            # Only PUT /metrics has always passed over what it does not know.
            assert vmm.ask(method, path, body).status == (204 if path == "/metrics" else 400), f"{version}: {path}"
        assert n >= refused, f"{version}: {n}"
        vmm.end()


def test_nothing_is_sent_that_was_refused(lab):
    """Nobody listens, and nobody notices: it was not tried."""
    for version, method, path, body in (("1.13.1", "PATCH", "/balloon/hinting/stop", None),
                                        ("1.14.1", "PUT", "/vsock", {"guest_cid": 3, "uds_path": "v", "name": "n"})):
        fc("--socket", lab.dir / "none", "--version", version, method, path, *([json.dumps(body)] if body else []),
           status=2 if body else 1)


# ---- what goes wrong on the other side


def test_a_refusal_is_quoted(lab):
    vmm = start(lab)
    _, err = send(vmm, "PATCH", "/balloon", {"amount_mib": 1}, status=1)
    assert err == ("thaw fc: Firecracker refused PATCH /balloon (400): The requested operation is not supported before "
                   "starting the microVM.\n")


def test_a_refusal_names_the_device(lab):
    _, err = send(start(lab), "PATCH", "/drives/data", {"drive_id": "data"}, status=1)
    assert err.startswith("thaw fc: Firecracker refused PATCH /drives/data (400): ")


def test_a_body_that_is_no_json_is_quoted(lab):
    vmm = start(lab, FC_STANDIN_FAULT="bad-body@/balloon")
    _, err = send(vmm, "GET", "/balloon", status=1)
    assert err.startswith("thaw fc: Firecracker refused GET /balloon (400): ") and len(err) > 60


def test_a_firecracker_that_does_not_answer_is_given_up(lab):
    vmm = start(lab, FC_STANDIN_FAULT="hang@/vm")
    before = time.monotonic()
    _, err = send(vmm, "PATCH", "/vm", {"state": "Paused"}, "--timeout", "1", status=1)
    assert "has not answered PATCH /vm in time" in err
    assert time.monotonic() - before < thawtest.DEADLINE / 2


def test_a_firecracker_that_ends_instead_of_answering_is_told(lab):
    vmm = start(lab, FC_STANDIN_FAULT="die@/snapshot/load=148")
    _, err = send(vmm, *LOAD_OLD[0], status=1)
    assert "ended the connection before it had answered PUT /snapshot/load" in err
    thawtest.wait_until(lambda: not vmm.running(), "the stand-in to end")
    _, err = send(vmm, "GET", "/", status=1)
    assert "nobody listens on socket" in err


def test_connections_that_are_all_taken_are_waited_for(lab):
    vmm = start(lab)
    others = [vmm.client() for _ in range(9)]  # and the one that the stand-in's wrapper keeps

    def refused():
        """Whoever is slow runs out of time in another step than that of being sent away."""
        return "too many connections" in send(vmm, "GET", "/", None, "--timeout", "1", status=1)[1].lower()

    vmm.signal(signal.SIGSTOP)
    vmm.client().close()  # gone before it can be sent away
    vmm.signal(signal.SIGCONT)
    thawtest.wait_until(refused, "a refusal for the number of connections")
    others.pop().close()
    assert json.loads(send(vmm, "GET", "/")[0])["state"] == "Not started"
    for one in others:
        one.close()


def test_a_deprecated_field_is_mentioned(lab):
    _, err = send(start(lab), "PUT", "/vsock", {"guest_cid": 3, "uds_path": "v.sock", "vsock_id": "v"})
    assert "is deprecated" in err


# ---- the command line


@pytest.mark.parametrize("argv, words", [
    ([], "METHOD and PATH expected"),
    (["GET"], "METHOD and PATH expected"),
    (["GET", "/", "{}", "more"], "unexpected argument more"),
    (["GET", "/nowhere"], "GET /nowhere: Firecracker has no such path"),
    (["POST", "/balloon"], "expected one of the methods GET, PUT, PATCH"),
    (["--timeout", "0", "GET", "/"], "expected seconds from 1"),
    (["--version", "new", "GET", "/"], "--version: "),
    (["--nonsense"], "unrecognized option"),
    (["--list", "GET"], "unexpected argument GET"),
    (["PUT", "/balloon", "{"], "the body is no JSON: line 1, column 1"),
    (["PUT", "/balloon", '{"a": 1, "a": 2}'], "the body is no JSON: line 1"),
    (["PATCH", "/balloon", '{"amount_mib": "4"}', "--dry-run"], "amount_mib: expected a whole number from 0 to 4294967295"),
    (["PUT", "/drives/a", '{"drive_id": "b", "is_root_device": true, "path_on_host": "p"}', "--dry-run"],
     'drive_id: expected "a" as in the path, got "b"'),
])
def test_wrong_arguments_are_refused_in_one_line(argv, words):
    out, err = fc(*argv, status=2)
    assert words in err and not out


def test_a_dry_run_prints_what_would_be_sent():
    body = '{"amount_mib": 4}'
    assert fc("--dry-run", "PATCH", "/balloon", body)[0] == 'PATCH /balloon {"amount_mib":4}\n'
    assert fc("--dry-run", "--version", "1.16.0", "DELETE", "/drives/a")[0] == "DELETE /drives/a\n"


def test_a_dry_run_with_a_socket_asks_for_the_version(lab):
    vmm = start(lab, FC_STANDIN_VERSION="1.13.1")
    fc("--dry-run", "PATCH", "/balloon/hinting/stop")
    _, err = send(vmm, "PATCH", "/balloon/hinting/stop", None, "--dry-run", status=1)
    assert "Firecracker 1.13.1 does not know this; 1.14.0 brought it" in err


def test_the_body_comes_from_a_file_or_from_standard_input(lab):
    path = lab.dir / "body.json"
    path.write_text('{"amount_mib": 4}')
    expected = 'PATCH /balloon {"amount_mib":4}\n'
    assert fc("--dry-run", "PATCH", "/balloon", f"@{path}")[0] == expected
    assert fc("--dry-run", "PATCH", "/balloon", "-", stdin=path.read_text())[0] == expected
    assert "cannot open" in fc("--dry-run", "PATCH", "/balloon", f"@{path}x", status=1)[1]
    assert "standard input is no JSON: line 2" in fc("--dry-run", "PATCH", "/balloon", "-", stdin="\n{", status=2)[1]
    path.write_bytes(b" " * ((1 << 20) + 1))
    assert "more than 1048576 bytes" in fc("--dry-run", "PATCH", "/balloon", f"@{path}", status=1)[1]


def test_the_list_has_every_endpoint():
    lines = fc("--list")[0].splitlines()
    assert [tuple(line.split()[:3]) for line in lines[1:]] == [(e[2], e[3], e[9]) for e in SCHEMA.endpoints]


def test_a_socket_that_is_not_there_is_told_from_a_stale_one(lab):
    assert "there is no socket" in fc("--socket", lab.dir / "none", "GET", "/", status=1)[1]
    vmm = start(lab)
    vmm.end()
    assert "nobody listens on socket" in send(vmm, "GET", "/", status=1)[1]
    plain = lab.dir / "plain"
    plain.touch()
    assert f"{plain} is no socket" in fc("--socket", plain, "GET", "/", status=1)[1]


def test_libcurl_is_loaded_by_this_verb_only():
    maps = subprocess.run(["ldd", thawtest.program("THAW")], capture_output=True, text=True, check=True,
                          timeout=thawtest.DEADLINE).stdout
    assert "libcurl" not in maps
