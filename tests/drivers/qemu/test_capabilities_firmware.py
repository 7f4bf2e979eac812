"""Firmware descriptors."""

import json
from pathlib import Path
from typing import Any

import pytest

from pyvirtd.drivers.qemu.capabilities import firmware


def descriptor(**changes: Any) -> dict[str, Any]:
    return {
        "interface-types": ["uefi"],
        "mapping": {
            "device": "flash",
            "executable": {"filename": "/fw/CODE.fd", "format": "raw"},
            "nvram-template": {"filename": "/fw/VARS.fd", "format": "raw"},
        },
        "targets": [
            {"architecture": "x86_64", "machines": ["pc-q35-*"]},
            {"architecture": "i386", "machines": ["pc-*"]},
        ],
        "features": ["requires-smm", "secure-boot"],
        "tags": [],
    } | changes


def test_descriptor_is_read() -> None:
    found = firmware.parse(descriptor())
    assert found.kinds == ("efi",)
    assert found.executable == "/fw/CODE.fd"
    assert found.nvram_template == "/fw/VARS.fd"
    assert found.secure


@pytest.mark.parametrize(
    ("arch", "machine", "fits"),
    [
        ("x86_64", "pc-q35-7.2", True),
        ("x86_64", "pc-i440fx-7.2", False),
        ("i686", "pc-i440fx-7.2", True),
        ("aarch64", "virt", False),
    ],
)
def test_target_is_architecture_and_machine(arch: str, machine: str, fits: bool) -> None:
    assert firmware.parse(descriptor()).fits(arch, machine) == fits


def test_image_in_memory_has_no_variables() -> None:
    found = firmware.parse(descriptor(mapping={"device": "memory", "filename": "/fw/bios.bin"}))
    assert (found.executable, found.nvram_template) == ("/fw/bios.bin", None)


def test_later_directory_hides_and_names_are_in_order(tmp_path: Path) -> None:
    for place in ("share", "etc"):
        (tmp_path / place).mkdir()

    def put(path: str, executable: str | None) -> None:
        mapping = {"device": "memory", "filename": executable}
        (tmp_path / path).write_text(json.dumps(descriptor(mapping=mapping)) if executable else "")

    put("share/60-b.json", "/b")
    put("share/50-a.json", "/a")
    put("share/70-c.json", "/c")
    put("etc/60-b.json", "/mine")
    put("etc/70-c.json", None)
    found = firmware.read([tmp_path / "share", tmp_path / "etc", tmp_path / "missing"])
    assert [f.executable for f in found] == ["/a", "/mine"]


@pytest.mark.parametrize("text", ["{", "[]", "{}", '{"mapping": 5}', "\0", '"x"'])
def test_broken_descriptor_costs_only_itself(tmp_path: Path, text: str) -> None:
    (tmp_path / "50-broken.json").write_text(text)
    (tmp_path / "60-good.json").write_text(json.dumps(descriptor()))
    assert len(firmware.read([tmp_path])) == 1
