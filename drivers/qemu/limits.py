"""What a definition asks of the host and the driver cannot give yet: refused at the start, never left out."""

from collections.abc import Iterator

from pyvirtd.constants.error import ErrorDomain as From
from pyvirtd.core.bandwidth import can_limit
from pyvirtd.drivers.qemu.helpers.passt import uses_passt
from pyvirtd.errors import ConfigUnsupported
from pyvirtd.model.domain import DomainDef

# <cputune> fields that need the host's resource control.
RESCTRL = ("cachetune", "memorytune")


def check_start(live: DomainDef) -> None:
    """Raises ConfigUnsupported naming the first element that would have no effect."""
    for element in _without_effect(live):
        raise ConfigUnsupported(
            f"domain '{live.name}' cannot start: {element} is not applied by this daemon yet", domain=From.QEMU
        )


def _without_effect(live: DomainDef) -> Iterator[str]:
    if live.cputune is not None:
        yield from (f"<cputune> {name}" for name in RESCTRL if getattr(live.cputune, name))
    for net in live.devices.interface:
        if net.port_forward and not uses_passt(net):
            yield "<portForward> of an interface without <backend type='passt'/>"
        if net.bandwidth is not None and not can_limit(net):
            yield f"<bandwidth> of an interface of type '{net.type}'"
        if net.filterref is not None:
            yield "<filterref> of an interface"
