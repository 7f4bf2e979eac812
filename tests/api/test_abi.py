"""The declarations against the protocol: a digest that is always checked, and the reference tables where present."""

import hashlib
import json
import os
import re
from pathlib import Path
from typing import Any

import pytest

import pyvirtd.api  # noqa: F401 - importing declares
from pyvirtd.api.rpc import ADMIN, EVENTS, LXC, PROCEDURES, QEMU, REMOTE, Need, Procedure, Program
from pyvirtd.wire.xdr import Cases, Chars, Fixed, Fmt, List, Opaque, Optional_, Struct, Text, Type, describe

# Changes when any number, type, limit, permission, read-only class or stream direction changes: then compare with the
# protocol again and put the new value here.
DIGEST = "5148c63277c3fd3894f7d6b4b28ca58981ee6e401e30749d416607d63b37e427"

REFERENCE = Path(os.environ.get("PYVIRTD_REFERENCE", Path(__file__).parents[3] / "shared")) / "protocol/protocol.json"


def shape(kind: Type) -> str:
    """A wire type in words: structs as the list of their fields' types."""
    match kind:
        case Fmt(code):
            return code
        case Text(limit):
            return f"string<{limit}>"
        case Opaque(limit):
            return f"opaque<{limit}>"
        case Fixed(size):
            return f"opaque[{size}]"
        case Chars(limit, fixed):
            return f"char[{limit}]" if fixed else f"char<{limit}>"
        case Optional_(item):
            return f"{shape(item)}?"
        case List(item, limit):
            return f"{shape(item)}<{limit}>"
        case Cases(arms):
            return "|".join(f"{int(number)}:{shape(describe(item))}" for number, item in arms)
        case Struct(_, fields):
            return "(" + ",".join(shape(item) for _, item in fields) + ")"


def need_text(need: Need) -> str:
    return f"{need.permission}:{need.param}:{need.mask:x}:{need.clear:d}{need.equals:d}"


def line(procedure: Procedure) -> str:
    args = ",".join(shape(kind) for _, kind in procedure.args.fields)
    reply = ",".join(shape(kind) for _, kind in procedure.reply.fields)
    needs = " ".join(need_text(need) for need in procedure.needs)
    deny = need_text(procedure.ro_deny) if procedure.ro_deny else ""
    return (
        f"{procedure.program.number} {procedure.number} {procedure.name}({args})->{reply} {needs}"
        f" {procedure.list_filter}"
        f" {procedure.read_only}{deny} {procedure.stream} {procedure.sparse_flag}"
    )


def event_lines() -> list[str]:
    return [
        f"{m.program.number} {m.number} {m.legacy} {m.lead_words} {','.join(shape(k) for _, k in m.body.fields)}"
        for m in EVENTS.values()
    ]


def test_declarations_have_the_recorded_digest() -> None:
    lines = sorted([line(procedure) for procedure in PROCEDURES.values()] + event_lines())
    assert hashlib.sha256("\n".join(lines).encode()).hexdigest() == DIGEST


# --- the reference tables -------------------------------------------------------------------------------------------

BUFFER_SIZES = {  # libvirt-host.h, libvirt-domain.h
    "VIR_UUID_BUFLEN": 16,
    "VIR_SECURITY_MODEL_BUFLEN": 257,
    "VIR_SECURITY_LABEL_BUFLEN": 4097,
    "VIR_SECURITY_DOI_BUFLEN": 257,
}
SCALARS = {
    "int": "i",
    "uint": "I",
    "hyper": "q",
    "uhyper": "Q",
    "double": "d",
    "uchar": "i",
    "ushort": "i",
    "char": "i",
}


class Tables:
    """The reference's view of one program, in the words of `shape`."""

    def __init__(self, data: dict[str, Any]) -> None:
        self.data = data

    def size(self, word: str) -> int:
        value: Any = word
        while not isinstance(value, int):
            value = self.data["constants"].get(value, BUFFER_SIZES.get(value, value))
            value = int(value) if isinstance(value, str) and value.isdigit() else value
        return value

    def field(self, field: dict[str, Any]) -> str:
        kind, fixed, limit = field["type"], field.get("fixed_length"), field.get("max_length")
        if kind in ("opaque", "char", "string") and (fixed or limit):
            return f"{kind}[{self.size(fixed)}]" if fixed else f"{kind}<{self.size(limit)}>"
        text = self.named(kind)
        if limit:
            text = f"{text}<{self.size(limit)}>"
        return text + "?" if field.get("optional") else text

    def named(self, kind: str) -> str:
        if kind in SCALARS:
            return SCALARS[kind]
        if kind in self.data["typedefs"]:
            return self.field(self.data["typedefs"][kind])
        if kind in self.data["enums"]:
            return "i"
        if kind in self.data["unions"]:
            cases = self.data["unions"][kind]["cases"].values()
            return "|".join(f"{number}:{self.field(case)}" for number, case in enumerate(cases, 1))
        return f"({self.struct(kind)})"

    def struct(self, name: str | None) -> str:
        return ",".join(self.field(field) for field in self.data["structs"][name]) if name else ""


def tables() -> dict[str, Tables]:
    if not REFERENCE.exists():
        pytest.skip("the protocol's reference tables are not here (PYVIRTD_REFERENCE)")
    programs = json.loads(REFERENCE.read_text())
    for data in programs.values():  # the side programs use the main program's types
        for kind in ("constants", "typedefs", "enums", "structs", "unions"):
            data[kind] = programs["remote"].get(kind, {}) | data.get(kind, {})
    return {name: Tables(data) for name, data in programs.items()}


PROGRAMS = [REMOTE, QEMU, LXC, ADMIN]


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda program: program.name)
def test_numbers_types_and_limits_are_the_protocols(program: Program) -> None:
    table = tables()[program.name]
    calls = {p["number"]: p for p in table.data["procedures"] if not p.get("msg")}
    ours = {p.number: p for p in PROCEDURES.values() if p.program is program}
    assert set(ours) == set(calls)
    for number, theirs in calls.items():
        procedure = ours[number]
        assert procedure.name == theirs["name"].lower()
        args = ",".join(shape(kind) for _, kind in procedure.args.fields)
        assert args == table.struct(theirs.get("args")), procedure.name
        names = [plain(name) for name, _ in procedure.args.fields]
        assert names == [plain(field["name"]) for field in table.data["structs"].get(theirs.get("args"), [])]
        reply = ",".join(shape(kind) for _, kind in procedure.reply.fields)
        reply = re.sub(r"^\((.*)\)$", r"\1", reply) if _is_reply_struct(procedure) else reply
        assert reply == table.struct(theirs.get("ret")), procedure.name


def plain(name: str) -> str:
    """A name without its spelling: startCell and start_cell are one."""
    return name.replace("_", "").lower()


def _is_reply_struct(procedure: Procedure) -> bool:
    fields = procedure.reply.fields
    return (
        len(fields) == 1
        and isinstance(fields[0][1], Struct)
        and fields[0][1].cls.__name__.endswith(("Reply", "SecurityLabel", "SecurityModel"))
    )


# What the tables take for allowed and libvirtd 9.0 refuses a read-only client all the same, as asking it shows.
ALSO_DENIED = frozenset(
    (
        "domain_get_guest_info",
        "domain_get_launch_security_info",
        "domain_set_launch_security_state",
        "domain_set_lifecycle_action",
        "domain_set_perf_events",
        "node_device_get_autostart",
    )
)
# Likewise with a flag for secrets.
DENIED_WITH_SECRETS = frozenset(
    (
        "domain_checkpoint_get_xml_desc",
        "domain_get_xml_desc",
        "domain_managed_save_get_xml_desc",
        "domain_snapshot_get_xml_desc",
    )
)


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda program: program.name)
def test_permissions_and_classes_are_the_protocols(program: Program) -> None:
    table = tables()[program.name]
    for theirs in table.data["procedures"]:
        if theirs.get("msg"):
            continue
        procedure = PROCEDURES[program.number, theirs["number"]]
        wanted = [acl.split(":") for acl in theirs.get("acl", []) if acl != "none"]
        assert [need.permission for need in procedure.needs] == [":".join(acl[:2]) for acl in wanted], procedure.name
        for need, acl in zip(procedure.needs, wanted, strict=True):
            assert bool(need.param) == (len(acl) > 2), procedure.name
            assert need.clear == (len(acl) > 2 and acl[2].startswith("!")), procedure.name
        assert [procedure.list_filter] == theirs.get("acl_filter", [None]), procedure.name
        denied = procedure.name in ALSO_DENIED
        assert procedure.read_only == (bool(theirs.get("read_only")) and not denied), procedure.name
        conditional = isinstance(theirs.get("read_only"), str) or procedure.name in DENIED_WITH_SECRETS
        assert (procedure.ro_deny is not None) == conditional, procedure.name
        assert (procedure.stream.value if procedure.stream else None) == theirs.get("stream"), procedure.name
        assert bool(procedure.sparse_flag) == ("sparse_flag" in theirs), procedure.name


def test_events_are_the_protocols() -> None:
    found = {}
    for message in EVENTS.values():
        body = ",".join(shape(kind) for _, kind in message.body.fields)
        lead = "".join("i," for _ in range(message.lead_words))
        if message.legacy is not None:
            found[message.program.name, message.legacy] = body
            body = f"({body})"
        prefix = "" if message.family == "connect" else "i,"
        found[message.program.name, message.number] = prefix + lead + body
    for name, table in tables().items():
        for theirs in table.data["procedures"]:
            if theirs.get("msg"):
                assert found.pop((name, theirs["number"])) == table.struct(theirs["msg"]), theirs["name"]
    assert not found
