# SPDX-License-Identifier: Apache-2.0
"""
The stand-in for Firecracker is as strict as it is meant to be: it judges the client, so it is judged here.

For each rule at least one request that must be refused, and answers to the byte where clients trip over them. What becomes
of a guest's memory: test_fc_standin_guest.py.
"""

import json
import os

import pytest

import fclib
import thawtest
from fclib import Vmm


@pytest.fixture
def vmm(lab):
    """A stand-in that was asked nothing yet."""
    return Vmm(lab)


def check_all(refuse, table):
    """Every line of a table must be refused with its words; all that were not are listed."""
    wrong = []
    for line in table:
        *request, words = line
        text = refuse(*request)
        if words not in text:
            wrong.append(f"{request}: {words!r} is not in {text!r}")
    assert not wrong, "\n".join(wrong)


def refusal(vmm):
    """What a request is told; "accepted" if it is not refused."""
    def ask(method, path, body=None):
        reply = vmm.ask(method, path, body)
        return reply.fault() if reply.status == 400 else f"accepted: {reply.status} {reply.body}"
    return ask


# ---- the command line


def test_arguments_are_looked_at(lab):
    program = fclib.install(lab.dir)
    for argv in (["--nope"], ["--api-sock"], ["word"], ["--id", "a", "--id", "b"], ["--id", "a_b"],
                 ["--no-seccomp", "--seccomp-filter", "x"]):
        fclib.output_of(program, *argv, status=153)
    fclib.output_of(program, "--level", "loud", "--api-sock", lab.dir / "a", status=152)


@pytest.mark.parametrize("version, snapshots", [
    ("1.10.1", "3.0.0"), ("1.11.0", "5.0.0"), ("1.12.0", "6.0.0"), ("1.13.1", "8.0.0"), ("1.14.1", "8.0.0"),
    ("1.15.0", "9.0.0"), ("1.16.1", "10.0.0"), ("1.17.0-dev", "11.0.0")])
def test_versions_are_said(lab, version, snapshots):
    program = fclib.install(lab.dir)
    assert fclib.output_of(program, "--version", FC_STANDIN_VERSION=version) == f"Firecracker v{version}\n\n"
    assert fclib.output_of(program, "--snapshot-version", FC_STANDIN_VERSION=version) == f"v{snapshots}\n"


def test_a_stale_socket_is_in_the_way(lab):
    vmm = Vmm(lab)
    vmm.end()
    program = vmm.folder / "firecracker"
    late = lab.start("late", ["env", "-C", vmm.folder, program, "--api-sock", "api.sock"])
    late.expect_exit(1)
    assert "Failed to open the API socket at: api.sock. Check that it is not already used." in late.err


# ---- HTTP


def test_an_answer_is_formed_as_there(vmm):
    reply = vmm.ask("GET", "/version")
    assert reply.status_line == "HTTP/1.1 200 "
    assert reply.headers["Server"] == "Firecracker API"
    assert reply.headers["Connection"] == "keep-alive"
    assert reply.json() == {"firecracker_version": "1.14.1"}
    reply = vmm.ask("PUT", "/machine-config", {"vcpu_count": 1, "mem_size_mib": 32})
    assert (reply.status_line, reply.body) == ("HTTP/1.1 204 ", "")
    assert "Content-Length" not in reply.headers
    reply = vmm.ask("PUT", "/machine-config", {"vcpu_count": 1, "mem_size_mib": 32, "cpu_template": "None"})
    assert reply.headers["Deprecation"] == "true"


BROKEN = [
    (b"GET\r\n\r\n", "Invalid request."),
    (b"GET /version\r\n\r\n", "Invalid request."),
    (b"POST / HTTP/1.1\r\n\r\n", "Invalid HTTP Method"),
    (b"DELETE /drives/a HTTP/1.1\r\n\r\n", "Invalid HTTP Method"),
    (b"GET / HTTP/2\r\n\r\n", "Invalid HTTP Version"),
    (b"GET  HTTP/1.1\r\n\r\n", "Invalid URI"),
    (b"GET / HTTP/1.1\r\nno colon\r\n\r\n", "incorrectly formatted"),
    (b"GET / HTTP/1.1\r\nContent-Length: x\r\n\r\n", "Invalid value"),
    (b"GET / HTTP/1.1\r\nContent-Length: -1\r\n\r\n", "Invalid value"),
    (b"GET / HTTP/1.1\r\nA: \xff\r\n\r\n", "invalid characters"),
    (b"GET / HTTP/1.1\r\nAccept-Encoding: identity;q=0\r\n\r\n", "Invalid value"),
    (b"GET /" + b"a" * 1030 + b" HTTP/1.1\r\n\r\n", "Invalid request."),
    (b"GET / HTTP/1.1\r\nA: " + b"a" * 1030, "Invalid content length"),
    (b"PUT /mmds HTTP/1.1\r\nContent-Length: 51201\r\n\r\n", "larger than the limit of 51200"),
]


@pytest.mark.parametrize("data, words", BROKEN, ids=[words for _, words in BROKEN])
def test_a_broken_request_gets_an_answer_that_is_no_json(vmm, data, words):
    client = vmm.client()
    reply = client.raw(data)
    assert reply.status == 400
    assert words in reply.body
    assert reply.body.endswith('\nAll previous unanswered requests will be dropped." }')
    with pytest.raises(json.JSONDecodeError):
        reply.json()
    client.close()
    assert vmm.get("/version")  # nobody else has noticed


def test_chunks_are_not_understood(vmm):
    client = vmm.client()
    reply = client.raw(b"PUT /mmds HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n")
    assert reply.fault() == "Empty PUT request."
    assert "Invalid request." in client.raw(b"2\r\n{}\r\n0\r\n\r\n").body


def test_limits_are_where_they_are(lab):
    vmm = Vmm(lab, None, "--http-api-max-payload-size", "64")
    assert vmm.ask("PUT", "/mmds", b"{" + b" " * 62 + b"}").status == 204
    reply = vmm.client().ask("PUT", "/mmds", b"{" + b" " * 63 + b"}")
    assert "larger than the limit of 64" in reply.body
    line = b"GET /version HTTP/1.1\r\nA: "
    assert vmm.client().raw(line + b"a" * (1024 - 5) + b"\r\n\r\n").status == 200
    assert vmm.client().raw(line + b"a" * (1024 - 4) + b"\r\n\r\n").status == 400


def test_ten_connections_are_enough(vmm):
    others = [vmm.client() for _ in range(9)]
    for other in others:
        assert other.ask("GET", "/version").status == 200
    extra = vmm.client()
    reply = extra.receive()
    assert (reply.status_line, reply.body) == ("HTTP/1.1 503", '{ "error": "Too many open connections" }')
    with pytest.raises(EOFError):
        extra.receive()
    others.pop().close()
    thawtest.wait_until(lambda: room(vmm), "room for another connection")


def room(vmm):
    """Whether another connection is served."""
    client = vmm.client()
    try:
        return client.ask("GET", "/version").status == 200
    finally:
        client.close()


def test_requests_may_follow_each_other_and_come_in_pieces(vmm):
    client = vmm.client()
    client.sock.sendall(b"GET /version HTTP/1.1\r\n\r\nGET / HTTP/1.0\r\n\r\n")
    assert client.receive().status == client.receive().status == 200
    for piece in (b"PUT /mmds HT", b"TP/1.1\r\nContent-Le", b"ngth: 2\r\n\r\n{"):
        client.sock.sendall(piece)
    assert client.raw(b"}").status == 204
    client.sock.sendall(b"PUT /mmds HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n")
    assert client.receive().status_line == "HTTP/1.1 100 "
    assert client.raw(b"{}").status == 204


# ---- what a body may be

BUCKET = {"size": 1, "refill_time": 1}
LIMITER = {"bandwidth": BUCKET, "ops": {**BUCKET, "one_time_burst": 1}}
DRIVE = {"drive_id": "a", "is_root_device": False, "path_on_host": "rootfs"}
NET = {"iface_id": "e", "host_dev_name": "tap0"}
BODIES = {  # one for each request before the start, in an order in which they can all be made
    "/boot-source": {"kernel_image_path": "kernel", "boot_args": "console=ttyS0", "initrd_path": None},
    "/machine-config": {"vcpu_count": 2, "mem_size_mib": 64, "smt": False, "track_dirty_pages": False,
                        "huge_pages": "None"},
    "/cpu-config": {"kvm_capabilities": ["!56"], "msr_modifiers": [{"addr": "0x10a", "bitmap": "0b1x"}],
                    "cpuid_modifiers": [{"leaf": "0x1", "subleaf": "0x0", "flags": 0,
                                         "modifiers": [{"register": "eax", "bitmap": "0b01"}]}]},
    "/drives/a": {**DRIVE, "is_read_only": True, "io_engine": "Sync", "cache_type": "Unsafe", "rate_limiter": LIMITER},
    "/pmem/p": {"id": "p", "path_on_host": "rootfs"},
    "/network-interfaces/e": {**NET, "guest_mac": "06:00:00:00:00:01", "rx_rate_limiter": LIMITER},
    "/vsock": {"guest_cid": 3, "uds_path": "v.sock"},
    "/entropy": {"rate_limiter": LIMITER},
    "/serial": {"serial_out_path": None},
    "/logger": {"log_path": "vmm.log", "level": "debug", "show_level": True},
    "/mmds/config": {"network_interfaces": ["e"], "version": "V2", "imds_compat": True},
    "/balloon": {"amount_mib": 1, "deflate_on_oom": True, "stats_polling_interval_s": 1, "free_page_hinting": True,
                 "free_page_reporting": True},
    "/hotplug/memory": {"total_size_mib": 256, "block_size_mib": 2, "slot_size_mib": 128},
}
START = {"action_type": "InstanceStart"}


def put_all(vmm, *without):
    """Configure everything that there is."""
    for path, body in BODIES.items():
        if path not in without:
            vmm.put(path, body)


def test_everything_that_is_documented_is_taken(vmm):
    put_all(vmm)
    vmm.put("/metrics", {"metrics_path": "metrics", "unknown": 1})
    config = vmm.get("/vm/config")
    assert set(config) == {"balloon", "drives", "boot-source", "cpu-config", "logger", "machine-config", "metrics",
                           "memory-hotplug", "mmds-config", "network-interfaces", "pmem", "vsock", "entropy"}
    assert config["balloon"] == BODIES["/balloon"] == vmm.get("/balloon")
    vmm.put("/actions", START)
    assert vmm.get("/")["state"] == "Running"


def test_unknown_fields_are_refused(vmm):
    table = [("PUT", path, {**body, "nope": 1}, "unknown field `nope`") for path, body in BODIES.items()]
    limiter = {"bandwidth": BUCKET, "nope": 1}
    table += [
        ("PUT", "/drives/a", {**DRIVE, "rate_limiter": limiter}, "unknown field `nope`"),
        ("PUT", "/actions", {**START, "nope": 1}, "unknown field `nope`"),
        ("PATCH", "/vm", {"state": "Paused", "nope": 1}, "unknown field `nope`"),
        ("PATCH", "/balloon", {"amount_mib": 1, "deflate_on_oom": True}, "unknown field `deflate_on_oom`"),
        ("PATCH", "/drives/a", {"drive_id": "a", "is_read_only": True}, "unknown field `is_read_only`"),
        ("PUT", "/snapshot/create", {"snapshot_path": "a", "mem_file_path": "b", "version": "1"}, "unknown field"),
        ("PUT", "/snapshot/load", {**fclib.load_body("a", "b"), "nope": 1}, "unknown field `nope`"),
        ("PUT", "/snapshot/load", {"snapshot_path": "a", "mem_backend": {"backend_type": "Uffd", "backend_path": "b",
                                                                         "nope": 1}}, "unknown field `nope`"),
    ]
    check_all(refusal(vmm), table)
    vmm.put("/drives/a", {**DRIVE, "rate_limiter": {"ops": {**BUCKET, "nope": 1}}})  # these ignore what they do not know


def test_missing_fields_and_wrong_types_are_refused(vmm):
    machine = {"vcpu_count": 1, "mem_size_mib": 32}
    table = [("PUT", path, {k: v for k, v in body.items() if k != name}, f"missing field `{name}`") for path, name, body in (
        ("/boot-source", "kernel_image_path", BODIES["/boot-source"]), ("/machine-config", "vcpu_count", machine),
        ("/machine-config", "mem_size_mib", machine), ("/drives/a", "drive_id", DRIVE), ("/vsock", "uds_path",
                                                                                        BODIES["/vsock"]),
        ("/drives/a", "is_root_device", DRIVE), ("/balloon", "deflate_on_oom", BODIES["/balloon"]),
        ("/network-interfaces/e", "host_dev_name", NET), ("/hotplug/memory", "total_size_mib",
                                                          BODIES["/hotplug/memory"]))]
    table += [("PUT", "/machine-config", {**machine, **change}, words) for change, words in (
        ({"vcpu_count": "1"}, "invalid type"), ({"vcpu_count": 1.0}, "invalid type"), ({"vcpu_count": True}, "invalid type"),
        ({"vcpu_count": 256}, "invalid value"), ({"vcpu_count": -1}, "invalid value"), ({"smt": 1}, "invalid type"),
        ({"smt": None}, "invalid type"), ({"huge_pages": "1G"}, "unknown variant"), ({"huge_pages": "2m"},
                                                                                     "unknown variant"),
        ({"vcpu_count": 0}, "number of vCPUs"), ({"vcpu_count": 33}, "number of vCPUs"),
        ({"vcpu_count": 3, "smt": True}, "number of vCPUs"), ({"mem_size_mib": 0}, "memory size"),
        ({"mem_size_mib": 33, "huge_pages": "2M"}, "memory size"))]
    table += [("PUT", "/vsock", {"guest_cid": 2, "uds_path": "v"}, "at least 3"),
              ("PUT", "/logger", {"level": "loud"}, "unknown variant"),
              ("PUT", "/balloon", {"amount_mib": 129, "deflate_on_oom": True}, "too large"),
              ("PUT", "/cpu-config", {"kvm_capabilities": ["x"]}, "invalid value"),
              ("PUT", "/network-interfaces/e", {**NET, "guest_mac": "6:0"}, "invalid value"),
              ("PUT", "/boot-source", {"kernel_image_path": "none"}, "No such file"),
              ("PUT", "/boot-source", {"kernel_image_path": "kernel", "boot_args": "a" * 2048}, "too large"),
              ("PUT", "/drives/a", {**DRIVE, "path_on_host": "none"}, "No such file"),
              ("PUT", "/drives/a", {**DRIVE, "socket": "s"}, "vhost-user"),
              ("PUT", "/drives/a", {"drive_id": "a", "is_root_device": False}, "Unable to create the block device"),
              ("PUT", "/mmds", [], "not a JSON object"),
              ("PUT", "/mmds/config", {"network_interfaces": ["none"]}, "MMDS")]
    table += [("PUT", "/hotplug/memory", {"total_size_mib": 256, **change}, words) for change, words in (
        ({"block_size_mib": 1}, "lower than 2"), ({"block_size_mib": 6}, "power of 2"), ({"slot_size_mib": 64}, "lower than"),
        ({"total_size_mib": 127}, "slot size"), ({"total_size_mib": 200}, "multiple of slot size"))]
    check_all(refusal(vmm), table)


def test_what_is_no_json_is_refused(vmm):
    check_all(refusal(vmm), [("PUT", "/mmds", body, "deserializing the json body") for body in (
        b"{", b"{} x", b"{'a': 1}", b'{"a": NaN}', b'{"a": 1,}', b'{"a": "\n"}', b"\xff")])
    check_all(refusal(vmm), [("PUT", "/vsock", b'{"guest_cid": 3, "guest_cid": 4, "uds_path": "v"}', "duplicate field")])


def test_paths_and_ids_are_looked_at(vmm):
    table = [
        ("PUT", "/foo", {}, "Invalid request method and/or path: PUT foo."),
        ("GET", "/actions", "Invalid request method and/or path: GET actions."),
        ("PATCH", "/vsock", {}, "Invalid request method and/or path: PATCH vsock."),
        ("GET", "/version", {}, "GET request cannot have a body."),
        ("PUT", "/actions", "Empty PUT request."),
        ("PATCH", "/vm", "Empty PATCH request."),
        ("PATCH", "/machine-config", {}, "Empty PATCH request."),
        ("PUT", "/drives", DRIVE, "The ID cannot be empty."),
        ("PUT", "/drives/a-b", {**DRIVE, "drive_id": "a-b"}, "can only contain alphanumeric characters and underscores."),
        ("PUT", "/drives/b", DRIVE, "The id from the path does not match the id from the body!"),
        ("PUT", "/network-interfaces/f", NET, "The id from the path [f] does not match the id from the body [e]!"),
        ("PUT", "/snapshot", {}, "Missing snapshot operation type."),
        ("PUT", "/snapshot/save", {}, "Invalid request method and/or path: PUT /snapshot/save."),
        ("GET", "/balloon/foo", "Unrecognized GET request path `foo`."),
        ("GET", "/balloon", "No balloon device found."),
        ("PUT", "/snapshot/load", {"snapshot_path": "a"}, "missing field: either `mem_backend` or `mem_file_path`"),
        ("PUT", "/snapshot/load", {**fclib.load_body("a", "b"), "mem_file_path": "c"}, "too many fields"),
    ]
    check_all(refusal(vmm), table)
    assert vmm.running()


def test_a_second_root_and_a_second_metrics_file_are_refused(vmm):
    vmm.put("/drives/a", {**DRIVE, "is_root_device": True})
    vmm.put("/metrics", {"metrics_path": "m"})
    check_all(refusal(vmm), [
        ("PUT", "/drives/b", {**DRIVE, "drive_id": "b", "is_root_device": True}, "root block device already exists"),
        ("PUT", "/metrics", {"metrics_path": "m"}, "Reinitialization")])


# ---- when


AFTER_ONLY = [("GET", "/balloon/statistics"), ("GET", "/balloon/hinting/status"), ("GET", "/hotplug/memory"),
              ("PATCH", "/vm", {"state": "Paused"}), ("PATCH", "/balloon", {"amount_mib": 0}),
              ("PATCH", "/balloon/statistics", {"stats_polling_interval_s": 1}), ("PATCH", "/balloon/hinting/start"),
              ("PATCH", "/balloon/hinting/stop"), ("PATCH", "/drives/a", {"drive_id": "a"}),
              ("PATCH", "/network-interfaces/e", {"iface_id": "e"}), ("PATCH", "/hotplug/memory",
                                                                      {"requested_size_mib": 0}),
              ("PUT", "/actions", {"action_type": "FlushMetrics"}), ("PUT", "/actions", {"action_type": "SendCtrlAltDel"}),
              ("PUT", "/snapshot/create", {"snapshot_path": "a", "mem_file_path": "b"})]


def test_there_is_a_time_for_everything(vmm):
    put_all(vmm)
    check_all(refusal(vmm), [(*one, "not supported before starting the microVM.") for one in AFTER_ONLY])
    vmm.put("/actions", START)
    table = [("PUT", path, body, "not supported after starting the microVM.") for path, body in BODIES.items()]
    table += [("PUT", "/actions", START, "not supported after"), ("PATCH", "/machine-config", {"smt": False},
                                                                  "not supported after"),
              ("PUT", "/snapshot/load", fclib.load_body("a", "b"), "not supported after"),
              ("PUT", "/snapshot/create", {"snapshot_path": "a", "mem_file_path": "b"}, "unavailable while running")]
    check_all(refusal(vmm), table)
    vmm.console.wait_text("guest-is-ready")
    check_all(refusal(vmm), [
        ("PATCH", "/balloon", {"amount_mib": 65}, "less than 64MiB"),
        ("PATCH", "/balloon/statistics", {"stats_polling_interval_s": 0}, "cannot be enabled/disabled"),
        ("PATCH", "/drives/none", {"drive_id": "none"}, "not found"),
        ("PATCH", "/hotplug/memory", {"requested_size_mib": 3}, "multiple"),
        ("PATCH", "/hotplug/memory", {"requested_size_mib": 512}, "too large")])


def test_a_start_needs_a_kernel(vmm):
    assert "without kernel" in vmm.refused("PUT", "/actions", START)


# (first version that has it, the last one without, request)
SINCE = [
    ("1.14.0", "1.13.1", "PUT", "/serial", {}),
    ("1.14.0", "1.13.1", "PUT", "/pmem/p", BODIES["/pmem/p"]),
    ("1.14.0", "1.13.1", "PUT", "/hotplug/memory", BODIES["/hotplug/memory"]),
    ("1.14.0", "1.13.1", "PUT", "/balloon", {"amount_mib": 0, "deflate_on_oom": True, "free_page_reporting": False}),
    ("1.14.0", "1.13.1", "PUT", "/balloon", {"amount_mib": 0, "deflate_on_oom": True, "free_page_hinting": False}),
    ("1.16.0", "1.15.1", "PUT", "/serial", {"rate_limiter": BUCKET}),
    ("1.16.0", "1.15.1", "PUT", "/pmem/p", {**BODIES["/pmem/p"], "rate_limiter": LIMITER}),
    ("1.16.0", "1.15.1", "PUT", "/network-interfaces/e", {**NET, "mtu": 1500}),
    ("1.17.0", "1.16.1", "PUT", "/machine-config", {"vcpu_count": 1, "mem_size_mib": 32, "huge_pages": "Transparent"}),
]
LOAD_SINCE = [("1.13.0", "1.12.1", "track_dirty_pages", True), ("1.12.0", "1.11.0", "network_overrides", []),
              ("1.14.4", "1.14.3", "clock_realtime", True), ("1.15.1", "1.15.0", "clock_realtime", True),
              ("1.16.0", "1.15.0", "clock_realtime", True), ("1.16.0", "1.15.1", "vsock_override", None),
              ("1.17.0", "1.16.1", "huge_pages", "Snapshot")]


def test_what_is_newer_than_its_version_is_refused(lab):
    vmms = {}

    def at(version):
        if version not in vmms:
            vmms[version] = Vmm(lab, FC_STANDIN_VERSION=version)
        return vmms[version]

    for new, old, method, path, body in SINCE:
        assert at(new).ask(method, path, body).status == 204, (new, path, body)
        text = refusal(at(old))(method, path, body)
        assert "unknown" in text or "Invalid request method and/or path" in text, (old, path, text)
    for new, old, name, value in LOAD_SINCE:
        body = {**fclib.load_body("none", "none"), name: value}
        assert "unknown field" in refusal(at(old))("PUT", "/snapshot/load", body), (old, name)
        if name != "vsock_override":
            at(new).ask("PUT", "/boot-source", {"kernel_image_path": "kernel"})  # so that it is not tried
        assert "unknown field" not in refusal(at(new))("PUT", "/snapshot/load", body), (new, name)


def test_old_versions_want_their_log_to_be_there(lab):
    vmm = Vmm(lab, wait=False, FC_STANDIN_VERSION="1.13.1")
    vmm.expect_exit(1)
    assert "Could not initialize logger" in vmm.err
    (vmm.folder / "vmm.log").touch()
    assert Vmm(lab, vmm.folder, FC_STANDIN_VERSION="1.13.1").get("/version")


def test_devices_come_and_go_with_pci_from_1_16_on(lab):
    late = {**DRIVE, "drive_id": "late"}
    plain = Vmm(lab, FC_STANDIN_VERSION="1.16.0")
    plain.boot()
    assert "PCI is not enabled" in plain.refused("PUT", "/drives/late", late)
    vmm = Vmm(lab, None, "--enable-pci", FC_STANDIN_VERSION="1.16.0")
    vmm.boot()
    vmm.put("/drives/late", late)
    assert vmm.ask("DELETE", "/drives/late").status == 204
    check_all(refusal(vmm), [("DELETE", "/drives/late", "not found"), ("DELETE", "/drives/rootfs", "root device")])


# ---- snapshots


@pytest.fixture
def frozen(lab):
    """The folder of a VM that was frozen and has ended."""
    vmm = Vmm(lab)
    vmm.boot()
    vmm.snapshot()
    vmm.end()
    os.rename(vmm.folder / "api.sock", vmm.folder / "stale.sock")
    (vmm.folder / "broken").write_bytes((vmm.folder / "vmstate").read_bytes()[:-1] + b"?")
    return vmm.folder


@pytest.mark.parametrize("state, pager, words", [
    ("none", "none", "No such file or directory (os error 2)"),
    ("broken", "none", "CRC64"),
    ("memory", "none", "Magic"),
    ("vmstate", "none", "Failed to connect to UDS Unix stream: No such file or directory (os error 2)"),
    ("vmstate", "stale.sock", "Failed to connect to UDS Unix stream: Connection refused (os error 111)"),
])
def test_a_load_that_fails_is_the_end(lab, frozen, state, pager, words):
    vmm = Vmm(lab, frozen)
    reply = vmm.load(state, pager)
    assert reply.status == 400
    assert reply.fault().startswith("Load snapshot error: Failed to restore from snapshot: ")
    assert words in reply.fault()
    vmm.expect_exit(1)


def test_a_load_needs_the_files_of_its_drives(lab, frozen):
    os.remove(frozen / "rootfs")
    vmm = Vmm(lab, frozen, rootfs=False)
    reply = vmm.ask("PUT", "/snapshot/load", {"snapshot_path": "vmstate", "mem_file_path": "memory"})
    assert "Error manipulating the backing file: No such file or directory (os error 2) rootfs" in reply.fault()
    vmm.expect_exit(1)


def test_a_short_memory_file_is_refused(lab, frozen):
    os.truncate(frozen / "memory", 4096)
    vmm = Vmm(lab, frozen)
    reply = vmm.ask("PUT", "/snapshot/load", {"snapshot_path": "vmstate", "mem_file_path": "memory"})
    assert "OffsetTooLarge" in reply.fault()
    vmm.expect_exit(1)


def test_a_load_after_configuration_is_refused(vmm):
    vmm.put("/boot-source", {"kernel_image_path": "kernel"})
    text = vmm.refused("PUT", "/snapshot/load", fclib.load_body("a", "b"))
    assert "not allowed after configuring boot-specific resources" in text


@pytest.mark.parametrize("writer, reader, fits", [
    ("1.14.1", "1.13.1", True), ("1.14.1", "1.15.0", False), ("1.11.0", "1.12.0", False), ("1.16.0", "1.15.1", False)])
def test_formats_must_fit(lab, writer, reader, fits):
    vmm = Vmm(lab, FC_STANDIN_VERSION=writer)
    vmm.boot()
    vmm.snapshot()
    other = Vmm(lab, vmm.folder, FC_STANDIN_VERSION=reader)
    reply = other.ask("PUT", "/snapshot/load", {"snapshot_path": "vmstate", "mem_file_path": "memory"})
    assert (reply.status == 204) == fits, reply.body
    assert fits or "is not supported" in reply.fault()


def test_a_diff_of_an_old_version_needs_tracking(lab):
    vmm = Vmm(lab, FC_STANDIN_VERSION="1.12.0")
    vmm.boot()
    vmm.pause()
    body = {"snapshot_path": "a", "mem_file_path": "b", "snapshot_type": "Diff"}
    assert "dirty page tracking disabled" in vmm.refused("PUT", "/snapshot/create", body)
