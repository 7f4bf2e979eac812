"""Displays that qemu.conf wants encrypted or authenticated are."""

from collections.abc import Iterator

import pytest

from tests.support.domains import bare_domain
from tests.support.host import SystemHost

SETTINGS = """
vnc_tls = 1
vnc_tls_x509_cert_dir = "/certificates"
vnc_sasl = 1
vnc_sasl_dir = "/vnc-sasl"
spice_sasl = 1
spice_sasl_dir = "/spice-sasl"
default_tls_x509_verify = 1
"""


@pytest.fixture(scope="module")
def strict(host: SystemHost) -> Iterator[SystemHost]:
    config = host.path("/etc/libvirt/qemu.conf")
    before = config.read_text() if config.exists() else ""
    config.write_text(before + SETTINGS)
    host.restart()
    yield host
    config.write_text(before)


def command_line(host: SystemHost, graphics: str) -> str:
    host.define(bare_domain("seen", devices=graphics))
    shown = host.ok("domxml-to-native qemu-argv --domain seen")
    host.ok("undefine seen")
    return shown


def test_vnc_has_a_certificate_and_asks_who_is_there(strict: SystemHost) -> None:
    shown = command_line(strict, "<graphics type='vnc'/>")
    credentials = '"id":"vnc-tls-creds0","dir":"/certificates","endpoint":"server","verify-peer":true'
    assert credentials in shown
    assert ",tls-creds=vnc-tls-creds0,sasl=on" in shown
    assert "SASL_CONF_PATH=/vnc-sasl " in shown


def test_spice_asks_who_is_there(strict: SystemHost) -> None:
    shown = command_line(strict, "<graphics type='spice' autoport='yes'/>")
    assert ",sasl=on,disable-ticketing=on" in shown
    assert "SASL_CONF_PATH=/spice-sasl " in shown


def test_vnc_without_its_certificate_does_not_start(strict: SystemHost) -> None:
    strict.define(bare_domain("seen", devices="<graphics type='vnc'/>"))
    assert "Unable to access credentials /certificates/ca-cert.pem" in strict.virsh("start seen").stderr
    strict.ok("undefine seen")
