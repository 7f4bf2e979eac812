"""Images whose data are in a file of their own: block nodes, rules, and a guest that has one."""

import re
import subprocess

import pytest

from pyvirtd.drivers.qemu.blocks_threshold import find_layer
from pyvirtd.errors import VirtError
from tests.drivers.qemu.command_lines import words
from tests.drivers.qemu.definitions import checked, document
from tests.support.domains import bare_domain
from tests.support.host import SystemHost

STORE = "<dataStore type='file'>{}<source file='/held'>{}</source></dataStore>"
RAW = "<format type='raw'/>"
DISK = (
    "<disk type='file'><driver name='qemu' type='{}' discard='unmap' cache='none'/><source file='/top'>{}</source>{}"
    "<target dev='vda' bus='virtio'/></disk>"
)


def disk(store: str, kind: str = "qcow2", below: str = "") -> str:
    return document(DISK.format(kind, store, below))


def test_data_are_a_node_of_their_own_that_the_image_names() -> None:
    below = (
        "<backingStore type='file'><format type='qcow2'/><source file='/mid'>"
        f"{STORE.format(RAW, '').replace('/held', '/below')}</source><backingStore/></backingStore>"
    )
    definition = checked(disk(STORE.format(RAW, ""), below=below))
    nodes = words(definition).nodes
    assert list(nodes) == [f"libvirt-{number}-{part}" for number in (4, 3, 2, 1) for part in ("storage", "format")]
    assert nodes["libvirt-1-format"]["data-file"] == "libvirt-2-format"
    assert nodes["libvirt-3-format"]["data-file"] == "libvirt-4-format"
    assert nodes["libvirt-2-storage"]["filename"] == "/held"
    assert nodes["libvirt-2-format"] == {
        "node-name": "libvirt-2-format",
        "read-only": False,
        "cache": {"direct": True, "no-flush": False},
        "driver": "raw",
        "discard": "unmap",
        "file": "libvirt-2-storage",
    }
    assert nodes["libvirt-4-format"]["read-only"] is True
    assert find_layer(definition, "vda[2]").storage == "libvirt-2-storage"


@pytest.mark.parametrize(
    ("text", "refusal"),
    [
        (
            disk(STORE.format(RAW, ""), "raw"),
            "<dataStore> of disk 'vda' can be used only with images of format 'qcow2'",
        ),
        (disk(STORE.format("<format type='qcow2'/>", "")), "<dataStore> of disk 'vda' can only have the format 'raw'"),
        (disk(STORE.format("", "")), "<dataStore> of disk 'vda' can only have the format 'raw'"),
        (disk("<dataStore type='file'><format type='raw'/></dataStore>"), "missing source of <dataStore>"),
        (disk(STORE.format(RAW, STORE.format(RAW, ""))), "<dataStore> of disk 'vda' cannot have a <dataStore> itself"),
    ],
)
def test_what_cannot_hold_data_elsewhere_is_refused(text: str, refusal: str) -> None:
    with pytest.raises(VirtError, match=re.escape(refusal)):
        checked(text)


@pytest.mark.guest
@pytest.mark.parametrize("named", [True, False], ids=["named", "found"])
def test_a_guest_writes_into_the_data_file(host: SystemHost, named: bool) -> None:
    """The image's own name for the file is one that is not there any more, so that the definition's counts."""
    folder = host.path("/var/lib/libvirt/images")
    folder.mkdir(parents=True, exist_ok=True)
    top, data = folder / "top.qcow2", folder / "data.raw"
    recorded = "gone.raw" if named else "data.raw"
    options = f"data_file={recorded},data_file_raw=on"
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", "-o", options, top.name, "1M"], cwd=folder, check=True)
    (folder / recorded).rename(data)
    store = STORE.format(RAW, "").replace("/held", str(host.inside(data))) if named else ""
    host.define(bare_domain("stored", devices=DISK.format("qcow2", store, "").replace("/top", str(host.inside(top)))))
    host.ok("start stored")
    try:
        assert f"<source file='{host.inside(data)}' index='2'/>" in host.ok("dumpxml stored")
        assert data.stat().st_uid == top.stat().st_uid != 0
        write = 'qemu-io -d /machine/peripheral/virtio-disk0/virtio-backend "write -P 0x61 0 4k"'
        host.ok(["qemu-monitor-command", "--hmp", "stored", write])
        host.restart()
        assert "index='2'" in host.ok("dumpxml stored")
    finally:
        host.ok("destroy stored")
        host.ok("undefine stored")
    assert data.read_bytes()[:4096] == b"a" * 4096
    assert data.stat().st_uid == 0
