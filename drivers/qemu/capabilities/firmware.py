"""Firmware that is installed for guests: the descriptors QEMU and the distributions put into qemu/firmware directories.

Format: https://www.qemu.org/docs/master/interop/firmware.json (qemu: docs/interop/firmware.json)
"""

import fnmatch
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

from pyvirtd.drivers.qemu.capabilities.descriptors import read_descriptors

DIRECTORIES = (Path("/usr/share/qemu/firmware"), Path("/etc/qemu/firmware"))
# What libvirt offers where no descriptor fits (default of qemu.conf's "nvram"): (code, variables).
DEFAULT_LOADERS = (
    ("/usr/share/OVMF/OVMF_CODE.fd", "/usr/share/OVMF/OVMF_VARS.fd"),
    ("/usr/share/OVMF/OVMF_CODE.secboot.fd", "/usr/share/OVMF/OVMF_VARS.fd"),
    ("/usr/share/AAVMF/AAVMF_CODE.fd", "/usr/share/AAVMF/AAVMF_VARS.fd"),
    ("/usr/share/AAVMF/AAVMF32_CODE.fd", "/usr/share/AAVMF/AAVMF32_VARS.fd"),
)
_KINDS = {"uefi": "efi", "bios": "bios"}
_ARCH_OF_TARGET = {"i386": "i686", "arm": "armv7l"}


class Target(NamedTuple):
    arch: str
    machines: tuple[str, ...]  # patterns of full machine names


class Firmware(NamedTuple):
    """One descriptor. `kinds` are libvirt's words (efi, bios), `device` is flash, memory or kernel."""

    kinds: tuple[str, ...]
    device: str
    executable: str
    format: str
    nvram_template: str | None
    nvram_format: str | None
    mode: str  # of flash: split, combined or stateless
    targets: tuple[Target, ...]
    features: frozenset[str]

    def fits(self, arch: str, machine: str) -> bool:
        """It is for that architecture and (full) machine name."""
        return any(t.arch == arch and any(fnmatch.fnmatchcase(machine, m) for m in t.machines) for t in self.targets)

    @property
    def secure(self) -> bool:
        """Its variables are safe from the guest's own operating system."""
        return "requires-smm" in self.features


def read(directories: Iterable[Path] = DIRECTORIES) -> tuple[Firmware, ...]:
    """All firmware of the host, the preferred first. Blocks."""
    return read_descriptors(directories, parse, "firmware")


def parse(data: dict[str, Any]) -> Firmware:
    """One descriptor. Raises KeyError, TypeError or ValueError for what the format does not allow."""
    mapping = data["mapping"]
    device = mapping["device"]
    executable = mapping["executable"] if device == "flash" else mapping
    template = mapping.get("nvram-template", {})
    targets = (
        Target(_ARCH_OF_TARGET.get(t["architecture"], t["architecture"]), tuple(t["machines"])) for t in data["targets"]
    )
    return Firmware(
        kinds=tuple(_KINDS[k] for k in data["interface-types"] if k in _KINDS),
        device=device,
        executable=executable["filename"],
        format=executable.get("format", "raw"),
        nvram_template=template.get("filename"),
        nvram_format=template.get("format"),
        mode=mapping.get("mode", "split"),
        targets=tuple(targets),
        features=frozenset(data.get("features", ())),
    )
