"""Ask one QEMU binary, through QMP, what it can do. The child never outlives its deadline, nor the daemon.

QEMU is started twice where KVM works, once under KVM and once under TCG, because CPU models differ between the two.
Privileges are those of guests (the configured user), plus the right to open device nodes, as libvirt gives its probes.
"""

import asyncio
import contextlib
import logging
import os
import re
import shutil
import signal
import socket
from collections.abc import AsyncIterator, Iterable, Set
from dataclasses import replace
from typing import Any, NamedTuple

from qemu.qmp import ExecuteError, QMPClient, QMPError

from pyvirtd.constants.error import ErrorDomain
from pyvirtd.drivers.qemu.capabilities import schema
from pyvirtd.drivers.qemu.capabilities.model import (
    Accelerator,
    CpuDefinition,
    CpuModel,
    GicVersion,
    HostCpu,
    Machine,
    QemuCapabilities,
    SevCapability,
    SgxCapability,
)
from pyvirtd.drivers.qemu.capabilities.wanted import DEVICES, OBJECTS
from pyvirtd.drivers.qemu.monitor import QuietClient
from pyvirtd.errors import InternalError, from_os_error
from pyvirtd.util.process import Launch, Process, spawn

log = logging.getLogger(__name__)

ERROR_TEXT_MAX = 64 * 1024
MAX_SKIPPED = 4
# QEMU's names of targets that libvirt calls otherwise.
ARCH_OF_TARGET = {"i386": "i686", "arm": "armv7l", "or1k": "openrisc", "hppa": "parisc"}
X86 = ("i686", "x86_64")
_VERSIONED = re.compile(r"-v[0-9]+$")


class RunAs(NamedTuple):
    """The user and group a probe runs as when the daemon is root."""

    uid: int
    gid: int


class ProbeFailed(InternalError):
    """The binary could not be asked; the text ends with QEMU's own last words."""

    domain = ErrorDomain.QEMU
    fatal_type: str | None = None  # the type whose properties were being asked when QEMU died


async def probe(binary: str, *, run_as: RunAs | None = None, timeout_s: float = 30.0) -> QemuCapabilities:
    """The capabilities of an emulator that may be run. Raises ProbeFailed, or SystemError_ if it cannot start."""
    try:
        async with asyncio.timeout(timeout_s):
            return await _probe(binary, run_as)
    except TimeoutError as exc:
        raise ProbeFailed(f"Failed to probe QEMU binary {binary}: no answer within {timeout_s:g} seconds") from exc


async def _probe(binary: str, run_as: RunAs | None) -> QemuCapabilities:
    try:
        caps = await _ask_patiently(binary, "kvm:tcg", run_as)
    except ProbeFailed as exc:
        # A KVM that takes QEMU down with it must not hide what emulation can do; other failures repeat themselves here.
        if not os.access("/dev/kvm", os.F_OK):
            raise
        log.info("%s does not run under KVM, asking it under TCG: %s", binary, exc)
        return await _ask_patiently(binary, "tcg", run_as)
    if caps.kvm is not None and caps.has_device("tcg-accel"):
        async with _running(binary, "tcg", run_as) as qmp:
            side = await _ask_accelerator(qmp, caps.arch, "max")
            definitions = await _ask_definitions(qmp, side.cpu_models) if caps.arch in X86 else ()
            caps = replace(caps, tcg=side, cpu_definitions=_merge(caps.cpu_definitions, definitions))
    return caps


async def _ask_patiently(binary: str, accelerators: str, run_as: RunAs | None) -> QemuCapabilities:
    """All answers; a type whose properties cannot be asked without killing QEMU is left out.

    QEMU creates an object of the type to list its properties, and aborts if a part of it is in a missing module.
    """
    skipped: set[str] = set()
    while True:
        try:
            async with _running(binary, accelerators, run_as) as qmp:
                return await _ask_all(binary, qmp, skipped)
        except ProbeFailed as exc:
            if exc.fatal_type is None or len(skipped) >= MAX_SKIPPED:
                raise
            skipped.add(exc.fatal_type)


@contextlib.asynccontextmanager
async def ask(binary: str, run_as: RunAs | None, timeout_s: float = 30.0) -> AsyncIterator["Answers"]:
    """An emulator under TCG to put single questions to. Raises ProbeFailed when it does not start or answer in time."""
    try:
        async with asyncio.timeout(timeout_s), _running(binary, "tcg", run_as) as asker:
            yield Answers(asker.qmp)
    except TimeoutError as exc:
        raise ProbeFailed(f"Failed to ask QEMU binary {binary}: no answer within {timeout_s:g} seconds") from exc


class Answers:
    """QMP whose refusals are a client's errors."""

    def __init__(self, qmp: QMPClient) -> None:
        self._qmp = qmp

    async def execute(self, command: str, **arguments: object) -> dict[str, Any]:
        """The reply, an object. Raises InternalError with QEMU's words."""
        try:
            reply = await self._qmp.execute(command, arguments or None)
        except ExecuteError as exc:
            raise InternalError(f"unable to execute QEMU command '{command}': {exc}", domain=ErrorDomain.QEMU) from exc
        return reply if isinstance(reply, dict) else {}


@contextlib.asynccontextmanager
async def _running(binary: str, accelerators: str, run_as: RunAs | None) -> AsyncIterator["_Asker"]:
    """A QEMU that waits for questions. Its stderr goes to memory, so that nobody has to read along."""
    ours, theirs = socket.socketpair()
    words = os.memfd_create("stderr", os.MFD_CLOEXEC)
    qmp = QuietClient("probe")
    asker = _Asker(qmp)
    process: Process | None = None
    try:
        with theirs:
            launch = Launch(env=_environment(), pass_fds=[theirs.fileno()], stderr=words, cwd="/")
            process = _spawn([*_wrapper(run_as), *_command(binary, accelerators, theirs.fileno())], launch)
        await qmp.connect(ours)
        yield asker
    except (QMPError, OSError, EOFError) as exc:
        if process is not None:
            process.send_signal(signal.SIGKILL)
            await process.wait()
        failure = ProbeFailed(f"Failed to start QEMU binary {binary} for probing: {_last_words(words) or exc}")
        failure.fatal_type = asker.type_asked
        raise failure from exc
    finally:
        if process is not None:
            process.send_signal(signal.SIGKILL)
            await process.wait()
        with contextlib.suppress(QMPError, OSError, EOFError):
            await qmp.disconnect()
        ours.close()
        os.close(words)


def _spawn(argv: list[str], launch: Launch) -> Process:
    try:
        return spawn(argv, launch)
    except OSError as exc:
        raise from_os_error(exc, f"Cannot run {argv[0]}", domain=ErrorDomain.QEMU) from exc


def _command(binary: str, accelerators: str, fd: int) -> list[str]:
    return [
        binary, "-S", "-no-user-config", "-nodefaults", "-nographic", "-machine", f"none,accel={accelerators}",
        "-chardev", f"socket,id=mon,fd={fd}", "-mon", "chardev=mon,mode=control",
    ]  # fmt: skip


def _wrapper(run_as: RunAs | None) -> list[str]:
    """The command that gives the child its user and ties its life to ours; empty without util-linux."""
    setpriv = shutil.which("setpriv")
    if setpriv is None:
        return []
    words = [setpriv, "--pdeathsig", "KILL"]
    if run_as is not None and os.geteuid() == 0:
        words += [
            f"--reuid={run_as.uid}",
            f"--regid={run_as.gid}",
            "--clear-groups",
            "--bounding-set=-all,+dac_override",
        ]
        # /dev/kvm and /dev/sev are often closed to the guests' user and opened for it only when a guest starts
        words += ["--inh-caps=-all,+dac_override", "--ambient-caps=-all,+dac_override"]
    return words


def _environment() -> dict[str, str]:
    return {"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C", "HOME": "/"}


def _last_words(file: int) -> str:
    """The end of what was written to stderr."""
    size = os.fstat(file).st_size
    return os.pread(file, ERROR_TEXT_MAX, max(size - ERROR_TEXT_MAX, 0)).decode(errors="replace")


class _Asker:
    """QMP with answers by type; a command this QEMU lacks answers with nothing."""

    def __init__(self, qmp: QMPClient) -> None:
        self.qmp = qmp
        self.type_asked: str | None = None

    async def one(self, command: str, **arguments: object) -> dict[str, Any]:
        reply = await self._ask(command, arguments)
        return reply if isinstance(reply, dict) else {}

    async def many(self, command: str, **arguments: object) -> list[Any]:
        reply = await self._ask(command, arguments)
        return reply if isinstance(reply, list) else []

    async def property_names(self, command: str, type_name: str) -> frozenset[str]:
        self.type_asked = type_name
        names = await self.names(command, typename=type_name)
        self.type_asked = None
        return names

    async def names(self, command: str, **arguments: object) -> frozenset[str]:
        return frozenset(row["name"] for row in await self.many(command, **arguments))

    async def _ask(self, command: str, arguments: dict[str, object]) -> object:
        try:
            return await self.qmp.execute(command, arguments or None)
        except ExecuteError as exc:
            log.debug("%s %s: %s", command, arguments, exc)
            return None


async def _ask_all(binary: str, qmp: _Asker, skipped: Set[str]) -> QemuCapabilities:
    version = await qmp.one("query-version")
    number = version["qemu"]
    target = (await qmp.one("query-target"))["arch"]
    arch = ARCH_OF_TARGET.get(target, target)
    enabled = bool((await qmp.one("query-kvm")).get("enabled"))
    side = await _ask_accelerator(qmp, arch, "host" if enabled else "max")
    types = await qmp.names("qom-list-types", abstract=False)
    return QemuCapabilities(
        binary=binary,
        version=number["major"] * 1_000_000 + number["minor"] * 1000 + number["micro"],
        package=version.get("package", ""),
        arch=arch,
        tcg=None if enabled else side,
        kvm=side if enabled else None,
        types=types,
        properties=await _ask_properties(qmp, types - skipped, side.machines),
        schema=schema.paths(await qmp.many("query-qmp-schema")),
        options=_option_paths(await qmp.many("query-command-line-options")),
        cpu_definitions=await _ask_definitions(qmp, side.cpu_models) if arch in X86 else (),
        tpm_models=tuple(await qmp.many("query-tpm-models")),
        tpm_types=tuple(await qmp.many("query-tpm-types")),
        gic=tuple(
            GicVersion(g["version"], g["kernel"], g["emulated"]) for g in await qmp.many("query-gic-capabilities")
        ),
        sev=_sev(await qmp.one("query-sev-capabilities")),
        sgx=_sgx(await qmp.one("query-sgx-capabilities")),
    )


async def _ask_accelerator(qmp: _Asker, arch: str, host_name: str) -> Accelerator:
    machines = tuple(_machine(row) for row in await qmp.many("query-machines") if row["name"] != "none")
    models = tuple(_cpu_model(row, arch) for row in await qmp.many("query-cpu-definitions"))
    return Accelerator(machines, models, await _ask_host_cpu(qmp, arch, host_name))


def _machine(row: dict[str, Any]) -> Machine:
    return Machine(
        name=row["name"],
        alias=row.get("alias"),
        max_cpus=row.get("cpu-max", 0),
        is_default=row.get("is-default", False),
        deprecated=row.get("deprecated", False),
        default_cpu_type=row.get("default-cpu-type"),
        default_ram_id=row.get("default-ram-id"),
    )


def _cpu_model(row: dict[str, Any], arch: str) -> CpuModel:
    blockers = row.get("unavailable-features")
    # s390x shows a model without blockers that this CPU lacks as a whole by the blocker "type"
    return CpuModel(
        name=_model_name(row["name"], arch),
        type=row.get("typename", ""),
        alias_of=row.get("alias-of"),
        usable=None if blockers is None else not blockers,
        blockers=tuple(blockers or ()),
        deprecated=row.get("deprecated", False),
    )


def _model_name(name: str, arch: str) -> str:
    """POWER models lose their version ("power8_v2.0" is "POWER8"), the rest stays."""
    return name.split("_v", 1)[0].upper() if arch.startswith("ppc") and name.startswith("power") else name


async def _ask_host_cpu(qmp: _Asker, arch: str, name: str) -> HostCpu | None:
    """The accelerator's best CPU; where QEMU tells it, what of it a migration cannot carry."""
    props = await _expand(qmp, name, "static" if arch in (*X86, "s390x") else "full")
    if props is None:
        return None
    # with "migratable" off QEMU adds the features (invtsc) that the default leaves out
    whole = await _expand(qmp, name, "static", migratable=False) if arch in X86 else None
    everything = {**props, **(whole or {})}
    return HostCpu(
        name=name,
        features=frozenset(_true(everything)),
        unmigratable=frozenset(_true(everything)) - frozenset(_true(props)),
        numbers={n: v for n, v in everything.items() if isinstance(v, int) and not isinstance(v, bool)},
        strings={n: v for n, v in everything.items() if isinstance(v, str)},
        hyperv=await _ask_hyperv(qmp, name) if arch in X86 else frozenset(),
    )


async def _ask_hyperv(qmp: _Asker, name: str) -> frozenset[str]:
    """What "hv-passthrough" turns on. Two enlightenments are values, not switches, and work anywhere."""
    props = await _expand(qmp, name, "full", **{"hv-passthrough": True}) or {}
    found = {n.removeprefix("hv-").replace("-", "_") for n in _true(props) if n.startswith("hv-")} - {"passthrough"}
    return frozenset(found | {n for n in ("spinlocks", "vendor_id") if f"hv-{n.replace('_', '-')}" in props})


async def _ask_definitions(qmp: _Asker, models: Iterable[CpuModel]) -> tuple[CpuDefinition, ...]:
    """What each model means, versions left out: an unversioned name is an alias of one of them."""
    found = []
    for name in (m.name for m in models if m.name not in ("host", "max", "base")):
        if _VERSIONED.search(name) or (props := await _expand(qmp, name, "static")) is None:
            continue
        found.append(
            CpuDefinition(
                name, frozenset(_true(props)) - {"hypervisor"}, props.get("vendor", ""),
                props.get("family", 0), props.get("model", 0), props.get("stepping", 0),
            )
        )  # fmt: skip
    return tuple(found)


def _merge(under_kvm: Iterable[CpuDefinition], under_tcg: Iterable[CpuDefinition]) -> tuple[CpuDefinition, ...]:
    """Definitions as QEMU has them: each accelerator shows a model with its own defaults on top.

    KVM adds x2apic and takes acpi, monitor and svm away, TCG takes vme away (target/i386/kvm/kvm-cpu.c, tcg/tcg-cpu.c).
    """
    with_vme = {d.name for d in under_kvm if "vme" in d.features}
    return tuple(replace(d, features=d.features | {"vme"}) if d.name in with_vme else d for d in under_tcg)


async def _expand(qmp: _Asker, name: str, kind: str, **props: object) -> dict[str, Any] | None:
    model: dict[str, object] = {"name": name}
    if props:
        model["props"] = props
    reply = await qmp.one("query-cpu-model-expansion", type=kind, model=model)
    expanded: dict[str, Any] | None = reply["model"].get("props", {}) if reply else None
    return expanded


def _true(props: dict[str, Any]) -> Iterable[str]:
    return (name for name, value in props.items() if value is True)


async def _ask_properties(qmp: _Asker, types: frozenset[str], machines: Iterable[Machine]) -> dict[str, frozenset[str]]:
    found = {}
    for name in DEVICES & types:
        found[name] = await qmp.property_names("device-list-properties", name)
    machine_types = {f"{m.name}-machine" for m in machines if m.alias or m.is_default} | {"none-machine"}
    for name in (OBJECTS | machine_types) & types:
        found[name] = await qmp.property_names("qom-list-properties", name)
    return found


def _option_paths(rows: Iterable[dict[str, Any]]) -> frozenset[str]:
    found = set()
    for row in rows:
        found.add(row["option"])
        found.update(f"{row['option']}.{parameter['name']}" for parameter in row["parameters"])
    return frozenset(found)


def _sev(row: dict[str, Any]) -> SevCapability | None:
    if not row:
        return None
    return SevCapability(row["pdh"], row["cert-chain"], row.get("cpu0-id"), row["cbitpos"], row["reduced-phys-bits"])


def _sgx(row: dict[str, Any]) -> SgxCapability | None:
    if not row or not row.get("sgx"):
        return None
    size = row.get("section-size") or sum(section["size"] for section in row.get("sections", ()))
    return SgxCapability(row["flc"], row["sgx1"], row["sgx2"], size // 1024)
