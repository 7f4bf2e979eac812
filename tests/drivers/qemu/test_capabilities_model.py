"""Questions to an emulator's capabilities, and their way through the cache's file."""

import json
from dataclasses import replace

import pytest

from pyvirtd.drivers.qemu.capabilities import QemuCapabilities, SevCapability, SgxCapability
from pyvirtd.drivers.qemu.capabilities.model import cpu_name_of_type
from tests.drivers.qemu.capabilities_data import MACHINES, TCG, make_capabilities

CAPS = make_capabilities()


def test_json_gives_the_same_value_back() -> None:
    full = make_capabilities(
        kvm=TCG, sev=SevCapability("a", "b", None, 51, 1), sgx=SgxCapability(True, True, False, 64)
    )
    assert QemuCapabilities.from_json(json.loads(json.dumps(full.to_json()))) == full


def test_machine_is_found_by_name_and_by_alias() -> None:
    assert CAPS.machine("q35") is CAPS.machine("pc-q35-7.2") is MACHINES[0]
    assert CAPS.machine("isapc") is None


def test_alias_becomes_the_full_name() -> None:
    assert CAPS.canonical_machine("pc") == "pc-i440fx-7.2"
    assert CAPS.canonical_machine("unheard-of") == "unheard-of"


def test_default_machine_is_qemus_then_libvirts_then_the_first() -> None:
    assert CAPS.default_machine() == "pc-i440fx-7.2"
    boards = tuple(replace(MACHINES[0], name=name, alias=None) for name in ("akita", "integratorcp"))
    arm = make_capabilities(arch="armv7l", tcg=replace(TCG, machines=boards))
    assert arm.default_machine() == "integratorcp"
    assert replace(arm, arch="m68k").default_machine() == "akita"


def test_emulator_without_machines_has_no_default() -> None:
    assert make_capabilities(tcg=replace(TCG, machines=())).default_machine() is None


def test_kvm_counts_only_where_qemu_ran_under_it() -> None:
    assert not CAPS.kvm_usable
    assert CAPS.virt_types() == ("qemu",)
    assert make_capabilities(kvm=TCG).virt_types() == ("kvm", "qemu")
    assert CAPS.accelerator("kvm") is None
    assert CAPS.accelerator("xen") is None


def test_devices_properties_paths_and_options() -> None:
    assert CAPS.has_device("VGA")
    assert not CAPS.has_device("qxl")
    assert CAPS.has_property("virtio-blk-pci", "queue-size")
    assert not CAPS.has_property("VGA", "vgamem_mb")
    assert CAPS.supports("device_add!json-cli")
    assert CAPS.has_option("sandbox.spawn")


@pytest.mark.parametrize(
    ("type_name", "name"),
    [
        ("qemu64-x86_64-cpu", "qemu64"),
        ("cortex-a15-arm-cpu", "cortex-a15"),
        ("Opteron_G1-i386-cpu", "Opteron_G1"),
        ("any", "any"),
    ],
)
def test_cpu_type_names_its_model(type_name: str, name: str) -> None:
    assert cpu_name_of_type(type_name) == name
