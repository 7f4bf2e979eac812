"""Guests with UEFI: the firmware runs, and its variables are made, kept and made anew."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.domains import bare_domain
from tests.support.host import SystemHost

VARIABLES = "/var/lib/libvirt/qemu/nvram/uefi_VARS.fd"
needs_ovmf = pytest.mark.skipif(not Path("/usr/share/OVMF/OVMF_CODE_4M.fd").exists(), reason="ovmf is not installed")
needs_arm = pytest.mark.skipif(
    not shutil.which("qemu-system-aarch64") or not Path("/usr/share/AAVMF/AAVMF_CODE.fd").exists(),
    reason="qemu-system-arm or qemu-efi-aarch64 is not installed",
)


@pytest.fixture
def uefi(host: SystemHost) -> Iterator[SystemHost]:
    host.define(bare_domain("uefi").replace("<os>", "<os firmware='efi'>"))
    yield host
    host.ok("undefine uefi --nvram")


@needs_ovmf
def test_variables_are_the_guests_until_they_are_reset(uefi: SystemHost) -> None:
    for flags, kept in (("", False), ("", True), ("--reset-nvram", False)):
        uefi.ok(f"start uefi --paused {flags}")
        content = uefi.path(VARIABLES).read_bytes()
        assert content.startswith(b"changed") is kept
        assert len(content) > 100_000
        uefi.ok("destroy uefi")
        with uefi.path(VARIABLES).open("r+b") as file:
            file.write(b"changed")


@needs_ovmf
def test_live_definition_names_the_firmware_that_was_chosen(uefi: SystemHost) -> None:
    uefi.ok("start uefi --paused")
    live, inactive = uefi.ok("dumpxml uefi"), uefi.ok("dumpxml uefi --inactive")
    uefi.ok("destroy uefi")
    assert "<os>" in live
    assert f"'>{VARIABLES}</nvram>" in live
    assert "<smm state='on'/>" in live  # the preferred firmware keeps its variables from the guest's system
    assert "<os firmware='efi'>" in inactive
    assert "<loader" not in inactive


@needs_ovmf
def test_undefining_neither_loses_nor_forgets_variables(uefi: SystemHost) -> None:
    uefi.ok("start uefi --paused")
    uefi.ok("destroy uefi")
    assert "cannot undefine domain with nvram" in uefi.virsh("undefine uefi").stderr
    xml = uefi.ok("dumpxml uefi --inactive")
    uefi.ok("undefine uefi --keep-nvram")
    assert uefi.path(VARIABLES).exists()
    uefi.define(xml)


def test_firmware_whose_variables_have_no_template_is_named(host: SystemHost) -> None:
    host.write("/var/lib/libvirt/code.fd", "x")
    loader = (
        "<loader readonly='yes' type='pflash'>/var/lib/libvirt/code.fd</loader><nvram>/var/lib/libvirt/v.fd</nvram>"
    )
    host.define(bare_domain("bare").replace("</type>", f"</type>{loader}"))
    words = host.virsh("start bare").stderr
    assert "unable to find any master var store for loader: /var/lib/libvirt/code.fd" in words
    host.ok("undefine bare")


@needs_arm
@pytest.mark.guest
def test_arm_guest_runs_its_firmware_which_refuses_what_nobody_signed(host: SystemHost) -> None:
    xml = bare_domain("arm", memory_mib=128, devices="<serial type='pty'/><console type='pty'/>", machine="virt")
    xml = xml.replace("<devices>", "<cpu><model>cortex-a57</model></cpu><devices>")
    host.define(xml.replace("x86_64", "aarch64").replace("<os>", "<os firmware='efi'>"))
    with host.terminal("start arm --console") as console:
        console.expect("BdsDxe: failed to start .* Security Violation", 60)
    host.ok("destroy arm")
    host.ok("undefine arm --nvram")
