"""PCI devices that are looked at and moved between drivers, in a folder of plain files (see `tests.support.pci`)."""

from pathlib import Path

import pytest

from pyvirtd.core.host_pci import Before
from pyvirtd.errors import InternalError, OperationFailed, SystemError_
from tests.support.pci import FakeBus

CARD = "0000:06:12.5"
CONNECTX = "pci:v000015B3d0000101Esv000015B3sd00000058bc02sc00i00"
ALIASES = """\
alias pci:v000015B3d0000101Esv*sd*bc*sc*i* mlx5_core
alias vfio_pci:v*d*sv*sd*bc*sc*i* vfio_pci
alias vfio_pci:v000015B3d0000101Esv*sd*bc*sc*i* mlx5_vfio_pci
"""


@pytest.fixture
def bus(tmp_path: Path) -> FakeBus:
    return FakeBus(tmp_path)


def test_host_without_iommu_says_what_it_lacks(bus: FakeBus) -> None:
    assert bus.lacks() == "there is no IOMMU"
    bus.add(CARD, 7)
    assert bus.lacks() is None
    bus.control.unlink()
    assert bus.lacks() == f"{bus.control} is missing"


def test_device_is_lent_and_given_back(bus: FakeBus) -> None:
    bus.add(CARD, 7)
    before = bus.bind(CARD, "vfio-pci")
    assert (before, bus.driver(CARD), bus.is_vfio(CARD)) == (Before(True, True), "vfio-pci", True)
    assert bus.writes == ["driver_override vfio-pci", f"unbind {CARD}", f"drivers_probe {CARD}"]
    bus.give_back(CARD, before)
    assert bus.driver(CARD) == "e1000e"
    assert bus.writes[3:] == ["driver_override", f"unbind {CARD}", f"drivers_probe {CARD}"]


def test_device_without_driver_is_left_without_one(bus: FakeBus) -> None:
    bus.add(CARD, 7, own=None)
    before = bus.bind(CARD, "vfio-pci")
    bus.give_back(CARD, before)
    assert bus.driver(CARD) is None
    assert bus.writes[-1] == f"unbind {CARD}"


def test_device_that_is_there_already_stays(bus: FakeBus) -> None:
    bus.add(CARD, 7, own="vfio-pci")
    before = bus.bind(CARD, "vfio-pci")
    bus.give_back(CARD, before)
    assert (before, bus.writes) == (Before(), [])


def test_device_that_was_never_moved_keeps_its_driver(bus: FakeBus) -> None:
    bus.add(CARD, 7)
    bus.give_back(CARD, Before(unbind=True, reprobe=True))
    assert (bus.driver(CARD), bus.writes) == ("e1000e", ["driver_override"])


def test_device_that_a_driver_does_not_take_goes_back(bus: FakeBus) -> None:
    bus.add(CARD, 7)
    bus.refuses.add("vfio-pci")
    with pytest.raises(
        OperationFailed, match=f"bind PCI device '{CARD}' to vfio-pci: the kernel leaves it to no driver"
    ):
        bus.bind(CARD, "vfio-pci")
    assert bus.driver(CARD) == "e1000e"


def test_kernels_refusal_is_told_and_the_device_goes_back(bus: FakeBus) -> None:
    device = bus.add(CARD, 7)
    (device / "driver").resolve().joinpath("unbind").unlink()
    with pytest.raises(SystemError_, match=f"Failed to bind PCI device '{CARD}' to vfio-pci: No such file"):
        bus.bind(CARD, "vfio-pci")
    assert bus.driver(CARD) == "e1000e"
    assert (device / "driver_override").read_text() == "\n"


def test_absent_devices_and_bridges_are_refused(bus: FakeBus) -> None:
    with pytest.raises(SystemError_, match=f"Device {CARD} not found: could not access"):
        bus.require(CARD)
    device = bus.add(CARD, 7)
    bus.require(CARD)
    (device / "config").write_bytes(bytes(14) + b"\x81" + bytes(49))
    with pytest.raises(InternalError, match="Non-endpoint PCI devices cannot be assigned to guests"):
        bus.require(CARD)


def test_best_module_is_the_one_that_names_the_device(bus: FakeBus) -> None:
    (bus.release / "modules.alias").write_text(ALIASES)
    bus.add(CARD, 7, modalias=CONNECTX)
    bus.add("0000:06:12.6", 8, modalias=CONNECTX.replace("101E", "1016"))
    assert bus.best_module(CARD) == "mlx5_vfio_pci"
    assert bus.best_module("0000:06:12.6") is None
    (bus.release / "modules.alias").unlink()
    assert bus.best_module(CARD) is None


def test_drivers_are_found_however_their_module_is_spelled(bus: FakeBus) -> None:
    assert bus.find_driver("vfio_pci") == "vfio-pci"
    assert bus.find_driver("nothing") is None


def test_group_tells_who_goes_together(bus: FakeBus) -> None:
    bus.add(CARD, 7)
    bus.add("0000:06:12.6", 7)
    bus.add("0000:06:13.0", 8)
    assert bus.group(CARD) == 7
    assert bus.siblings(CARD) == [CARD, "0000:06:12.6"]
