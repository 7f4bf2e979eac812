"""The limits of an interface, changed while the guest runs and in its definition."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from pyvirtd.api.domain_tune import TunePart
from pyvirtd.api.rpc import accepts
from pyvirtd.api.types import TypedParam
from pyvirtd.constants.domain import DomainModificationImpact as Impact
from pyvirtd.constants.error import ErrorDomain as From
from pyvirtd.constants.host import TypedParameterType as Kind
from pyvirtd.core.bandwidth import can_limit, set_bandwidth
from pyvirtd.core.edits import change
from pyvirtd.core.params import checked
from pyvirtd.drivers.qemu.domain import QemuDomain
from pyvirtd.drivers.qemu.stats_net import find_interface
from pyvirtd.drivers.qemu.validate.nets import check_bandwidth
from pyvirtd.errors import ConfigUnsupported
from pyvirtd.model.domain import DomainDef
from pyvirtd.model.net import Bandwidth, BandwidthRate, Interface, InterfaceType

if TYPE_CHECKING:
    from pyvirtd.drivers.qemu.driver import QemuDriver

RATES = ("average", "peak", "burst")
LIMITS = {f"{way}.{name}": Kind.UINT for way in ("inbound", "outbound") for name in RATES} | {
    "inbound.floor": Kind.UINT
}


class TuneInterface(TunePart[QemuDomain]):
    """virsh domiftune"""

    def __init__(self, driver: "QemuDriver") -> None:
        self.driver = driver

    @accepts(Impact.LIVE | Impact.CONFIG)
    async def domain_set_interface_parameters(
        self, dom: QemuDomain, device: str, params: list[TypedParam], flags: int
    ) -> None:
        given = checked(params, LIMITS)

        def edit(definition: DomainDef, *, live: bool) -> None:
            net = find_interface(definition, device)
            _edit(net, given)
            if live:
                _check_live(net)

        async def tell_kernel() -> None:
            live = dom.live_def.copy()
            edit(live, live=True)
            net = find_interface(live, device)
            try:
                await set_bandwidth(net)
            except BaseException:
                await set_bandwidth(find_interface(dom.live_def, device))
                raise

        await change(self.driver, dom, flags, edit, tell_kernel)


def _edit(net: Interface, given: Mapping[str, Any]) -> None:
    """Replace the ways that are named; a way whose average and floor are zero has no limit any more."""
    bandwidth = net.bandwidth or Bandwidth()
    for way in ("inbound", "outbound"):
        named = {name: given[key] for name in (*RATES, "floor") if (key := f"{way}.{name}") in given}
        if named:
            rate = BandwidthRate(**{name: value or None for name, value in named.items()})
            setattr(bandwidth, way, rate if rate.average or rate.floor else None)
    check_bandwidth(bandwidth)
    net.bandwidth = bandwidth if bandwidth.inbound is not None or bandwidth.outbound is not None else None


def _check_live(net: Interface) -> None:
    """What can be put in force. Raises ConfigUnsupported."""
    if not can_limit(net):
        raise ConfigUnsupported(
            f"setting bandwidth on interfaces of type '{net.type}' is not implemented", domain=From.NETWORK
        )
    inbound = net.bandwidth.inbound if net.bandwidth is not None else None
    if inbound is not None and inbound.floor and net.type is not InterfaceType.NETWORK:
        mac = net.mac.address if net.mac is not None else ""
        raise ConfigUnsupported(
            f"Invalid use of 'floor' on interface with MAC address {mac}"
            " - 'floor' is only supported for interface type 'network' with forward type 'nat', 'route', 'open' or none"
        )
