"""Who QEMU runs as and what the documents say of it; which files a guest is given. Definitions in, labels out."""

import asyncio
import grp
import os
import pwd

import pytest

from pyvirtd.config import QemuConfig
from pyvirtd.constants.error import ErrorDomain
from pyvirtd.core.security import (
    Credentials,
    Label,
    confine,
    domain_identity,
    domain_labels,
    labels_of,
    opened_paths,
    security_models,
)
from pyvirtd.errors import ConfigUnsupported, InvalidArg
from pyvirtd.model.capabilities import Writer
from pyvirtd.model.domain import DomainDef
from pyvirtd.util.process import Identity
from pyvirtd.xml.element import LIVE

QEMU = Credentials(Identity(64055, 108, (108,)), privileged=True)
SESSION = Credentials(Identity(1000, 1000, (1000,)), privileged=False)
OURS = "+64055:+108"


def domain(devices: str = "", *, os_: str = "", seclabel: str = "") -> DomainDef:
    return DomainDef.parse(
        f"""<domain type='qemu'><name>g</name><memory>1024</memory><vcpu>1</vcpu>
        <os><type arch='x86_64' machine='q35'>hvm</type>{os_}</os>
        <devices>{devices}</devices>{seclabel}</domain>""",
        LIVE,
    )


def disk(source: str, rest: str = "", kind: str = "file", device: str = "disk") -> str:
    return f"<disk type='{kind}' device='{device}'>{source}<target dev='vda' bus='virtio'/>{rest}</disk>"


def labels(definition: DomainDef, **settings: object) -> list[Label]:
    return labels_of(definition, QEMU, QemuConfig(**settings))  # type: ignore[arg-type]


def seclabels(definition: DomainDef) -> str:
    return "".join(item.format(LIVE) for item in definition.seclabel)


# --- who ------------------------------------------------------------------------------------------------------


def test_users_and_groups_may_be_numbers() -> None:
    found = Credentials.of(QemuConfig(user="+12345", group="+54321"), privileged=True)

    assert found.identity == Identity(12345, 54321, (54321,))
    assert found.label == "+12345:+54321"


def test_a_named_user_brings_its_groups() -> None:
    user = pwd.getpwuid(0).pw_name

    found = Credentials.of(QemuConfig(user=user, group=grp.getgrgid(0).gr_name), privileged=True)

    assert found.owner == (0, 0)
    assert found.identity.groups == tuple(os.getgrouplist(user, 0))


def test_a_missing_user_is_named() -> None:
    with pytest.raises(InvalidArg, match="Failed to parse user 'no-such-user'"):
        Credentials.of(QemuConfig(user="no-such-user", group="+1"), privileged=True)


def test_a_session_runs_guests_as_its_user() -> None:
    found = Credentials.of(QemuConfig(user="no-such-user"), privileged=False)

    assert found.owner == (os.geteuid(), os.getegid())


def test_a_static_label_names_whom_the_guest_runs_as() -> None:
    static = domain(seclabel="<seclabel type='static' model='dac'><label>+7:+8</label></seclabel>")

    assert asyncio.run(domain_identity(static, QEMU)) == Identity(7, 8, (8,))
    assert asyncio.run(domain_identity(domain(), QEMU)) == QEMU.identity
    assert asyncio.run(domain_identity(static, SESSION)) == SESSION.identity


@pytest.mark.parametrize(
    ("label", "words"),
    [("+5", "Failed to parse uid and gid from '\\+5'"), ("nobody-here:+1", "Failed to parse user 'nobody-here'")],
)
def test_a_static_label_that_names_nobody_is_refused(label: str, words: str) -> None:
    static = domain(seclabel=f"<seclabel type='static' model='dac'><label>{label}</label></seclabel>")

    with pytest.raises(InvalidArg, match=words):
        asyncio.run(domain_identity(static, QEMU))


# --- documents ------------------------------------------------------------------------------------------------


def test_capabilities_name_the_models_and_the_labels() -> None:
    out = Writer()
    for model in security_models(QEMU):
        model.write(out)

    assert out.take() == (
        "<secmodel>\n  <model>none</model>\n  <doi>0</doi>\n</secmodel>\n"
        "<secmodel>\n  <model>dac</model>\n  <doi>0</doi>\n"
        "  <baselabel type='kvm'>+64055:+108</baselabel>\n"
        "  <baselabel type='qemu'>+64055:+108</baselabel>\n</secmodel>\n"
    )


def test_a_session_has_no_ownership_model() -> None:
    assert [model.model for model in security_models(SESSION)] == ["none"]


DYNAMIC = f"""\
<seclabel type='dynamic' model='dac' relabel='yes'>
  <label>{OURS}</label>
  <imagelabel>{OURS}</imagelabel>
</seclabel>
"""


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        ("", DYNAMIC),
        ("<seclabel type='dynamic' model='dac'/>", DYNAMIC),
        ("<seclabel type='none' model='none'/>", "<seclabel type='none' model='none'/>\n" + DYNAMIC),
        ("<seclabel type='none' model='dac'/>", "<seclabel type='none' model='dac'/>\n"),
        (
            "<seclabel type='static' model='dac' relabel='yes'><label>+1:+2</label></seclabel>",
            "<seclabel type='static' model='dac' relabel='yes'>\n"
            "  <label>+1:+2</label>\n  <imagelabel>+1:+2</imagelabel>\n</seclabel>\n",
        ),
        (
            "<seclabel type='static' model='dac' relabel='no'><label>+1:+2</label></seclabel>",
            "<seclabel type='static' model='dac' relabel='no'>\n  <label>+1:+2</label>\n</seclabel>\n",
        ),
        (
            "<seclabel type='dynamic' model='dac'><baselabel>+1:+1</baselabel></seclabel>",
            DYNAMIC.replace("</imagelabel>\n", "</imagelabel>\n  <baselabel>+1:+1</baselabel>\n"),
        ),
    ],
)
def test_a_running_guest_shows_its_label(given: str, shown: str) -> None:
    definition = domain(seclabel=given)

    confine(definition, QEMU, QemuConfig())

    assert seclabels(definition) == shown


def test_a_sessions_guest_shows_no_label() -> None:
    definition = domain()

    confine(definition, SESSION, QemuConfig())

    assert definition.seclabel == []


def test_guests_are_not_labelled_where_the_configuration_says_so() -> None:
    definition = domain()

    confine(definition, QEMU, QemuConfig(security_default_confined=False))

    assert definition.seclabel == []


def test_unconfined_guests_may_be_forbidden() -> None:
    definition = domain(seclabel="<seclabel type='none' model='dac'/>")

    with pytest.raises(ConfigUnsupported, match="Unconfined guests are not allowed on this host"):
        confine(definition, QEMU, QemuConfig(security_require_confined=True))


@pytest.mark.parametrize(
    ("definition", "model"),
    [
        (domain(seclabel="<seclabel type='dynamic' model='selinux'/>"), "selinux"),
        (domain(disk("<source file='/a'><seclabel model='apparmor' relabel='no'/></source>")), "apparmor"),
        (domain(disk("<source file='/a'><seclabel relabel='no'/></source>")), r"\(null\)"),
    ],
)
def test_a_model_that_is_not_there_is_refused(definition: DomainDef, model: str) -> None:
    with pytest.raises(ConfigUnsupported, match=f"Security driver model '{model}' is not available") as info:
        confine(definition, QEMU, QemuConfig())

    assert info.value.domain == ErrorDomain.SECURITY


def test_a_running_guests_labels_stand_in_the_order_of_the_models() -> None:
    definition = domain()
    confine(definition, QEMU, QemuConfig())

    assert domain_labels(definition, QEMU) == ["", OURS]
    assert domain_labels(definition, SESSION) == [""]


# --- files ----------------------------------------------------------------------------------------------------


def test_a_disk_of_the_guests_own_is_lent() -> None:
    found = labels(domain(disk("<source file='/img/a'/>") + disk("<source dev='/dev/sdx'/>", kind="block")))

    assert found == [Label("/img/a", OURS, storage=True), Label("/dev/sdx", OURS, storage=True)]


@pytest.mark.parametrize("extra", ["<readonly/>", "<shareable/>"])
def test_a_disk_that_others_may_use_is_not_given_back(extra: str) -> None:
    found = labels(domain(disk("<source file='/img/a'/>", extra)))

    assert found == [Label("/img/a", OURS, remember=False, restore=False, storage=True)]


def test_a_cdrom_is_a_disk_that_others_may_use() -> None:
    (found,) = labels(domain(disk("<source file='/img/a.iso'/>", device="cdrom")))

    assert not found.restore


def test_images_below_the_top_are_not_given_back() -> None:
    chain = """<source file='/img/top'/><backingStore type='file'><format type='qcow2'/><source file='/img/mid'/>
    <backingStore type='block'><format type='raw'/><source dev='/dev/base'/><backingStore/></backingStore>
    </backingStore>"""

    found = labels(domain(disk(chain)))

    assert [(label.path, label.restore) for label in found] == [
        ("/img/top", True),
        ("/img/mid", False),
        ("/dev/base", False),
    ]


def test_a_file_with_an_images_data_is_given_like_the_image() -> None:
    store = "<dataStore type='file'><format type='raw'/><source file='{}'>{}</source></dataStore>"
    kept = "<seclabel model='dac' relabel='no'/>"
    chain = f"""<source file='/img/top'>{store.format("/img/data", "")}</source>
    <backingStore type='file'><format type='qcow2'/><source file='/img/mid'>{store.format("/img/below", "")}</source>
    <backingStore/></backingStore>"""
    top = domain(disk(chain))

    assert [(label.path, label.restore) for label in labels(top)] == [
        ("/img/top", True),
        ("/img/data", True),
        ("/img/mid", False),
        ("/img/below", False),
    ]
    assert list(opened_paths(top)) == [
        ("/img/top", True),
        ("/img/data", True),
        ("/img/mid", False),
        ("/img/below", False),
    ]
    own = domain(disk(f"<source file='/img/top'>{store.format('/img/data', kept)}</source>"))
    assert [label.path for label in labels(own)] == ["/img/top"]


def test_an_empty_or_remote_disk_has_no_file() -> None:
    remote = "<source protocol='nbd' name='x'><host name='h' port='10809'/></source>"

    assert labels(domain(disk("", device="cdrom") + disk(remote, kind="network"))) == []


def test_a_disk_may_have_a_label_of_its_own() -> None:
    own = "<source file='/img/a'><seclabel model='dac' relabel='yes'><label>kvm:+5</label></seclabel></source>"

    (found,) = labels(domain(disk(own)))

    assert found.label == "kvm:+5"


def test_a_disk_may_be_left_alone() -> None:
    own = "<source file='/img/a'><seclabel model='dac' relabel='no'/></source>"

    assert labels(domain(disk(own))) == []


def test_boot_files_and_memory_files_are_lent() -> None:
    boot = """<loader readonly='yes' type='pflash'>/fw/code</loader><nvram>/fw/vars</nvram>
    <kernel>/k</kernel><initrd>/i</initrd><dtb>/d</dtb><acpi><table type='slic'>/s</table></acpi>"""
    memory = """<memory model='nvdimm'><source><path>/nv</path></source>
    <target><size unit='KiB'>4096</size><node>0</node></target></memory>"""

    found = labels(domain(memory, os_=boot))

    assert [label.path for label in found] == ["/fw/vars", "/k", "/i", "/d", "/s", "/nv"]
    assert all(label.restore and label.remember for label in found)


def test_character_devices_bring_their_files() -> None:
    devices = """<serial type='file'><source path='/log'/><target port='0'/></serial>
    <serial type='pipe'><source path='/pipe'/><target port='1'/></serial>
    <serial type='dev'><source path='/dev/ttyS9'/><target port='2'/></serial>
    <serial type='pty'><source path='/dev/pts/7'/><target port='3'/></serial>
    <console type='file'><source path='/log'/><target type='serial' port='0'/></console>
    <console type='file'><source path='/virtio.log'/><target type='virtio' port='1'/></console>
    <channel type='unix'><source mode='bind' path='/sock'/><target type='virtio' name='x'/></channel>"""

    found = labels(domain(devices))

    assert found == [
        Label("/log", OURS, create=True),
        Label("/pipe.in", OURS, optional=True),
        Label("/pipe.out", OURS, optional=True),
        Label("/pipe", OURS, optional=True),
        Label("/dev/ttyS9", OURS),
        Label("/virtio.log", OURS, create=True),
        Label("/sock", OURS, remember=False, restore=False, optional=True),
    ]


def test_a_character_device_may_have_a_label_of_its_own_or_none() -> None:
    devices = """<serial type='file'><source path='/a'><seclabel model='dac' relabel='no'/></source></serial>
    <serial type='file'><source path='/b'><seclabel model='dac'><label>+1:+1</label></seclabel></source></serial>"""

    assert labels(domain(devices)) == [Label("/b", "+1:+1", create=True)]


def test_host_devices_bring_their_nodes() -> None:
    devices = """<hostdev mode='subsystem' type='usb'><source><address bus='1' device='12'/></source></hostdev>
    <input type='evdev'><source dev='/dev/input/event1'/></input>
    <tpm model='tpm-tis'><backend type='passthrough'><device path='/dev/tpm0'/></backend></tpm>"""

    found = labels(domain(devices))

    assert [label.path for label in found] == ["/dev/bus/usb/001/012", "/dev/input/event1", "/dev/tpm0"]
    assert all(label.restore and not label.remember for label in found)


@pytest.mark.parametrize(
    ("seclabel", "expected"),
    [
        ("<seclabel type='static' model='dac' relabel='yes'><label>+1:+2</label></seclabel>", ["+1:+2"]),
        ("<seclabel type='static' model='dac' relabel='no'><label>+1:+2</label></seclabel>", []),
        ("<seclabel type='none' model='dac'/>", []),
        ("<seclabel type='none' model='none'/>", [OURS]),
    ],
)
def test_the_domains_own_label_decides(seclabel: str, expected: list[str]) -> None:
    definition = domain(disk("<source file='/img/a'/>"), seclabel=seclabel)
    confine(definition, QEMU, QemuConfig())

    assert [label.label for label in labels(definition)] == expected


def test_ownership_may_be_left_alone_altogether() -> None:
    definition = domain(disk("<source file='/img/a'/>"))

    assert labels(definition, dynamic_ownership=False) == []
    assert labels_of(definition, SESSION, QemuConfig()) == []


def test_former_owners_need_not_be_remembered() -> None:
    (found,) = labels(domain(disk("<source file='/img/a'/>")), remember_owner=False)

    assert found.restore
    assert not found.remember
