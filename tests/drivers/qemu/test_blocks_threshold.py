"""Marks in images: whom a client means, and what the event calls it."""

import pytest

from pyvirtd.drivers.qemu.blocks_threshold import find_layer, names_of
from pyvirtd.errors import InvalidArg
from pyvirtd.model.domain import DomainDef
from pyvirtd.xml.element import LIVE
from tests.support.domains import bare_domain
from tests.support.host import SessionHost

DISKS = """
<disk type='file' device='disk'><driver name='qemu' type='qcow2'/><source file='/top' index='3'/>
  <backingStore type='file' index='4'><format type='qcow2'/><source file='/base'/><backingStore/>
  </backingStore>
  <target dev='vda' bus='virtio'/></disk>
<disk type='file' device='cdrom'><target dev='hdc' bus='ide'/></disk>
"""


def live() -> DomainDef:
    return DomainDef.parse(bare_domain("d", devices=DISKS), LIVE)


@pytest.mark.parametrize(("name", "node"), [("vda", 3), ("vda[0]", 3), ("vda[3]", 3), ("vda[4]", 4)])
def test_an_image_is_named_by_its_disk_and_number(name: str, node: int) -> None:
    assert find_layer(live(), name).storage == f"libvirt-{node}-storage"


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("vda[5]", "failed to find disk 'vda\\[5\\]'"),
        ("vdz", "failed to find disk 'vdz'"),
        ("/top", "failed to find disk '/top'"),
        ("", "failed to find disk ''"),
        ("vda[x]", "failed to parse block device 'vda\\[x\\]'"),
        ("hdc", "disk 'hdc' does not currently have a source assigned"),
    ],
)
def test_what_is_no_image(name: str, text: str) -> None:
    with pytest.raises(InvalidArg, match=text):
        find_layer(live(), name)


def test_the_first_image_of_a_disk_has_two_names() -> None:
    assert list(names_of(live(), "libvirt-3-storage")) == [("vda", "/top"), ("vda[3]", "/top")]
    assert list(names_of(live(), "libvirt-4-storage")) == [("vda[4]", "/base")]
    assert list(names_of(live(), "libvirt-9-storage")) == []


@pytest.mark.guest
def test_a_write_beyond_the_mark_is_told(session: SessionHost) -> None:
    image = session.folder / "data" / "marked.img"
    session.run(["truncate", "-s", "8M", str(image)])
    disk = f"<disk type='file'><driver name='qemu' type='raw'/><source file='{image}'/>"
    session.define(bare_domain("marked", devices=f"{disk}<target dev='vda' bus='virtio'/></disk>"))
    session.ok("start marked")
    session.ok("domblkthreshold marked vda 4096")
    assert "block.0.threshold=4096" in session.ok("domstats marked --block --backing")
    seen = session.python(
        """
libvirt.virEventRegisterDefaultImpl()
conn = libvirt.open()
dom, seen = conn.lookupByName("marked"), []
told = lambda conn, dom, *event: seen.append(event[:4])
conn.domainEventRegisterAny(dom, libvirt.VIR_DOMAIN_EVENT_ID_BLOCK_THRESHOLD, told, None)
import libvirt_qemu
libvirt_qemu.qemuMonitorCommand(dom, 'qemu-io -d /machine/peripheral/virtio-disk0/virtio-backend "write 0 64k"', 1)
while len(seen) < 2:
    libvirt.virEventRunDefaultImpl()
print(seen)
"""
    )
    assert seen == f"[('vda', '{image}', 4096, 61440), ('vda[1]', '{image}', 4096, 61440)]"
    session.ok("destroy marked")
    session.ok("undefine marked")
