"""PCI devices of the host: their groups, and moving them between the kernel's drivers.

A device is given to a guest by a driver of the VFIO family, which hands its IOMMU group to a process; the driver is
chosen by the device's `driver_override`. https://docs.kernel.org/driver-api/vfio.html

Everything here blocks: for a thread. Giving a device up may take the kernel as long as somebody holds it open.
"""

import os
from contextlib import suppress
from fnmatch import fnmatchcase
from pathlib import Path
from typing import NamedTuple

from pyvirtd.errors import InternalError, OperationFailed, from_os_error

VFIO_PCI = "vfio-pci"
FAMILY = "vfio_pci:"  # the kind of alias by which drivers of the family say what they are for
HEADER_TYPE, MULTIFUNCTION = 0x0E, 0x80  # linux/pci_regs.h PCI_HEADER_TYPE; type 0 is an ordinary device
NOBODY = "\n"  # what empties driver_override


class Before(NamedTuple):
    """What giving a device back has to do: take it from its driver, let the kernel find it another."""

    unbind: bool = False
    reprobe: bool = False


class PciBus:
    """The devices, below a root of sysfs; `release` holds the running kernel's modules."""

    def __init__(self, root: Path = Path("/sys"), release: Path | None = None, nodes: Path = Path("/dev/vfio")) -> None:
        self.root = root
        self.release = release if release is not None else Path("/lib/modules") / os.uname().release
        self.nodes = nodes

    @property
    def control(self) -> Path:
        """The node by which IOMMU groups are put together."""
        return self.nodes / "vfio"

    def device(self, name: str) -> Path:
        """A device's folder."""
        return self.root / "bus/pci/devices" / name

    # --- looking -----------------------------------------------------------------------------------------------

    def lacks(self) -> str | None:
        """Why no device can be given to a guest; None where it can."""
        if not self.control.exists():
            return f"{self.control} is missing"
        try:
            groups = os.listdir(self.root / "kernel/iommu_groups")
        except OSError:
            groups = []
        return None if groups else "there is no IOMMU"

    def require(self, name: str) -> None:
        """Raises SystemError_ for a device that is not there, InternalError for one that guests cannot use."""
        config = self.device(name) / "config"
        try:
            with open(config, "rb") as file:
                kind = file.read(HEADER_TYPE + 1)[HEADER_TYPE:]
        except OSError as exc:
            raise from_os_error(exc, f"Device {name} not found: could not access {config}") from exc
        if kind and kind[0] & ~MULTIFUNCTION:
            raise InternalError(f"Non-endpoint PCI devices cannot be assigned to guests: {name}")

    def driver(self, name: str) -> str | None:
        """The driver that has a device."""
        link = self.device(name) / "driver"
        return os.path.basename(os.path.realpath(link)) if link.is_symlink() else None

    def is_vfio(self, name: str) -> bool:
        """A driver of the VFIO family has the device; one that is not vfio-pci itself shows by what it adds."""
        return self.driver(name) == VFIO_PCI or (self.device(name) / "vfio-dev").is_dir()

    def group(self, name: str) -> int | None:
        """The number of a device's IOMMU group."""
        return group_of(self.device(name))

    def siblings(self, name: str) -> list[str]:
        """The devices of its IOMMU group, itself among them: no two guests can share one."""
        with suppress(OSError):
            return sorted(os.listdir(self.device(name) / "iommu_group/devices"))
        return [name]

    def find_driver(self, name: str) -> str | None:
        """A driver of the running kernel as that spells it; modules do not tell - from _."""
        with suppress(OSError):
            for found in os.listdir(self.root / "bus/pci/drivers"):
                if found.replace("-", "_") == name.replace("-", "_"):
                    return found
        return None

    def best_module(self, name: str) -> str | None:
        """The module of the VFIO family that is made for a device; None where only vfio-pci will do."""
        try:
            alias = (self.device(name) / "modalias").read_text().strip()
            lines = (self.release / "modules.alias").read_text().splitlines()
        except OSError:
            return None
        wanted = FAMILY + alias.partition(":")[2]
        rows = [line.split() for line in lines if line.startswith(f"alias {FAMILY}")]
        fits = [(pattern.count("*"), module) for _, pattern, module in rows if fnmatchcase(wanted, pattern)]
        module = min(fits)[1] if fits else None
        return None if module == VFIO_PCI.replace("-", "_") else module

    # --- moving ------------------------------------------------------------------------------------------------

    def bind(self, name: str, driver: str) -> Before:
        """Put a device into the hands of a driver. Raises VirtError; then it is where it was."""
        former = self.driver(name)
        if former == driver:
            return Before()
        before = Before(unbind=True, reprobe=former is not None)
        try:
            self._move(name, driver)
        except OSError as exc:
            self._return(name, before)
            raise from_os_error(exc, f"Failed to bind PCI device '{name}' to {driver}") from exc
        found = self.driver(name)
        if found != driver:
            self._return(name, before)
            raise OperationFailed(
                f"Failed to bind PCI device '{name}' to {driver}: the kernel leaves it to {found or 'no driver'}"
            )
        return before

    def give_back(self, name: str, before: Before) -> None:
        """Let a device have the driver it had. Raises SystemError_."""
        if not before.unbind:
            return
        try:
            if self.driver(name) is not None and not self.is_vfio(name):
                self.write(self.device(name) / "driver_override", NOBODY)  # it was never moved
                return
            self._move(name, None, probe=before.reprobe)
        except OSError as exc:
            raise from_os_error(exc, f"Failed to give PCI device '{name}' back to its driver") from exc

    def _return(self, name: str, before: Before) -> None:
        with suppress(OSError):
            self._move(name, None, probe=before.reprobe)

    def _move(self, name: str, driver: str | None, *, probe: bool = True) -> None:
        """From its driver to another; None: to the one that the kernel chooses."""
        device = self.device(name)
        self.write(device / "driver_override", driver or NOBODY)
        if self.driver(name) is not None:
            self.write(device / "driver/unbind", name)
        if probe:
            self.write(self.root / "bus/pci/drivers_probe", name)

    def write(self, path: Path, text: str) -> None:
        """Tell the kernel, in one call. Raises OSError."""
        fd = os.open(path, os.O_WRONLY | os.O_TRUNC | os.O_CLOEXEC)
        try:
            os.write(fd, text.encode())
        finally:
            os.close(fd)


def group_of(device: Path) -> int | None:
    """The number of the IOMMU group of a device in sysfs."""
    link = device / "iommu_group"
    word = os.path.basename(os.path.realpath(link)) if link.is_symlink() else ""
    return int(word) if word.isdigit() else None
