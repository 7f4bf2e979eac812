"""A host with PCI devices that can be given to guests, made of plain files.

Files cannot do what sysfs does when it is written to. `FakeBus` writes to them as the real one does, and then changes
the links as the kernel would: a device leaves its driver when told by `unbind`, and `drivers_probe` gives it to the
driver of `driver_override`, or else to the one that is its own. A driver that is not loaded takes nothing.
"""

import os
import threading
from pathlib import Path

from pyvirtd.core.host_pci import PciBus

HOLD_S = 5.0
DEVICES = "bus/pci/devices"
DRIVERS = "bus/pci/drivers"


class FakeBus(PciBus):
    """A bus whose kernel is this class. `own`: the driver that is a device's without any override."""

    def __init__(self, folder: Path, *, drivers: tuple[str, ...] = ("vfio-pci", "e1000e")) -> None:
        super().__init__(folder / "sys", folder / "modules", folder / "dev/vfio")
        self.own: dict[str, str | None] = {}
        self.refuses: set[str] = set()  # drivers that take no device
        self.writes: list[str] = []
        self.hold = threading.Event()  # until it is set, no driver answers
        self.hold.set()
        for path in (self.root / DEVICES, self.root / DRIVERS, self.release, self.nodes):
            path.mkdir(parents=True)
        self.control.touch()
        (self.root / "bus/pci/drivers_probe").touch()
        for driver in drivers:
            self.add_driver(driver)

    def add_driver(self, name: str) -> None:
        (self.root / DRIVERS / name).mkdir()
        (self.root / DRIVERS / name / "unbind").touch()

    def add(self, name: str, group: int, own: str | None = "e1000e", modalias: str = "") -> Path:
        """A device in the hands of its own driver."""
        device = self.root / DEVICES / name
        device.mkdir()
        (device / "config").write_bytes(bytes(64))
        (device / "driver_override").write_text("(null)\n")
        (device / "modalias").write_text(f"{modalias}\n")
        folder = self.root / f"kernel/iommu_groups/{group}/devices"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / name).symlink_to(device)
        (device / "iommu_group").symlink_to(folder.parent)
        self.own[name] = own
        self._probe(name)
        return device

    def make_function(self, name: str, number: int = 0, *, card: str = "0000:06:00.0", link: str = "lo") -> None:
        """A device becomes a virtual function of a card, whose network device is one of this host."""
        device, parent = self.root / DEVICES / name, self.root / DEVICES / card
        (parent / "net" / link).mkdir(parents=True, exist_ok=True)
        (device / "physfn").symlink_to(parent)
        (parent / f"virtfn{number}").symlink_to(device)

    def write(self, path: Path, text: str) -> None:
        super().write(path, text)
        self.writes.append(f"{path.name} {text.strip()}".strip())
        if path.name == "unbind":
            (self.root / DEVICES / text / "driver").unlink()
        elif path.name == "drivers_probe":
            self.hold.wait(HOLD_S)
            self._probe(text)

    def _probe(self, name: str) -> None:
        device = self.root / DEVICES / name
        override = (device / "driver_override").read_text().strip()
        driver = override if override not in ("", "(null)") else self.own[name]
        if driver is None or driver in self.refuses or (device / "driver").is_symlink():
            return
        if (self.root / DRIVERS / driver).is_dir():
            (device / "driver").symlink_to(self.root / DRIVERS / driver)
            self._show_group(device, driver)

    def _show_group(self, device: Path, driver: str) -> None:
        """A VFIO driver makes the node of its group."""
        if "vfio" in driver:
            (self.nodes / os.path.basename(os.path.realpath(device / "iommu_group"))).touch()
            if driver != "vfio-pci":
                (device / "vfio-dev").mkdir(exist_ok=True)
