"""PCI devices that guests get and give back, in a folder of plain files that acts as sysfs (see `tests.support.pci`).

This is not sysfs: what a real driver does to a device, and how long it takes, is not seen here. The last tests run the
daemon itself, once on the host as it is and once with such a folder mounted over its devices, where no driver ever
takes one: the start must fail, and leave the device as it was.
"""

import asyncio
import os
from pathlib import Path

import pytest

from pyvirtd.core.host_pci import Before
from pyvirtd.drivers.qemu import pci_owners
from pyvirtd.drivers.qemu.assigned import assigned, locked_memory, vfio_groups
from pyvirtd.drivers.qemu.pci_owners import PciOwners
from pyvirtd.errors import InternalError, OperationTimeout, VirtError
from pyvirtd.model.domain import DomainDef
from pyvirtd.model.status import STATUS_VIEW
from pyvirtd.paths import Paths
from pyvirtd.util.files import THREADS, in_thread
from pyvirtd.xml.element import LIVE
from tests.support.domains import bare_domain
from tests.support.host import SystemHost
from tests.support.pci import FakeBus

DOMAIN = (
    "<domain type='qemu'><name>{}</name><memory>1024</memory><os><type>hvm</type></os><devices>{}</devices></domain>"
)
CARD, SECOND, DISK = "0000:06:12.5", "0000:06:12.6", "0000:01:00.0"
PLACE = "<address{} domain='0x0000' bus='0x06' slot='0x12' function='0x{}'/>"


def hostdev(function: int = 5, *, managed: str = "yes", driver: str = "") -> str:
    place = PLACE.format("", function)
    return f"<hostdev mode='subsystem' type='pci' managed='{managed}'>{driver}<source>{place}</source></hostdev>"


NET = "<interface type='hostdev' managed='yes'><source>" + PLACE.format(" type='pci'", 6) + "</source></interface>"
NVME = (
    "<disk type='nvme' device='disk'><driver name='qemu' type='raw'/><source type='pci' managed='{}' namespace='1'>"
    "<address domain='0x0000' bus='0x01' slot='0x00' function='0x0'/></source><target dev='vda' bus='virtio'/></disk>"
)


def domain(devices: str, name: str = "one", number: int = 1) -> DomainDef:
    live = DomainDef.parse(DOMAIN.format(name, devices))
    live.id = number
    return live


@pytest.fixture
def bus(tmp_path: Path) -> FakeBus:
    bus = FakeBus(tmp_path)
    bus.add(CARD, 7)
    bus.add(SECOND, 8)
    bus.add(DISK, 9, own=None)
    bus.make_function(SECOND)
    return bus


@pytest.fixture
def owners(tmp_path: Path, bus: FakeBus) -> PciOwners:
    return again(tmp_path, bus)


def again(tmp_path: Path, bus: FakeBus) -> PciOwners:
    """The owners as a daemon knows them that has just been started."""
    paths = Paths.system(tmp_path).qemu
    paths.run.mkdir(parents=True, exist_ok=True)
    return PciOwners(paths, bus)


def give(owners: PciOwners, live: DomainDef) -> DomainDef:
    asyncio.run(owners.give(live))
    return live


def refused(owners: PciOwners, live: DomainDef) -> str:
    with pytest.raises(VirtError) as failed:
        give(owners, live)
    return failed.value.message


def drivers(bus: FakeBus) -> list[str | None]:
    return [bus.driver(name) for name in (CARD, SECOND, DISK)]


def test_managed_devices_of_all_kinds_are_lent_and_given_back(owners: PciOwners, bus: FakeBus) -> None:
    live = give(owners, domain(hostdev() + NET + NVME.format("yes")))
    assert drivers(bus) == ["vfio-pci"] * 3
    assert "<driver name='vfio'/>" in live.format(LIVE)
    assert vfio_groups(live, bus) == [str(bus.nodes / group) for group in "789"]
    asyncio.run(owners.take_back(live))
    assert drivers(bus) == ["e1000e", "e1000e", None]
    assert not list(owners._paths.run.iterdir())
    give(owners, domain(hostdev(), "other", 2))


def test_interface_must_be_a_virtual_function(owners: PciOwners, bus: FakeBus) -> None:
    (bus.root / f"bus/pci/devices/{SECOND}/physfn").unlink()
    words = "Interface type hostdev is currently supported on SR-IOV Virtual Functions only"
    assert words in refused(owners, domain(NET))
    assert not bus.writes


def test_status_file_says_what_giving_back_has_to_do(owners: PciOwners) -> None:
    live = give(owners, domain(hostdev() + NET))
    text = live.format(STATUS_VIEW)
    assert text.count("<unbind/>") == text.count("<reprobe/>") == 2
    assert "origstates" not in live.format(LIVE)
    assert DomainDef.parse(text, STATUS_VIEW).format(STATUS_VIEW) == text


def test_device_has_one_guest_that_the_error_names(owners: PciOwners, bus: FakeBus) -> None:
    bus.add("0000:06:12.7", 7)
    give(owners, domain(hostdev()))
    words = "Requested operation is not valid: PCI device {} is in use by driver QEMU, domain one"
    assert refused(owners, domain(hostdev(), "two", 2)) == words.format(CARD)
    assert refused(owners, domain(hostdev(7), "two", 2)) == words.format(CARD)  # of the same group
    assert drivers(bus)[0] == "vfio-pci"
    asyncio.run(owners.take_back(domain(hostdev(), "two", 2)))  # what it never had
    assert drivers(bus)[0] == "vfio-pci"


def test_failed_start_leaves_nothing_moved(owners: PciOwners, bus: FakeBus) -> None:
    bus.add_driver("vfio_never")
    bus.refuses.add("vfio_never")
    live = domain(hostdev() + hostdev(6, driver="<driver name='vfio' model='vfio_never'/>"))
    assert f"Failed to bind PCI device '{SECOND}' to vfio_never" in refused(owners, live)
    assert drivers(bus) == ["e1000e", "e1000e", None]
    give(owners, domain(hostdev(), "two", 2))


def test_unmanaged_device_must_be_there_and_stays_there(owners: PciOwners, bus: FakeBus) -> None:
    live = domain(hostdev(managed="no"))
    assert f"Unmanaged PCI device {CARD} must be manually detached from the host" in refused(owners, live)
    bus.bind(CARD, "vfio-pci")
    give(owners, live)
    asyncio.run(owners.take_back(live))
    assert drivers(bus)[0] == "vfio-pci"


def test_driver_is_the_named_one_or_the_best(owners: PciOwners, bus: FakeBus, monkeypatch: pytest.MonkeyPatch) -> None:
    bus.add_driver("mlx5-vfio-pci")
    (bus.release / "modules.alias").write_text("alias vfio_pci:v1* mlx5_vfio_pci\nalias vfio_pci:v2* absent_vfio\n")
    (bus.root / f"bus/pci/devices/{CARD}/modalias").write_text("pci:v1d2\n")
    (bus.root / f"bus/pci/devices/{SECOND}/modalias").write_text("pci:v2d2\n")
    loaded: list[str] = []

    async def load(module: str) -> str:
        loaded.append(module)
        return f"{module} is not there"

    monkeypatch.setattr(pci_owners, "_load", load)
    live = give(owners, domain(hostdev() + hostdev(6)))
    assert drivers(bus)[:2] == ["mlx5-vfio-pci", "vfio-pci"]
    assert loaded == ["absent_vfio"]
    asyncio.run(owners.take_back(live))
    assert drivers(bus)[:2] == ["e1000e", "e1000e"]
    missing = domain(hostdev(driver="<driver model='lost'/>"))
    assert refused(owners, missing).endswith(f"module lost for PCI device {CARD}: lost is not there")
    odd = domain(hostdev(driver="<driver model='../x'/>"))
    assert f"'../x' is no name of a driver, for PCI device {CARD}" in refused(owners, odd)


@pytest.mark.parametrize("driver", ["", "<driver name='vfio'/>", "<driver name='kvm'/>"])
def test_host_that_cannot_is_named_with_the_device(owners: PciOwners, bus: FakeBus, driver: str) -> None:
    bus.control.unlink()
    words = refused(owners, domain(hostdev(driver=driver)))
    assert "host doesn't support " in words
    assert CARD in words
    assert not bus.writes


def test_device_without_group_is_refused(owners: PciOwners, bus: FakeBus) -> None:
    (bus.root / f"bus/pci/devices/{CARD}/iommu_group").unlink()
    assert f"PCI device {CARD} is in no IOMMU group" in refused(owners, domain(hostdev()))


def test_guest_that_runs_on_keeps_its_device(owners: PciOwners, bus: FakeBus, tmp_path: Path) -> None:
    live = give(owners, domain(hostdev()))
    later = again(tmp_path, bus)
    later.adopt(live)
    assert "in use by driver QEMU, domain one" in refused(later, domain(hostdev(), "two", 2))
    asyncio.run(later.take_back(live))
    assert drivers(bus)[0] == "e1000e"


@pytest.mark.parametrize("noted", [True, False])
def test_guest_that_ended_while_the_daemon_was_away(
    owners: PciOwners, bus: FakeBus, tmp_path: Path, *, noted: bool
) -> None:
    live = DomainDef.parse(give(owners, domain(hostdev())).format(STATUS_VIEW), STATUS_VIEW)
    if not noted:  # libvirtd started it
        (owners._paths.run / "1-one.pci").unlink()
    asyncio.run(again(tmp_path, bus).take_back(live))
    assert drivers(bus)[0] == "e1000e"


def test_start_that_was_cut_short_gives_back(owners: PciOwners, bus: FakeBus, tmp_path: Path) -> None:
    """The daemon is killed between the two devices: one is moved, one is not."""
    give(owners, domain(hostdev() + hostdev(6)))
    bus.give_back(SECOND, Before(unbind=True, reprobe=True))
    bus.writes.clear()
    asyncio.run(again(tmp_path, bus).take_back_left("1-one"))
    assert drivers(bus) == ["e1000e", "e1000e", None]
    assert f"unbind {SECOND}" not in bus.writes
    assert not list(owners._paths.run.iterdir())


def stuck(owners: PciOwners, bus: FakeBus, live: DomainDef) -> None:
    """The guest ends, and its devices cannot be given back."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bus, "give_back", lambda *_: (_ for _ in ()).throw(InternalError("no")))
        asyncio.run(owners.take_back(live))
    assert drivers(bus)[0] == "vfio-pci"


def test_what_cannot_be_given_back_is_left_to_a_later_daemon(owners: PciOwners, bus: FakeBus, tmp_path: Path) -> None:
    stuck(owners, bus, give(owners, domain(hostdev())))
    asyncio.run(again(tmp_path, bus).take_back_left("1-one"))
    assert drivers(bus)[0] == "e1000e"
    assert not list(owners._paths.run.iterdir())


def test_what_cannot_be_given_back_goes_with_the_devices_next_guest(
    owners: PciOwners, bus: FakeBus, tmp_path: Path
) -> None:
    stuck(owners, bus, give(owners, domain(hostdev() + hostdev(6))))
    live = give(owners, domain(hostdev(), "two", 2))
    later = again(tmp_path, bus)
    later.adopt(live)
    asyncio.run(later.take_back_left("1-one"))  # of which the second device alone is left
    assert drivers(bus) == ["vfio-pci", "e1000e", None]
    asyncio.run(later.take_back(live))
    assert drivers(bus)[0] == "e1000e"
    assert not list(owners._paths.run.iterdir())


def test_device_of_a_running_guest_is_not_given_back(owners: PciOwners, bus: FakeBus, tmp_path: Path) -> None:
    """libvirtd has given it to another guest, of whom the old note knows nothing."""
    stuck(owners, bus, give(owners, domain(hostdev())))
    later = again(tmp_path, bus)
    later.adopt(domain(hostdev(), "two", 2))
    asyncio.run(later.take_back_left("1-one"))
    assert drivers(bus)[0] == "vfio-pci"


def test_kernel_that_does_not_answer_is_not_waited_for(
    owners: PciOwners, bus: FakeBus, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pci_owners, "MOVE_S", 0.05)
    bus.hold.clear()
    try:
        assert f"PCI device {CARD} was not moved within" in refused(owners, domain(hostdev()))
    finally:
        bus.hold.set()


def test_moves_that_never_end_hold_up_no_file_operation(
    owners: PciOwners, bus: FakeBus, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pci_owners, "MOVE_S", 0.2)

    async def main() -> list[BaseException | None]:
        stuck = [owners._timed(CARD, bus.hold.wait) for _ in range(2 * THREADS)]
        moves = [asyncio.ensure_future(move) for move in stuck]
        await asyncio.sleep(0.01)
        async with asyncio.timeout(0.1):
            await in_thread(os.getpid)
        return await asyncio.gather(*moves, return_exceptions=True)

    bus.hold.clear()
    try:
        assert all(isinstance(error, OperationTimeout) for error in asyncio.run(main()))
    finally:
        bus.hold.set()


def test_memory_that_a_device_reaches_can_be_locked() -> None:
    assert locked_memory(domain("")) == 0
    assert locked_memory(domain(hostdev())) == (1024 + (1 << 20)) << 10
    live = domain(hostdev())
    live = DomainDef.parse(live.format().replace("<os>", "<memtune><hard_limit>4096</hard_limit></memtune><os>"))
    assert locked_memory(live) == 4096 << 10
    locked = DOMAIN.format("x", "").replace("<os>", "<memoryBacking><locked/></memoryBacking><os>")
    assert locked_memory(DomainDef.parse(locked)) is None


def test_each_device_counts_once() -> None:
    assert [device.name for device in assigned(domain(hostdev() + hostdev(6) + NET))] == [CARD, SECOND]


FAKE = f"""
cd /run; mkdir -p fake/devices/{CARD} fake/groups/7/devices fake/drivers/vfio-pci fake/drivers/e1000e /dev/vfio
cd fake; touch drivers_probe drivers/e1000e/unbind drivers/vfio-pci/unbind groups/7/devices/{CARD} /dev/vfio/vfio
head -c 64 /dev/zero >devices/{CARD}/config; touch devices/{CARD}/driver_override
ln -s ../../drivers/e1000e devices/{CARD}/driver; ln -s ../../groups/7 devices/{CARD}/iommu_group
mount --bind /run/fake /sys/bus/pci; mount --bind /run/fake/groups /sys/kernel/iommu_groups
"""

# What a daemon leaves that is killed when it has bound the device and started nothing yet.
LOST = f"""
mkdir /var/lib/libvirt/qemu/domain-77-lost; echo '{CARD} unbind reprobe' >/run/libvirt/qemu/77-lost.pci
ln -sfn ../../drivers/vfio-pci /sys/bus/pci/devices/{CARD}/driver
"""


def test_start_on_this_host_fails_before_qemu_runs_and_leaves_the_device(host: SystemHost) -> None:
    host.define(bare_domain("taker", devices=hostdev()))
    words = host.virsh("start taker").stderr
    assert "host doesn't support passthrough of host PCI devices: PCI device 0000:06:12.5 cannot be given away" in words
    assert not host.path("/var/log/libvirt/qemu/taker.log").exists()
    made = host.run(["sh", "-ec", FAKE])
    assert made.returncode == 0, made.stderr
    try:
        words = host.virsh("start taker").stderr
        assert f"Failed to bind PCI device '{CARD}' to vfio-pci: the kernel leaves it to e1000e" in words
        left = host.run(
            ["sh", "-c", f"cat /sys/bus/pci/devices/{CARD}/driver_override; cat /sys/bus/pci/drivers_probe"]
        )
        assert left.stdout == f"\n{CARD}"
        assert not host.path("/var/log/libvirt/qemu/taker.log").exists()
        assert "taker" not in host.run(["ls", "/run/libvirt/qemu"]).stdout
        assert host.ok("domstate taker") == "shut off"
        made = host.run(["sh", "-ec", LOST])
        assert made.returncode == 0, made.stderr
        host.restart(9)
        assert host.run(["cat", "/sys/bus/pci/drivers/vfio-pci/unbind"]).stdout == CARD
        assert "77-lost" not in host.run(["ls", "/run/libvirt/qemu", "/var/lib/libvirt/qemu"]).stdout
    finally:
        host.run(["umount", "/sys/kernel/iommu_groups", "/sys/bus/pci"])
        host.run(["rm", "-r", "/dev/vfio", "/run/fake"])
        host.ok("undefine taker")
