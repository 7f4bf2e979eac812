"""Small capabilities of an emulator that does not exist, for tests that need no real one."""

from dataclasses import replace
from typing import Any

from pyvirtd.drivers.qemu.capabilities import (
    Accelerator,
    CpuDefinition,
    CpuModel,
    GicVersion,
    HostCpu,
    Machine,
    QemuCapabilities,
)

BASE = frozenset({"fpu", "sse", "sse2", "lm", "nx", "syscall"})
MACHINES = (
    Machine("pc-q35-7.2", alias="q35", max_cpus=288),
    Machine("pc-i440fx-1.4", max_cpus=255, deprecated=True),
    Machine("pc-i440fx-7.2", alias="pc", max_cpus=255, is_default=True, default_cpu_type="qemu64-x86_64-cpu"),
)
MODELS = (
    CpuModel("max"),
    CpuModel("qemu64-v1", usable=True, blockers=()),
    CpuModel("qemu64", alias_of="qemu64-v1", usable=True),
    CpuModel("EPYC", usable=False, blockers=("svm",), deprecated=True),
    CpuModel("SapphireRapids", usable=True),
)
DEFINITIONS = (
    CpuDefinition("qemu64", BASE, "AuthenticAMD", 15, 107, 1),
    CpuDefinition("EPYC", BASE | {"svm", "aes"}, "AuthenticAMD", 23, 1, 2),
    CpuDefinition("Nehalem", BASE | {"popcnt"}, "GenuineIntel", 6, 26, 3),
)
HOST = HostCpu(
    name="max",
    features=BASE | {"aes", "pclmulqdq", "kvm-asyncpf", "invtsc"},
    unmigratable=frozenset({"invtsc"}),
    numbers={"family": 15, "model": 107},
    strings={"vendor": "AuthenticAMD"},
    hyperv=frozenset({"spinlocks", "vendor_id"}),
)
TCG = Accelerator(MACHINES, MODELS, HOST)


def make_capabilities(binary: str = "/usr/bin/qemu-system-x86_64", **changes: Any) -> QemuCapabilities:
    """An emulator for x86_64 with emulation only; `changes` are fields to be set otherwise."""
    made = QemuCapabilities(
        binary=binary,
        version=7002000,
        package="made up",
        arch="x86_64",
        tcg=TCG,
        kvm=None,
        types=frozenset({"virtio-blk-pci", "VGA", "iothread", "usb-storage"}),
        properties={"virtio-blk-pci": frozenset({"queue-size"})},
        schema=frozenset({"query-vnc", "device_add!json-cli"}),
        options=frozenset({"sandbox", "sandbox.spawn"}),
        cpu_definitions=DEFINITIONS,
        tpm_models=("tpm-crb",),
        tpm_types=("emulator",),
        gic=(GicVersion(3, kernel=False, emulated=True),),
    )
    return replace(made, **changes)
