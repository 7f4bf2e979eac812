"""A command line is made of what it is given: nothing is read while it is built, which happens on the event loop."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from pyvirtd.config.qemu import QemuConfig
from pyvirtd.drivers.qemu.capabilities.firmware import Firmware, Target
from pyvirtd.drivers.qemu.command import Context, HostFacts, build
from pyvirtd.drivers.qemu.command import host_facts as host_facts_module
from pyvirtd.drivers.qemu.postparse import assign_aliases
from pyvirtd.errors import ConfigUnsupported, InternalError, OperationFailed
from pyvirtd.paths import Paths
from tests.drivers.qemu.definitions import completed, document, emulator

EFI = Firmware(("efi",), "flash", "/code", "raw", "/vars", "raw", "split", (Target("x86_64", ("*",)),), frozenset())
SCSI = """<controller type='scsi' model='virtio-scsi'/><hostdev mode='subsystem' type='scsi'><source>
<adapter name='scsi_host3'/><address bus='0' target='1' unit='2'/></source></hostdev>"""
NODE_3 = "<numatune><memory mode='strict' nodeset='3'/></numatune>"

_touched: list[str] | None = None


def _audit(event: str, arguments: tuple[object, ...]) -> None:
    if _touched is not None and event in ("open", "os.listdir", "os.scandir", "socket.connect", "subprocess.Popen"):
        _touched.append(f"{event} {arguments[0]}")


sys.addaudithook(_audit)


@pytest.fixture
def touched() -> Iterator[list[str]]:
    """What was opened or listed since the test began."""
    global _touched
    _touched = []
    yield _touched
    _touched = None


def argv(xml: str, host: HostFacts) -> str:
    live = completed(xml)
    assign_aliases(live)
    paths = Paths.system(Path("/root"))
    context = Context.for_start(emulator("x86_64"), paths, QemuConfig(), True, 1, live)
    context.host = host
    return " ".join(build(live, context).argv)


def test_a_command_line_names_what_the_host_has_and_reads_nothing(touched: list[str]) -> None:
    host = HostFacts(nodes={0, 3}, firmware=(EFI,), scsi_devices={"hostdev0": "/dev/sg7"})
    xml = document(SCSI, top=NODE_3).replace("<os>", "<os firmware='efi'>")
    words = argv(xml, host)
    assert '"filename":"/dev/sg7"' in words
    assert '"filename":"/code"' in words
    assert touched == []


def test_what_the_host_has_not_is_refused_by_name() -> None:
    with pytest.raises(ConfigUnsupported, match="NUMA node 3"):
        argv(document(top=NODE_3), HostFacts())
    with pytest.raises(OperationFailed, match="'efi'"):
        argv(document().replace("<os>", "<os firmware='efi'>"), HostFacts())
    with pytest.raises(InternalError, match="numad"):
        argv(document(top="<numatune><memory mode='strict' placement='auto'/></numatune>"), HostFacts())


def test_the_facts_of_the_host_are_those_a_definition_asks_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "3:0:1:2/scsi_generic/sg5").mkdir(parents=True)
    monkeypatch.setattr(host_facts_module, "SCSI_DEVICES", tmp_path)
    live = completed(document(SCSI))
    assign_aliases(live)
    facts = HostFacts.look_up(live, QemuConfig())
    assert facts.scsi_devices == {"hostdev0": "/dev/sg5"}
    assert 0 in facts.nodes
    assert facts.firmware == ()
    (tmp_path / "3:0:1:2/scsi_generic/sg5").rmdir()
    with pytest.raises(InternalError, match="scsi_generic' is empty"):
        HostFacts.look_up(live, QemuConfig())
