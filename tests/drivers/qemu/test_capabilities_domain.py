"""What a client may ask of an emulator, and the document it gets."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pyvirtd.drivers.qemu.capabilities import domain, firmware
from pyvirtd.drivers.qemu.capabilities.domain import Choice, HostOffers, build, choose, wanted_arch, wanted_virt_type
from pyvirtd.errors import ConfigUnsupported, InvalidArg
from pyvirtd.model.capabilities import CapsEnum, Offer, VirtType
from tests.drivers.qemu.capabilities_data import TCG, make_capabilities

CAPS = make_capabilities()
PATH = CAPS.binary
OFFERS = HostOffers(loaders=(), swtpm=("2.0",))


def chosen(machine: str = "pc", **changes: Any) -> Choice:
    return choose(make_capabilities(**changes), "x86_64", None, machine)


def device(name: str, choice: Choice, offers: HostOffers = OFFERS) -> Offer:
    return next(offer for offer in build(choice, offers).devices if offer.tag == name)


def feature(name: str, choice: Choice, offers: HostOffers = OFFERS) -> Offer:
    return next(offer for offer in build(choice, offers).features if offer.tag == name)


def test_words_that_mean_nothing_are_named() -> None:
    with pytest.raises(InvalidArg, match="unknown virttype: bogus"):
        wanted_virt_type("bogus")
    with pytest.raises(InvalidArg, match="unknown architecture: bogus"):
        wanted_arch("bogus")


def test_nothing_named_leaves_the_choice() -> None:
    assert wanted_virt_type(None) is None
    assert wanted_virt_type("none") is None


def test_architecture_without_emulator() -> None:
    with pytest.raises(ConfigUnsupported, match="unable to find any emulator to serve 'mips' architecture"):
        domain.wanted_emulator(None, "mips", {"x86_64": PATH})


@pytest.mark.parametrize(
    ("arch", "virt_type", "machine", "text"),
    [
        ("aarch64", None, None, "architecture from emulator 'x86_64' doesn't match given architecture 'aarch64'"),
        ("x86_64", VirtType.KVM, None, f"the accel 'kvm' is not supported by '{PATH}' on this host"),
        ("x86_64", None, "bogus", f"the machine 'bogus' is not supported by emulator '{PATH}'"),
        ("x86_64", VirtType.XEN, None, f"Emulator '{PATH}' does not support virt type 'xen'"),
    ],
)
def test_request_that_does_not_fit(arch: str, virt_type: VirtType | None, machine: str | None, text: str) -> None:
    with pytest.raises(InvalidArg) as caught:
        choose(CAPS, arch, virt_type, machine)
    assert caught.value.message == f"invalid argument: {text}"


def test_wide_architecture_on_a_narrow_emulator() -> None:
    narrow = make_capabilities("/usr/bin/qemu-system-i386", arch="i686")
    with pytest.raises(InvalidArg, match="Emulator '/usr/bin/qemu-system-i386' does not support arch 'x86_64'"):
        choose(narrow, "x86_64", VirtType.QEMU, None)


def test_kvm_is_preferred_where_it_works() -> None:
    assert choose(CAPS, "x86_64", None, None).virt_type is VirtType.QEMU
    assert choose(make_capabilities(kvm=TCG), "x86_64", None, None).virt_type is VirtType.KVM


def test_alias_becomes_the_full_machine() -> None:
    assert chosen("q35").machine.name == "pc-q35-7.2"


def test_machine_and_kvm_both_limit_the_vcpus() -> None:
    offers = replace(OFFERS, kvm_max_vcpus=64)
    assert build(chosen(), offers).max_vcpus == 255
    assert build(chosen(kvm=TCG), offers).max_vcpus == 64


def test_document_begins_as_libvirts() -> None:
    assert (
        build(chosen(), OFFERS)
        .format()
        .startswith("""\
<domainCapabilities>
  <path>/usr/bin/qemu-system-x86_64</path>
  <domain>qemu</domain>
  <machine>pc-i440fx-7.2</machine>
  <arch>x86_64</arch>
  <vcpu max='255'/>
  <iothreads supported='yes'/>
  <os supported='yes'>
    <enum name='firmware'/>
    <loader supported='yes'>
      <enum name='type'>
        <value>rom</value>
        <value>pflash</value>
      </enum>
""")
    )


def test_cpu_modes_as_libvirts() -> None:
    text = build(chosen(), OFFERS).format()
    assert (
        text[text.index("  <cpu>") : text.index("  <memoryBacking")]
        == """\
  <cpu>
    <mode name='host-passthrough' supported='no'/>
    <mode name='maximum' supported='yes'>
      <enum name='maximumMigratable'>
        <value>on</value>
        <value>off</value>
      </enum>
    </mode>
    <mode name='host-model' supported='yes'>
      <model fallback='forbid'>qemu64</model>
      <vendor>AMD</vendor>
      <feature policy='require' name='pclmuldq'/>
      <feature policy='require' name='aes'/>
      <feature policy='require' name='invtsc'/>
    </mode>
    <mode name='custom' supported='yes'>
      <model usable='yes' vendor='unknown'>qemu64</model>
      <model usable='no' deprecated='yes' vendor='AMD'>EPYC</model>
    </mode>
  </cpu>
"""
    )


def test_firmware_that_fits_replaces_the_defaults(tmp_path: Path) -> None:
    image = tmp_path / "CODE.fd"
    image.write_text("")
    target = firmware.Target("x86_64", ("pc-q35-*",))
    found = firmware.Firmware(
        ("efi",), "flash", str(image), "raw", None, None, "split", (target,), frozenset({"requires-smm"})
    )
    offers = replace(OFFERS, firmware=(found,), loaders=(str(tmp_path), "/nonexistent"))
    fits, other = build(chosen("q35"), offers), build(chosen("pc"), offers)
    assert fits.firmware.values == ("efi",)
    assert fits.loader.values == (str(image),)
    assert fits.loader.enums[2] == CapsEnum("secure", ("yes", "no"))
    assert other.firmware.values == ()
    assert other.loader.values == (str(tmp_path),)
    assert other.loader.enums[2] == CapsEnum("secure", ("no",))


def test_ide_only_where_the_machine_has_it() -> None:
    assert "ide" in device("disk", chosen("pc")).enums[1].values
    assert "ide" not in device("disk", chosen("q35")).enums[1].values


def test_tpm_needs_a_model_a_backend_and_swtpm() -> None:
    assert device("tpm", chosen()).enums == (
        CapsEnum("model", ("tpm-crb",)),
        CapsEnum("backendModel", ("emulator", "external")),
        CapsEnum("backendVersion", ("2.0",)),
    )
    without = device("tpm", chosen(), replace(OFFERS, swtpm=None))
    assert without.enums[1] == CapsEnum("backendModel", ("external",))
    assert not device("tpm", chosen(tpm_models=())).supported


def test_vfio_only_where_host_and_emulator_have_it() -> None:
    with_vfio = chosen(types=frozenset({"vfio-pci"}))
    assert device("hostdev", with_vfio).enums[4].values == ()
    assert device("hostdev", with_vfio, replace(OFFERS, vfio=True)).enums[4].values == ("default", "vfio")


def test_interrupt_controllers_only_on_virt_boards() -> None:
    board = replace(TCG, machines=(replace(TCG.machines[0], name="virt-7.2", alias="virt"), TCG.machines[1]))
    arm = make_capabilities(arch="aarch64", tcg=board)
    assert feature("gic", choose(arm, "aarch64", None, "virt")).enums[0].values == ("3",)
    assert not feature("gic", choose(arm, "aarch64", None, "pc-i440fx-1.4")).supported


def test_hyperv_is_for_x86_and_in_libvirts_order() -> None:
    assert feature("hyperv", chosen()).enums == (CapsEnum("features", ("spinlocks", "vendor_id")),)
    arm = make_capabilities(arch="aarch64")
    assert "hyperv" not in [f.tag for f in build(choose(arm, "aarch64", None, None), OFFERS).features]
