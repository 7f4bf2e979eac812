"""CPU models, comparing and joining CPUs, as clients ask for them: for this host, or for one of its emulators."""

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING

from pyvirtd.api.connect import ConnectPart
from pyvirtd.api.rpc import accepts
from pyvirtd.constants.error import ErrorDomain as From
from pyvirtd.constants.host import ConnectBaselineCPUFlags as Baseline
from pyvirtd.constants.host import ConnectCompareCPUFlags as Compare
from pyvirtd.core import schema
from pyvirtd.core.host import host_arch
from pyvirtd.drivers.qemu import cpu, cpu_compare, cpu_features, cpu_s390
from pyvirtd.drivers.qemu.capabilities.domain import Choice
from pyvirtd.drivers.qemu.cpu_models import libvirt_features
from pyvirtd.errors import InvalidArg, NoSupport, OperationUnsupported

if TYPE_CHECKING:
    from pyvirtd.drivers.qemu.driver import QemuDriver

_COMPARE = Compare.FAIL_INCOMPATIBLE | Compare.VALIDATE_XML
_BASELINE = Baseline.EXPAND_FEATURES | Baseline.MIGRATABLE


class CpuCalls(ConnectPart):
    """The procedures about CPUs."""

    def __init__(self, driver: "QemuDriver") -> None:
        self.driver = driver

    @accepts(0)
    def connect_get_cpu_model_names(self, arch: str, flags: int) -> list[str]:
        return cpu.client_model_names(arch)

    @accepts(_COMPARE)
    async def connect_compare_cpu(self, xml: str, flags: int) -> int:
        wanted = await _read(xml, flags)
        arch = host_arch()
        if arch not in cpu.X86:
            raise NoSupport(f"cannot compare CPUs of {arch} architecture", domain=From.CPU)
        found = await asyncio.to_thread(cpu_features.read_host)
        host = cpu_compare.HostCpu(found.features, cpu_features.vendor_name(found.vendor))
        native = await self.driver.documents.native()
        definitions = native.cpu_definitions if native is not None else ()
        return cpu_compare.compare(wanted, host, arch, definitions, fail=bool(flags & Compare.FAIL_INCOMPATIBLE))

    @accepts(_COMPARE)
    async def connect_compare_hypervisor_cpu(
        self,
        emulator: str | None,
        arch: str | None,
        machine: str | None,
        virttype: str | None,
        xml_cpu: str,
        flags: int,
    ) -> int:
        choice = await self._choose(emulator, arch, machine, virttype)
        caps = choice.caps
        side = caps.accelerator(choice.virt_type)
        if side is None or side.host_cpu is None or caps.arch not in cpu.X86:
            raise OperationUnsupported(
                f"QEMU '{caps.binary}' does not support reporting CPU model for virttype '{choice.virt_type}'",
                domain=From.QEMU,
            )
        wanted = await _read(xml_cpu, flags)
        host = cpu_compare.HostCpu(
            libvirt_features(side.host_cpu.features), cpu_features.vendor_name(side.host_cpu.vendor or "")
        )
        fail = bool(flags & Compare.FAIL_INCOMPATIBLE)
        return cpu_compare.compare(wanted, host, choice.arch, caps.cpu_definitions, fail=fail)

    @accepts(_BASELINE)
    async def connect_baseline_cpu(self, xml_cpus: Sequence[str], flags: int) -> str:
        given = _read_all(xml_cpus, "virConnectBaselineCPU", host=True)
        arch = given[0].arch or ""
        if arch not in cpu.X86:
            return cpu_compare.other_baseline(given, arch)
        native = await self.driver.documents.native()
        return cpu_compare.baseline(
            given,
            native.cpu_definitions if native is not None else (),
            migratable=bool(flags & Baseline.MIGRATABLE),
            expand=bool(flags & Baseline.EXPAND_FEATURES),
        )

    @accepts(_BASELINE)
    async def connect_baseline_hypervisor_cpu(
        self,
        emulator: str | None,
        arch: str | None,
        machine: str | None,
        virttype: str | None,
        xml_cpus: Sequence[str],
        flags: int,
    ) -> str:
        given = _read_all(xml_cpus, "virConnectBaselineHypervisorCPU")
        choice = await self._choose(emulator, arch, machine, virttype)
        caps = choice.caps
        usable = {model.name for model in cpu.usable_names(caps, choice.virt_type, choice.arch)}
        if not caps.cpu_models(choice.virt_type):
            raise OperationUnsupported(
                f"QEMU '{caps.binary}' does not support any CPU models for virttype '{choice.virt_type}'",
                domain=From.QEMU,
            )
        for place, one in enumerate(given):
            if one.model is None:
                raise InvalidArg(f"no CPU model specified at index {place}", domain=From.CPU)
        expand = bool(flags & Baseline.EXPAND_FEATURES)
        if caps.arch == "s390x":
            _check_usable(given, usable)
            return await cpu_s390.baseline(self.driver, caps.binary, given, expand=expand)
        if choice.arch not in cpu.X86:
            raise OperationUnsupported(
                f"computing baseline hypervisor CPU is not supported for arch {choice.arch}", domain=From.QEMU
            )
        return cpu_compare.baseline(
            given,
            caps.cpu_definitions,
            usable=usable,
            blocked=cpu.blocked_features(caps, choice.virt_type),
            expand=expand,
        )

    async def _choose(
        self, emulator: str | None, arch: str | None, machine: str | None, virt_type: str | None
    ) -> Choice:
        used = {dom.config.devices.emulator or "" for dom in self.driver.domains}
        return await self.driver.documents.choice(emulator, arch, machine, virt_type, used)


async def _read(xml: str, flags: int) -> cpu_compare.ClientCpu:
    if flags & Compare.VALIDATE_XML:
        cpu_compare.check_root(xml)
        await schema.validate(xml, "cpu")
    return cpu_compare.read(xml)


def _read_all(texts: Sequence[str], function: str, *, host: bool = False) -> list[cpu_compare.ClientCpu]:
    if not texts:
        raise InvalidArg(f"xmlCPUs in {function} must not be NULL", domain=From.DOMAIN)
    return [cpu_compare.read(text, host=host) for text in texts]


def _check_usable(given: Sequence[cpu_compare.ClientCpu], usable: set[str]) -> None:
    for one in given:
        if one.model not in usable:
            raise InvalidArg(f"CPU model '{one.model}' not supported by hypervisor", domain=From.QEMU)
