"""<capabilities> made from emulators that are not there, and when it is made anew."""

import asyncio
import uuid
from pathlib import Path

import pytest

from pyvirtd.core.host import HostInfo
from pyvirtd.core.host_capabilities import HostIdentity
from pyvirtd.drivers.qemu.capabilities import (
    CapabilitiesCache,
    ProbeFailed,
    QemuCapabilities,
    documents,
    domain,
    emulators,
)
from pyvirtd.drivers.qemu.capabilities.documents import CapabilityDocuments
from pyvirtd.errors import InvalidArg
from pyvirtd.model.capabilities import DomainCapabilities
from tests.core.test_host_topology import make_host
from tests.drivers.qemu.capabilities_data import TCG, make_capabilities


@pytest.fixture
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    place = tmp_path / "bin"
    place.mkdir()
    monkeypatch.setattr(emulators, "DIRECTORIES", (place,))
    monkeypatch.setattr(emulators, "host_arch", lambda: "x86_64")
    monkeypatch.setattr(documents, "host_arch", lambda: "x86_64")
    for name in ("qemu-system-x86_64", "qemu-system-m68k"):
        (place / name).write_text("")
        (place / name).chmod(0o755)
    return place


def make_documents(tmp_path: Path) -> CapabilityDocuments:
    async def probe(binary: str) -> QemuCapabilities:
        if binary.endswith("m68k"):
            raise ProbeFailed("no such luck")
        return make_capabilities(binary, kvm=TCG)

    make_host(tmp_path / "root")
    host = HostInfo(tmp_path / "root")
    return CapabilityDocuments(CapabilitiesCache(None, probe), host, HostIdentity(uuid.UUID(int=1)), nvram=())


def test_guest_element_as_libvirts(tmp_path: Path, directory: Path) -> None:
    text = asyncio.run(make_documents(tmp_path).host_xml())
    assert (
        text[text.index("  <guest>\n    <os_type>hvm</os_type>\n    <arch name='x86_64'>") :]
        == f"""\
  <guest>
    <os_type>hvm</os_type>
    <arch name='x86_64'>
      <wordsize>64</wordsize>
      <emulator>{directory}/qemu-system-x86_64</emulator>
      <machine maxCpus='255'>pc-i440fx-7.2</machine>
      <machine canonical='pc-i440fx-7.2' maxCpus='255'>pc</machine>
      <machine maxCpus='288'>pc-q35-7.2</machine>
      <machine canonical='pc-q35-7.2' maxCpus='288'>q35</machine>
      <machine maxCpus='255' deprecated='yes'>pc-i440fx-1.4</machine>
      <domain type='qemu'/>
      <domain type='kvm'/>
    </arch>
    <features>
      <acpi default='on' toggle='yes'/>
      <apic default='on' toggle='no'/>
      <cpuselection/>
      <deviceboot/>
      <disksnapshot default='on' toggle='no'/>
    </features>
  </guest>

</capabilities>
"""
    )


def test_parts_stand_apart_as_in_libvirts(tmp_path: Path, directory: Path) -> None:
    text = asyncio.run(make_documents(tmp_path).host_xml())
    assert text.startswith("<capabilities>\n\n  <host>\n")
    assert "  </host>\n\n  <guest>\n" in text


def test_emulator_that_fails_is_left_out(tmp_path: Path, directory: Path) -> None:
    assert "m68k" not in asyncio.run(make_documents(tmp_path).host_xml())


def test_emulator_installed_later_is_seen(tmp_path: Path, directory: Path) -> None:
    async def before_and_after() -> tuple[str, str]:
        made = make_documents(tmp_path)
        before = await made.host_xml()
        (directory / "qemu-system-alpha").write_text("")
        (directory / "qemu-system-alpha").chmod(0o755)
        return before, await made.host_xml()

    before, after = asyncio.run(before_and_after())
    assert "<arch name='alpha'>" not in before
    assert "<arch name='alpha'>" in after


def test_domain_document_is_made_once(tmp_path: Path, directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    built = []

    def build(choice: domain.Choice, host: domain.HostOffers) -> DomainCapabilities:
        built.append(choice)
        return domain_build(choice, host)

    domain_build = domain.build
    monkeypatch.setattr(domain, "build", build)

    async def thrice() -> set[str]:
        made = make_documents(tmp_path)
        return {await made.domain_xml(None, None, machine, "qemu") for machine in ("q35", "pc-q35-7.2", "q35")}

    assert len(asyncio.run(thrice())) == 1
    assert len(built) == 1


def test_program_a_client_names_is_not_run(tmp_path: Path, directory: Path) -> None:
    (tmp_path / "evil").write_text(f"#!/bin/sh\ntouch {tmp_path}/done\n")
    (tmp_path / "evil").chmod(0o755)
    with pytest.raises(InvalidArg):
        asyncio.run(make_documents(tmp_path).domain_xml(f"{tmp_path}/evil", None, None, None))
    assert not (tmp_path / "done").exists()


def test_host_without_emulators_still_has_a_host(tmp_path: Path, directory: Path) -> None:
    for file in directory.iterdir():
        file.unlink()
    text = asyncio.run(make_documents(tmp_path).host_xml())
    assert "<host>" in text
    assert "<guest>" not in text
