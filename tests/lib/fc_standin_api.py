# SPDX-License-Identifier: Apache-2.0
"""
fc_standin_api.py - what the stand-in for Firecracker can be asked, and what it refuses before anything is done

A request becomes (name of an action, its parameters, deprecated?), or Refused with the text of the answer. Each body is an
object with exactly the fields that the version at hand has; in the few that ignore others, others are ignored. Whether an
action is possible at the moment is not decided here but in fc_standin_vm.py.
"""

import json
import re


class Refused(Exception):
    """A 400 with this fault_message."""


class Bad(Exception):
    """A body that is not what it must be."""


REQUIRED = object()
WORDS = re.compile(r"[A-Za-z0-9_]+")


def has(version, since):
    """Whether a version has what came with one of these versions; the last one counts for all that follow."""
    if not since:
        return True
    return version >= since[-1] or any(version[:2] == one[:2] and version >= one for one in since)


# ---- types of values


def describe(value):
    """A wrong value, as the real one says it."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return f"boolean `{str(value).lower()}`"
    if isinstance(value, int):
        return f"integer `{value}`"
    if isinstance(value, float):
        return f"floating point `{value}`"
    if isinstance(value, str):
        return f'string "{value}"'
    return "map" if isinstance(value, dict) else "sequence"


def integer(name, least, most):
    """Whole numbers of a type's range."""
    def check(value, _version):
        if isinstance(value, bool) or not isinstance(value, int):
            raise Bad(f"invalid type: {describe(value)}, expected {name}")
        if not least <= value <= most:
            raise Bad(f"invalid value: {describe(value)}, expected {name}")
        return value
    return check


U8, U16, U32 = (integer(f"u{bits}", 0, (1 << bits) - 1) for bits in (8, 16, 32))
U64, USIZE = integer("u64", 0, (1 << 64) - 1), integer("usize", 0, (1 << 64) - 1)
I64 = integer("i64", -(1 << 63), (1 << 63) - 1)


def text(value, _version):
    """Any string."""
    if not isinstance(value, str):
        raise Bad(f"invalid type: {describe(value)}, expected a string")
    return value


def boolean(value, _version):
    """true or false."""
    if not isinstance(value, bool):
        raise Bad(f"invalid type: {describe(value)}, expected a boolean")
    return value


def anything(value, _version):
    """Any JSON."""
    return value


def one_of(*words, ignore_case=False, **newer):
    """One of some words; newer: word=version that brought it."""
    def check(value, version):
        known = list(words) + [w for w, since in newer.items() if version >= since]
        if not isinstance(value, str):
            raise Bad(f"invalid type: {describe(value)}, expected string or map")
        for word in known:
            if value == word or ignore_case and value.lower() == word.lower():
                return word
        names = ", ".join(f"`{word}`" for word in known)
        raise Bad(f"unknown variant `{value}`, expected one of {names}")
    return check


def list_of(kind):
    """A list whose members are of one kind."""
    def check(value, version):
        if not isinstance(value, list):
            raise Bad(f"invalid type: {describe(value)}, expected a sequence")
        return [kind(one, version) for one in value]
    return check


def matching(expression, what):
    """Strings of a form."""
    def check(value, version):
        if not re.fullmatch(expression, text(value, version)):
            raise Bad(f"invalid value: {describe(value)}, expected {what}")
        return value
    return check


class Field:
    """One field. default None: it may be null as well; REQUIRED: it must be there."""

    def __init__(self, kind, default=None, since=()):
        self.kind, self.default, self.since = kind, default, since


class Model:
    """An object with fields; strict: no others."""

    def __init__(self, strict=True, **fields):
        self.strict, self.fields = strict, fields

    def __call__(self, value, version):
        if not isinstance(value, dict):
            raise Bad(f"invalid type: {describe(value)}, expected struct")
        fields = {name: field for name, field in self.fields.items() if has(version, field.since)}
        for name in value:
            if name not in fields and self.strict:
                names = ", ".join(f"`{field}`" for field in fields)
                raise Bad(f"unknown field `{name}`, expected one of {names}")
        result = {}
        for name, field in fields.items():
            if name not in value:
                if field.default is REQUIRED:
                    raise Bad(f"missing field `{name}`")
                result[name] = field.default
            elif value[name] is None and field.default is None:
                result[name] = None
            else:
                result[name] = field.kind(value[name], version)
        return result


# ---- bodies


def must(kind, since=()):
    """A field that must be there."""
    return Field(kind, REQUIRED, since)


V1_14, V1_16, V1_17 = [(1, 14, 0)], [(1, 16, 0)], [(1, 17, 0)]
BITMAP = matching(r"0b[01xX_]+", "a string of 0, 1 and x after 0b")
BUCKET = Model(strict=False, size=must(U64), refill_time=must(U64), one_time_burst=Field(U64))
LIMITER = Model(bandwidth=Field(BUCKET), ops=Field(BUCKET))
CPUID = Model(leaf=must(text), subleaf=must(text), flags=must(U32), modifiers=must(list_of(
    Model(register=must(one_of("eax", "ebx", "ecx", "edx")), bitmap=must(BITMAP)))))
MSR = Model(addr=must(text), bitmap=must(BITMAP))
TEMPLATE = one_of("C3", "T2", "T2S", "T2CL", "T2A", "V1N1", "None")
PAGES = one_of("None", "2M", Transparent=(1, 17, 0))
MACHINE = dict(smt=Field(boolean, False), track_dirty_pages=Field(boolean, False), cpu_template=Field(TEMPLATE),
               huge_pages=Field(PAGES, "None"))
LEVELS = one_of("Off", "Trace", "Debug", "Info", "Warn", "Warning", "Error", ignore_case=True)
LOAD = dict(
    snapshot_path=must(text), mem_file_path=Field(text), enable_diff_snapshots=Field(boolean, False),
    mem_backend=Field(Model(backend_type=must(one_of("File", "Uffd")), backend_path=must(text))),
    track_dirty_pages=Field(boolean, False, [(1, 13, 0)]), resume_vm=Field(boolean, False),
    network_overrides=Field(list_of(Model(strict=False, iface_id=must(text), host_dev_name=must(text))), (),
                            [(1, 12, 0)]),
    clock_realtime=Field(boolean, False, [(1, 14, 4), (1, 15, 1), (1, 16, 0)]),
    vsock_override=Field(Model(strict=False, uds_path=must(text)), None, V1_16),
    huge_pages=Field(one_of("Snapshot", "None", "Transparent", "2M"), "Snapshot", V1_17))
NO_DEFAULTS = {name: Field(field.kind) for name, field in MACHINE.items()}
MAC = matching(r"[0-9a-fA-F]{2}(:[0-9a-fA-F]{2}){5}", "a MAC address")

MODELS = {
    "actions": Model(action_type=must(one_of("FlushMetrics", "InstanceStart", "SendCtrlAltDel"))),
    "boot-source": Model(kernel_image_path=must(text), initrd_path=Field(text), boot_args=Field(text)),
    "machine-config": Model(vcpu_count=must(U8), mem_size_mib=must(USIZE), **MACHINE),
    "machine-update": Model(vcpu_count=Field(U8), mem_size_mib=Field(USIZE), **NO_DEFAULTS),
    "cpu-config": Model(kvm_capabilities=Field(list_of(matching(r"!?\d+", "a number, with or without !")), ()),
                        cpuid_modifiers=Field(list_of(CPUID), ()), msr_modifiers=Field(list_of(MSR), ()),
                        reg_modifiers=Field(list_of(MSR), ()),
                        vcpu_features=Field(list_of(Model(index=must(U32), bitmap=must(BITMAP))), ())),
    "drive": Model(drive_id=must(text), is_root_device=must(boolean), path_on_host=Field(text), partuuid=Field(text),
                   is_read_only=Field(boolean), cache_type=Field(one_of("Unsafe", "Writeback"), "Unsafe"),
                   io_engine=Field(one_of("Sync", "Async")), rate_limiter=Field(LIMITER), socket=Field(text)),
    "drive-update": Model(drive_id=must(text), path_on_host=Field(text), rate_limiter=Field(LIMITER)),
    "pmem": Model(id=must(text), path_on_host=must(text), root_device=Field(boolean, False),
                  read_only=Field(boolean, False), rate_limiter=Field(LIMITER, None, V1_16)),
    "pmem-update": Model(id=must(text), rate_limiter=Field(LIMITER)),
    "net": Model(iface_id=must(text), host_dev_name=must(text), guest_mac=Field(MAC), mtu=Field(
        integer("mtu", 68, 65535), None, V1_16), rx_rate_limiter=Field(LIMITER), tx_rate_limiter=Field(LIMITER)),
    "net-update": Model(iface_id=must(text), rx_rate_limiter=Field(LIMITER), tx_rate_limiter=Field(LIMITER)),
    "vsock": Model(guest_cid=must(integer("u32", 0, (1 << 32) - 1)), uds_path=must(text), vsock_id=Field(text)),
    "entropy": Model(rate_limiter=Field(LIMITER)),
    "serial": Model(serial_out_path=Field(text), rate_limiter=Field(BUCKET, None, V1_16)),
    "logger": Model(log_path=Field(text), level=Field(LEVELS), show_level=Field(boolean), module=Field(text),
                    show_log_origin=Field(boolean)),
    "metrics": Model(strict=False, metrics_path=must(text), emit_id=Field(boolean, False, V1_17),
                     properties=Field(anything, None, V1_17)),
    "mmds": anything,
    "mmds-config": Model(network_interfaces=must(list_of(text)), version=Field(one_of("V1", "V2"), "V1"),
                         ipv4_address=Field(text), imds_compat=Field(boolean, False, [(1, 13, 0)])),
    "balloon": Model(amount_mib=must(U32), deflate_on_oom=must(boolean), stats_polling_interval_s=Field(U16, 0),
                     free_page_hinting=Field(boolean, False, V1_14), free_page_reporting=Field(boolean, False, V1_14)),
    "balloon-update": Model(amount_mib=must(U32)),
    "balloon-statistics-update": Model(stats_polling_interval_s=must(U16)),
    "hinting-start": Model(strict=False, acknowledge_on_stop=Field(boolean, True)),
    "hotplug": Model(total_size_mib=must(U32), block_size_mib=Field(U32, 2), slot_size_mib=Field(U32, 128)),
    "hotplug-update": Model(requested_size_mib=must(U32)),
    "vm": Model(state=must(one_of("Paused", "Resumed"))),
    "snapshot-create": Model(mem_file_path=must(text), snapshot_path=must(text),
                             snapshot_type=Field(one_of("Full", "Diff"), "Full")),
    "snapshot-load": Model(**LOAD),
}

# (method, first word of the path) -> what the rest of the path must be: "" nothing looked at, "id", or words, with
# what that leads to: (action, body, since). The body is a name above, or None for no body.
ROUTES = {
    ("GET", ""): {"": ("get_info", None, ())},
    ("GET", "version"): {"": ("get_version", None, ())},
    ("GET", "vm"): {"config": ("get_config", None, ())},
    ("GET", "machine-config"): {"": ("get_machine", None, ())},
    ("GET", "mmds"): {"": ("get_mmds", None, ())},
    ("GET", "balloon"): {"": ("get_balloon", None, ()), "statistics": ("get_statistics", None, ()),
                         "hinting/status": ("get_hinting", None, V1_14)},
    ("GET", "hotplug"): {"memory": ("get_hotplug", None, V1_14)},
    ("PUT", "actions"): {"": ("act", "actions", ())},
    ("PUT", "boot-source"): {"": ("put_boot", "boot-source", ())},
    ("PUT", "machine-config"): {"": ("put_machine", "machine-config", ())},
    ("PUT", "cpu-config"): {"": ("put_cpu", "cpu-config", ())},
    ("PUT", "drives"): {"id": ("put_drive", "drive", ())},
    ("PUT", "pmem"): {"id": ("put_pmem", "pmem", V1_14)},
    ("PUT", "network-interfaces"): {"id": ("put_net", "net", ())},
    ("PUT", "vsock"): {"": ("put_vsock", "vsock", ())},
    ("PUT", "entropy"): {"": ("put_entropy", "entropy", ())},
    ("PUT", "serial"): {"": ("put_serial", "serial", V1_14)},
    ("PUT", "logger"): {"": ("put_logger", "logger", ())},
    ("PUT", "metrics"): {"": ("put_metrics", "metrics", ())},
    ("PUT", "mmds"): {"": ("put_mmds", "mmds", ()), "config": ("put_mmds_config", "mmds-config", ())},
    ("PUT", "balloon"): {"": ("put_balloon", "balloon", ())},
    ("PUT", "hotplug"): {"memory": ("put_hotplug", "hotplug", V1_14)},
    ("PUT", "snapshot"): {"create": ("create", "snapshot-create", ()), "load": ("load", "snapshot-load", ())},
    ("PATCH", "machine-config"): {"": ("patch_machine", "machine-update", ())},
    ("PATCH", "drives"): {"id": ("patch_drive", "drive-update", ())},
    ("PATCH", "pmem"): {"id": ("patch_pmem", "pmem-update", V1_16)},
    ("PATCH", "network-interfaces"): {"id": ("patch_net", "net-update", ())},
    ("PATCH", "mmds"): {"": ("patch_mmds", "mmds", ())},
    ("PATCH", "vm"): {"": ("patch_vm", "vm", ())},
    ("PATCH", "hotplug"): {"memory": ("patch_hotplug", "hotplug-update", V1_14)},
    ("PATCH", "balloon"): {"": ("patch_balloon", "balloon-update", ()),
                           "statistics": ("patch_statistics", "balloon-statistics-update", ()),
                           "hinting/start": ("start_hinting", "hinting-start", V1_14),
                           "hinting/stop": ("stop_hinting", None, V1_14)},
    ("DELETE", "drives"): {"id": ("unplug", None, V1_16)},
    ("DELETE", "pmem"): {"id": ("unplug", None, V1_16)},
    ("DELETE", "network-interfaces"): {"id": ("unplug", None, V1_16)},
}
BODY_OPTIONAL = ("start_hinting", "stop_hinting")
ID_FIELDS = {"drive": "drive_id", "drive-update": "drive_id", "pmem": "id", "pmem-update": "id", "net": "iface_id",
             "net-update": "iface_id"}


def no_duplicates(pairs):
    """An object with each name once."""
    result = {}
    for name, value in pairs:
        if name in result:
            raise Bad(f"duplicate field `{name}`")
        result[name] = value
    return result


def refuse_constant(word):
    """NaN and Infinity are not JSON."""
    raise Bad(f"expected value, not {word}")


def decode(body, model, version):
    """The body as the model's fields."""
    try:
        try:
            value = json.loads(body.decode(), object_pairs_hook=no_duplicates, parse_constant=refuse_constant)
        except (UnicodeDecodeError, json.JSONDecodeError) as e:
            raise Bad(str(e)) from None
        return MODELS[model](value, version)
    except Bad as e:
        raise Refused("An error occurred when deserializing the json body of a request: "
                      f"{e} at line 1 column {len(body)}.") from None


def checked_id(tokens):
    """The id that a path ends with."""
    if not tokens:
        raise Refused("The ID cannot be empty.")
    if not WORDS.fullmatch(tokens[0]):
        raise Refused("API Resource IDs can only contain alphanumeric characters and underscores.")
    return tokens[0]


def find_route(method, tokens, version):
    """(action, body, since) of a path, and the id in it."""
    first = tokens[0] if tokens else ""
    routes = ROUTES.get((method, first))
    if not routes or not any(has(version, since) for _, _, since in routes.values()):
        raise Refused(f"Invalid request method and/or path: {method} {first}.")
    if "id" in routes:
        return routes["id"], tokens[1:]
    rest = "/".join(tokens[1:])
    route = routes.get(rest)
    if route and has(version, route[2]):
        return route, None
    if first in ("balloon", "mmds") and tokens[1:]:
        raise Refused(f"Unrecognized {method} request path `{rest}`.")
    if first == "snapshot":
        raise Refused("Missing snapshot operation type." if not rest else
                      f"Invalid request method and/or path: {method} /snapshot/{rest}.")
    raise Refused(f"Invalid request method and/or path: {method} {first}.")


def parse(method, path, body, version):
    """(action, parameters, deprecated) of a request, or Refused."""
    tokens = path.lstrip("/").split("/")
    if tokens and tokens[-1] == "":
        tokens.pop()
    first = tokens[0] if tokens else ""
    if method == "GET" and body is not None:
        raise Refused("GET request cannot have a body.")
    if method == "DELETE" and body is not None:
        raise Refused("Empty Delete request.")
    hinting = first == "balloon" and tokens[1:2] == ["hinting"]
    if method in ("PUT", "PATCH") and body is None and not hinting:
        raise Refused(f"Empty {method} request.")
    (action, model, _), id_tokens = find_route(method, tokens, version)
    one_id = checked_id(id_tokens) if id_tokens is not None else None
    params = {}
    if model and not (body is None and action in BODY_OPTIONAL):
        params = decode(body, model, version)
    elif action == "start_hinting":
        params = {"acknowledge_on_stop": True}
    if model in ID_FIELDS and params[ID_FIELDS[model]] != one_id:
        raise Refused(f"The id from the path [{one_id}] does not match the id from the body "
                      f"[{params[ID_FIELDS[model]]}]!" if "net" in model else
                      "The id from the path does not match the id from the body!")
    if action == "unplug":
        params = {"kind": first, "id": one_id}
    return action, params, check_more(action, params)


def check_more(action, params):
    """What is looked at beyond the fields themselves. Return: whether the answer says `Deprecation`."""
    prefix = "An error occurred when deserializing the json body of a request: "
    if action == "load":
        both = params["mem_backend"], params["mem_file_path"]
        if all(one is not None for one in both):
            raise Refused(prefix + "too many fields: either `mem_backend` or `mem_file_path` exclusively is required.")
        if all(one is None for one in both):
            raise Refused(prefix + "missing field: either `mem_backend` or `mem_file_path` is required.")
        return params["mem_file_path"] is not None or params["enable_diff_snapshots"]
    if action == "patch_machine" and all(value is None for value in params.values()):
        raise Refused("Empty PATCH request.")
    if action in ("put_machine", "patch_machine"):
        return params["cpu_template"] is not None
    if action == "put_vsock":
        return params["vsock_id"] is not None
    return action == "put_mmds_config" and params["version"] == "V1"
