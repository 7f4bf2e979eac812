"""What the QEMU binaries of this host can do: `await cache.get(binary)` gives `QemuCapabilities`."""

from pyvirtd.drivers.qemu.capabilities.cache import CapabilitiesCache
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
from pyvirtd.drivers.qemu.capabilities.probe import ProbeFailed, RunAs, probe

__all__ = [
    "Accelerator",
    "CapabilitiesCache",
    "CpuDefinition",
    "CpuModel",
    "GicVersion",
    "HostCpu",
    "Machine",
    "ProbeFailed",
    "QemuCapabilities",
    "RunAs",
    "SevCapability",
    "SgxCapability",
    "probe",
]
