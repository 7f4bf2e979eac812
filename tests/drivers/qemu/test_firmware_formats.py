"""Firmware and its variables in qcow2: which is chosen, how it is opened, how variables are made of a template."""

import asyncio
import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from pyvirtd.drivers.qemu import firmware_files
from pyvirtd.drivers.qemu.capabilities.firmware import Firmware, Target
from pyvirtd.drivers.qemu.command.context import NewFile
from pyvirtd.drivers.qemu.command.firmware_select import select_firmware
from pyvirtd.errors import OperationFailed, VirtError
from pyvirtd.paths import Paths
from tests.drivers.qemu.command_lines import words
from tests.drivers.qemu.definitions import checked, completed, document
from tests.guest import Guest
from tests.support.domains import bare_domain, tiny_domain
from tests.support.host import SystemHost

CODE, VARS = Path("/usr/share/OVMF/OVMF_CODE_4M.fd"), Path("/usr/share/OVMF/OVMF_VARS_4M.fd")
needs_ovmf = pytest.mark.skipif(not CODE.exists(), reason="ovmf is not installed")
LOADER = "<loader readonly='yes' type='pflash'{}>{}</loader><nvram{}>{}</nvram>"
NVRAM = "/var/lib/libvirt/qemu/nvram"


def firmware(kind: str, variables: str | None = None) -> Firmware:
    template = f"/fw/VARS.{kind}"
    targets = (Target("x86_64", ("pc-q35-*",)),)
    return Firmware(
        ("efi",), "flash", f"/fw/CODE.{kind}", kind, template, variables or kind, "split", targets, frozenset()
    )


RAW, QCOW2, MIXED = firmware("raw"), firmware("qcow2"), firmware("qcow2", "raw")


def automatic(os: str, *found: Firmware) -> str:
    """<loader> and <nvram> that a start writes."""
    text = (
        document(os=os)
        .replace("<os>", "<os firmware='efi'>")
        .replace("<devices>", "<features><acpi/></features><devices>")
    )
    live = checked(text)
    select_firmware(live, found, Paths.system().qemu)
    return re.sub(r"\n\s*", "", "".join(part.format() for part in (live.os.loader, live.os.nvram) if part))


@pytest.mark.parametrize(
    ("os", "found", "live"),
    [
        (
            "",
            (RAW, QCOW2),
            f"<loader readonly='yes' type='pflash'>/fw/CODE.raw</loader>"
            f"<nvram template='/fw/VARS.raw'>{NVRAM}/g_VARS.fd</nvram>",
        ),
        (
            "",
            (QCOW2, RAW),
            f"<loader readonly='yes' type='pflash' format='qcow2'>/fw/CODE.qcow2</loader>"
            f"<nvram template='/fw/VARS.qcow2' format='qcow2'>{NVRAM}/g_VARS.qcow2</nvram>",
        ),
        (
            "<loader format='raw'/>",
            (QCOW2, RAW),
            f"<loader readonly='yes' type='pflash' format='raw'>/fw/CODE.raw</loader>"
            f"<nvram template='/fw/VARS.raw' format='raw'>{NVRAM}/g_VARS.fd</nvram>",
        ),
        (
            "<loader format='qcow2'/>",
            (RAW, MIXED),
            f"<loader readonly='yes' type='pflash' format='qcow2'>/fw/CODE.qcow2</loader>"
            f"<nvram template='/fw/VARS.qcow2' templateFormat='raw' format='qcow2'>{NVRAM}/g_VARS.qcow2</nvram>",
        ),
        (
            "<loader format='qcow2'/><nvram>/v</nvram>",
            (QCOW2,),
            "<loader readonly='yes' type='pflash' format='qcow2'>/fw/CODE.qcow2</loader>"
            "<nvram template='/fw/VARS.qcow2' templateFormat='qcow2'>/v</nvram>",
        ),
        (
            "<nvram format='qcow2'/>",
            (RAW,),
            f"<loader readonly='yes' type='pflash'>/fw/CODE.raw</loader>"
            f"<nvram template='/fw/VARS.raw' templateFormat='raw' format='qcow2'>{NVRAM}/g_VARS.qcow2</nvram>",
        ),
    ],
)
def test_firmware_is_chosen_by_format_and_named_with_it(os: str, found: tuple[Firmware, ...], live: str) -> None:
    assert automatic(os, *found) == live


def test_firmware_of_another_format_does_not_fit() -> None:
    with pytest.raises(OperationFailed, match="Unable to find any firmware to satisfy 'efi'"):
        automatic("<loader format='qcow2'/>", RAW)
    with pytest.raises(OperationFailed, match="Unable to find any firmware to satisfy 'efi'"):
        automatic("", firmware("vmdk"))


def test_variables_are_of_the_firmwares_format_unless_stated() -> None:
    text = document(os="<loader readonly='yes' type='pflash' format='qcow2'>/c</loader>")
    nvram = completed(text).os.nvram
    assert nvram is not None
    assert (str(nvram.format_), nvram.path) == ("qcow2", None)  # where they are is for the daemon to say


@pytest.mark.parametrize(
    ("os", "text"),
    [
        ("<loader type='rom' format='qcow2'>/c</loader>", "loader format 'qcow2' is only supported with loader type"),
        ("<loader format='qcow2'>/c</loader>", "loader format 'qcow2' is only supported with loader type 'pflash'"),
    ],
)
def test_only_flash_can_be_qcow2(os: str, text: str) -> None:
    with pytest.raises(VirtError, match=text):
        checked(document(os=os))


def test_template_of_chosen_firmware_has_its_own_format() -> None:
    with pytest.raises(VirtError, match="nvram attribute 'templateFormat' cannot be specified when firmware auto"):
        automatic("<nvram templateFormat='raw'/>", RAW)


def test_flash_is_opened_as_what_it_is() -> None:
    os = LOADER.format(" format='qcow2'", "/c", " format='raw'", "/v")
    found = words(checked(document(os=os).replace("<devices>", "<features><acpi/></features><devices>"))).nodes
    code, variables = found["libvirt-pflash0-format"], found["libvirt-pflash1-format"]
    assert (code["driver"], code["read-only"], code["backing"]) == ("qcow2", True, None)
    assert (variables["driver"], variables["read-only"], "backing" in variables) == ("raw", False, False)


# --- with QEMU ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def images(host: SystemHost) -> Path:
    """The folder of OVMF in both formats."""
    folder = host.path("/var/lib/libvirt/fw")
    folder.mkdir(parents=True)
    for source, name in ((CODE, "CODE"), (VARS, "VARS")):
        shutil.copy(source, folder / f"{name}.fd")
        subprocess.run(
            ["qemu-img", "convert", "-f", "raw", "-O", "qcow2", source, folder / f"{name}.qcow2"], check=True
        )
    return folder


def kind_of(path: Path) -> str:
    done = subprocess.run(["qemu-img", "info", "-U", "--output=json", path], capture_output=True, text=True, check=True)
    return str(json.loads(done.stdout)["format"])


def place(domain: str, os: str) -> str:
    return domain.replace("</type>", f"</type>{os}")


@needs_ovmf
@pytest.mark.guest
def test_guest_boots_by_firmware_in_qcow2(host: SystemHost, images: Path, guest: Guest) -> None:
    fw = host.inside(images)
    os = LOADER.format(" format='qcow2'", fw / "CODE.qcow2", f" template='{fw}/VARS.qcow2'", "")
    host.define(place(tiny_domain(host.adopt(guest), "flash", memory_mib=256), os))
    try:
        with host.terminal("start flash --console") as console:
            console.expect("tiny# ", 90)
            assert console.command("test -d /sys/firmware/efi && echo uefi") == "uefi"
        assert "format='qcow2'" in host.ok("dumpxml flash")
        variables = host.path(f"{NVRAM}/flash_VARS.qcow2")
        assert kind_of(variables) == "qcow2"
    finally:
        host.virsh("destroy flash")
        host.ok("undefine flash --nvram")
    assert not variables.exists()


@needs_ovmf
@pytest.mark.parametrize(("given", "wanted"), [("qcow2", "raw"), ("raw", "qcow2")])
def test_variables_are_converted_from_their_template(host: SystemHost, images: Path, given: str, wanted: str) -> None:
    ending = {"raw": "fd", "qcow2": "qcow2"}
    fw, kept = host.inside(images), host.path(f"{NVRAM}/flash_VARS.{ending[wanted]}")
    attributes = f" template='{fw}/VARS.{ending[given]}' templateFormat='{given}' format='{wanted}'"
    host.define(place(bare_domain("flash"), LOADER.format("", fw / "CODE.fd", attributes, "")))
    try:
        host.ok("start flash --paused")
        assert kind_of(kept) == wanted
        assert (kept.stat().st_mode & 0o777, kept.stat().st_uid != 0) == (0o600, True)
        assert not list(host.path("/var/lib/libvirt/qemu").glob("domain-*/*.new"))
        host.ok("destroy flash")
        compared = ["qemu-img", "compare", "-f", wanted, "-F", "raw", str(kept), str(VARS)]
        assert subprocess.run(compared, capture_output=True, check=False).returncode == 0
    finally:
        host.virsh("destroy flash")
        host.ok("undefine flash --nvram")


@needs_ovmf
def test_template_that_is_not_what_it_is_said_to_be_is_named(host: SystemHost, images: Path) -> None:
    fw = host.inside(images)
    attributes = f" template='{fw}/VARS.fd' templateFormat='qcow2' format='raw'"
    host.define(place(bare_domain("flash"), LOADER.format("", fw / "CODE.fd", attributes, "")))
    said = host.virsh("start flash").stderr
    assert f"cannot convert '{fw}/VARS.fd' from qcow2 to raw: qemu-img: " in said
    assert not host.path(f"{NVRAM}/flash_VARS.fd").exists()
    host.ok("undefine flash")


def test_variables_are_converted_without_a_file_in_a_directory_of_the_guests_user(tmp_path: Path) -> None:
    template, made, victim = tmp_path / "t.qcow2", tmp_path / "guest" / "VARS.fd", tmp_path / "victim"
    made.parent.mkdir()
    (tmp_path / "raw").write_bytes(b"v" * 4096)
    subprocess.run(["qemu-img", "convert", "-f", "raw", "-O", "qcow2", tmp_path / "raw", template], check=True)
    victim.write_text("mine")
    (made.parent / "VARS.fd.new").symlink_to(victim)
    asyncio.run(firmware_files.make(NewFile(str(made), template=str(template), convert=("qcow2", "raw")), None))
    assert made.read_bytes() == b"v" * 4096
    assert victim.read_text() == "mine"
