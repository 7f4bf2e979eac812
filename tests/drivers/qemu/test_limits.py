"""What cannot be applied is refused by name when a guest starts."""

import pytest

from pyvirtd.drivers.qemu.limits import check_start
from pyvirtd.errors import ConfigUnsupported
from pyvirtd.model.domain import DomainDef

DOMAIN = (
    "<domain type='qemu'><name>x</name><memory>1</memory><vcpu>2</vcpu>{top}<os><type>hvm</type></os>"
    "<devices>{devices}</devices></domain>"
)
USER = "<interface type='user'>{}</interface>"
NET = "<interface type='bridge'><source bridge='b'/>{}</interface>"


def check(top: str = "", devices: str = "") -> None:
    check_start(DomainDef.parse(DOMAIN.format(top=top, devices=devices)))


@pytest.mark.parametrize(
    ("top", "devices", "named"),
    [
        (
            "",
            USER.format("<bandwidth><inbound average='1'/></bandwidth>"),
            "<bandwidth> of an interface of type 'user'",
        ),
        ("", USER.format("<portForward proto='tcp'/>"), "<portForward>"),
        ("", NET.format("<filterref filter='clean-traffic'/>"), "<filterref>"),
    ],
)
def test_what_has_no_effect_is_refused_by_name(top: str, devices: str, named: str) -> None:
    with pytest.raises(ConfigUnsupported, match=named):
        check(top, devices)


def test_pins_and_plain_domains_start() -> None:
    check()
    check("<cputune><vcpupin vcpu='0' cpuset='0'/><emulatorpin cpuset='0-1'/></cputune>", NET.format(""))
