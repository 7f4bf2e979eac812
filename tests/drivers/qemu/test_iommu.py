"""AMD's IOMMU, which QEMU puts on the root bus by itself: where it is, what it may say, and a QEMU that has it."""

import json

import pytest

from pyvirtd.errors import VirtError
from tests.drivers.qemu.definitions import checked, document
from tests.support.domains import bare_domain
from tests.support.host import SystemHost

AMD = "<iommu model='amd'>{}</iommu>"
VIDEO = "<video><model type='vga'/>{}</video>"
FIRST = "<address type='pci' domain='0x0000' bus='0x00' slot='0x01' function='0x0'/>"
SPLIT = "<ioapic driver='qemu'/>"


@pytest.mark.parametrize(
    ("devices", "words"),
    [
        (AMD.format("<driver caching_mode='on'/>"), "iommu model 'amd' doesn't support additional attributes"),
        (AMD.format(FIRST.replace("'0x01'", "'0x05'")), "AMD IOMMU must have PCI address 0:0:1.0"),
        (AMD.format("") + VIDEO.format(FIRST), "Attempted double use of PCI Address 0000:00:01.0"),
        (AMD.format("<driver intremap='on'/>"), "IOMMU interrupt remapping requires split I/O APIC"),
    ],
)
def test_what_cannot_be_is_refused(devices: str, words: str) -> None:
    with pytest.raises(VirtError) as failed:
        checked(document(devices).replace("machine='pc'", "machine='q35'"))
    assert words in failed.value.message


def test_only_q35_has_it() -> None:
    with pytest.raises(VirtError, match="IOMMU device: 'amd' is only supported with Q35 machines"):
        checked(document(AMD.format("")).replace("machine='q35'", "machine='pc'"))


def test_qemu_has_it_where_the_definition_says(host: SystemHost) -> None:
    driver = "<driver intremap='on' passthrough='off' iotlb='on'/>"
    xml = bare_domain(
        "amd", devices=AMD.format(driver) + VIDEO.format("") + "<controller type='usb' model='qemu-xhci'/>"
    )
    host.define(xml.replace("<acpi/>", "<acpi/>" + SPLIT))
    shown = host.ok("dumpxml amd")
    assert FIRST in shown.partition("<iommu")[2].partition("</iommu>")[0]
    host.ok("start amd --paused")
    try:
        argv = host.run(["sh", "-c", "tr '\\0' ' ' </proc/$(cat /run/libvirt/qemu/amd.pid)/cmdline"]).stdout
        assert '{"driver":"amd-iommu","id":"iommu0","intremap":"on","pt":false,"device-iotlb":true}' in argv
        told = json.loads(host.ok(["qemu-monitor-command", "amd", '{"execute":"query-pci"}']))
        (place,) = [
            (one["slot"], one["function"]) for one in told["return"][0]["devices"] if one["id"]["vendor"] == 0x1022
        ]
        assert place == (1, 0)
    finally:
        host.ok("destroy amd")
        host.ok("undefine amd")
