"""Documents that mean harm: a clear error, no file read, the daemon there and the others answered as before."""

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import libvirt
import pytest

from tests.support.host import SessionHost

SECRET = "a line that no client may see"
XML_ERROR, XML_DETAIL, INTERNAL = libvirt.VIR_ERR_XML_ERROR, libvirt.VIR_ERR_XML_DETAIL, libvirt.VIR_ERR_INTERNAL_ERROR


@pytest.fixture(scope="module")
def conn(session: SessionHost) -> Iterator["libvirt.virConnect"]:
    libvirt.registerErrorHandler(lambda _, __: None, None)
    made = session.connect()
    yield made
    made.close()


def document(body: str = "", *, name: str = "harm", memory: str = "65536", head: str = "", devices: str = "") -> str:
    return (
        f"{head}<domain type='qemu'><name>{name}</name><memory>{memory}</memory><vcpu>1</vcpu>"
        f"<os><type arch='x86_64' machine='q35'>hvm</type></os>{body}<devices>{devices}</devices></domain>"
    )


def refused(conn: "libvirt.virConnect", xml: str) -> "libvirt.libvirtError":
    with pytest.raises(libvirt.libvirtError) as caught:
        conn.defineXML(xml).undefine()
    assert len(str(caught.value)) < 8192, "an error that repeats the document"
    assert "Traceback" not in str(caught.value)
    assert conn.isAlive()
    assert conn.listAllDomains() == []
    return caught.value


def bomb(levels: int) -> str:
    entities = "<!ENTITY e0 'boom'>" + "".join(
        f"<!ENTITY e{level} '{f'&e{level - 1};' * 10}'>" for level in range(1, levels + 1)
    )
    return f"<!DOCTYPE domain [{entities}]>"


@pytest.mark.parametrize("scheme", ["file://", ""])
def test_an_external_entity_reads_no_file(conn: "libvirt.virConnect", tmp_path: Path, scheme: str) -> None:
    secret = tmp_path / "secret"
    secret.write_text(SECRET)
    head = f"<!DOCTYPE domain [<!ENTITY x SYSTEM '{scheme}{secret}'>]>"
    for xml in (document("<description>&x;</description>", head=head), document(name="&x;", head=head)):
        assert SECRET not in str(refused(conn, xml))


def test_an_external_dtd_and_xinclude_read_no_file(conn: "libvirt.virConnect", tmp_path: Path) -> None:
    secret = tmp_path / "harm.dtd"
    secret.write_text("<!ENTITY x 'expanded'>")
    (tmp_path / "text").write_text("expanded")
    include = f"<xi:include xmlns:xi='http://www.w3.org/2001/XInclude' href='{tmp_path / 'text'}' parse='text'/>"
    head = f"<!DOCTYPE domain SYSTEM '{secret}'>"
    for xml in (document("<title>a&x;</title>", head=head), document(f"<title>a{include}</title>")):
        domain = conn.defineXML(xml)
        try:
            assert "expanded" not in domain.XMLDesc()
        finally:
            domain.undefine()


def test_an_entity_bomb_does_not_go_off(conn: "libvirt.virConnect", session: SessionHost) -> None:
    before = session.pss_kib()
    refused(conn, document("<description>&e9;</description>", head=bomb(9)))
    assert session.pss_kib() - before < 50 << 10


@pytest.mark.parametrize("depth", [300, 100_000])
def test_deep_nesting(conn: "libvirt.virConnect", depth: int) -> None:
    xml = document("<metadata>" + "<a>" * depth + "</a>" * depth + "</metadata>")
    assert refused(conn, xml).get_error_code() in (XML_ERROR, XML_DETAIL)


def test_megabytes_of_attributes(conn: "libvirt.virConnect") -> None:
    attributes = " ".join(f"a{number}='x'" for number in range(200_000))
    assert refused(conn, document(f"<x {attributes}/>")).get_error_code() in (XML_ERROR, XML_DETAIL)


def test_a_message_above_the_protocols_limit_is_refused(conn: "libvirt.virConnect") -> None:
    with pytest.raises(libvirt.libvirtError):  # libvirt's own client does not send it
        conn.defineXML(document(f"<description>{'x' * (5 << 20)}</description>"))
    assert conn.isAlive()


@pytest.mark.parametrize(
    "number",
    ["-1", "18446744073709551615", "18446744073709551616", "9" * 5000, "1e3", "0x10", "", " ", "NaN", "\u0661"],
)
def test_numbers_at_the_edges_in_memory(conn: "libvirt.virConnect", number: str) -> None:
    refused(conn, document(memory=number))


@pytest.mark.parametrize("value", ["-1", "65536", "4294967296", "18446744073709551616", "9" * 4000, "x"])
@pytest.mark.parametrize(
    "device",
    [
        "<graphics type='vnc' port='{}99999999999'/>",
        "<controller type='virtio-serial' index='0' vectors='{}' ports='x{}'/>",
        "<serial type='pty'><target port='{}{}'/></serial>",
        "<interface type='user'><target managed='{}'/><mtu size='{}x'/></interface>",
        "<disk type='file' device='disk'><source file='/x'/><target dev='vda'/>"
        "<address type='pci' slot='{}99999999999'/></disk>",
    ],
)
def test_numbers_at_the_edges_in_devices(conn: "libvirt.virConnect", device: str, value: str) -> None:
    refused(conn, document(devices=device.replace("{}", value)))


@pytest.mark.parametrize("name", ["a/b", "../../etc/passwd", ".", "..", "a\nb", "", "/", "n" * 5000])
def test_names_that_are_no_file_names(conn: "libvirt.virConnect", session: SessionHost, name: str) -> None:
    refused(conn, document(name=name))


def test_a_document_of_many_thousand_devices_keeps_nobody_waiting(
    conn: "libvirt.virConnect", session: SessionHost
) -> None:
    device = "<channel type='pty'><target type='virtio' name='x'/></channel>"
    errors: list[libvirt.libvirtError] = []
    work = threading.Thread(target=lambda: errors.append(refused(conn, document(devices=device * 10_000))))
    other = session.connect()
    waits: list[float] = []
    work.start()
    while work.is_alive():
        since = time.monotonic()
        other.getHostname()
        waits.append(time.monotonic() - since)
        time.sleep(0.01)
    other.close()
    assert errors[0].get_error_code() == INTERNAL  # no more PCI slots
    assert len(waits) > 20, "the document was answered before anybody could have waited"
    assert max(waits) < 1
