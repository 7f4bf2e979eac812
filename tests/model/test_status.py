"""The state file: what libvirtd wrote is understood, and clients see of it what libvirtd shows them."""

from pathlib import Path

import pytest

from pyvirtd.errors import XmlError
from pyvirtd.model.net import BridgeSource, InterfaceType
from pyvirtd.model.status import STATUS_VIEW, DomStatus, StatusJob, StatusMonitor, StatusVcpu, read_status
from pyvirtd.xml.element import LIVE

DATA = Path(__file__).parent / "data"


def test_a_state_file_is_understood() -> None:
    status = read_status((DATA / "status-copy.xml").read_text())
    assert (status.state, status.reason, status.pid) == ("paused", "user", 766)
    assert status.monitor.path.endswith("/monitor.sock")
    assert [vcpu.pid for vcpu in status.vcpus] == [774, 775]
    assert "virtio-disk0" in {device.alias for device in status.devices}
    assert status.blockjobs.blockjob[0].state == "ready"
    assert status.domain.id == 1
    mirror = status.domain.devices.disk[0].mirror
    assert mirror is not None
    assert mirror.old_format == "qcow2"


def test_clients_see_what_an_interface_became() -> None:
    status = read_status((DATA / "status-network.xml").read_text())
    assert status.domain.format(LIVE) == (DATA / "live-network.xml").read_text()
    bridged = status.domain.devices.interface[1]
    assert bridged.type is InterfaceType.NETWORK
    assert isinstance(bridged.printed(LIVE).source, BridgeSource)


def test_the_definition_shows_the_network_again() -> None:
    status = read_status((DATA / "status-network.xml").read_text())
    assert "<actual" not in status.domain.format()
    assert "<source network='br'/>" in status.domain.format()


def test_a_state_is_written_with_what_is_known() -> None:
    status = DomStatus(state="running", reason="booted", pid=7, monitor=StatusMonitor(path="/m"))
    status.vcpus.append(StatusVcpu(id=0, pid=8))
    status.job = StatusJob(async_="save", async_started=5)
    written = status.format(STATUS_VIEW)
    assert written.startswith(
        "<domstatus state='running' reason='booted' pid='7'>\n  <monitor path='/m' type='unix'/>\n"
    )
    assert "  <job type='none' async='save' asyncStarted='5'/>\n" in written


def test_what_is_not_known_is_ignored() -> None:
    status = read_status("<domstatus state='running' pid='1'><novelty/><domain type='kvm'><name>g</name>"
                         "<os><type>hvm</type></os></domain></domstatus>")  # fmt: skip
    assert status.domain.name == "g"


def test_another_document_is_refused() -> None:
    with pytest.raises(XmlError, match="unexpected root element <domain>"):
        read_status("<domain/>")
