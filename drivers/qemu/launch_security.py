"""Guests whose memory is encrypted (AMD SEV): what the host offers, a guest's measurement, its secret.

https://libvirt.org/kbase/launch_security_sev.html
"""

import asyncio
from typing import TYPE_CHECKING

from pyvirtd.api.connect import NodeGetSEVInfoReply, NodePart
from pyvirtd.api.domain_tune import TunePart
from pyvirtd.api.rpc import accepts
from pyvirtd.api.types import TypedParam, param_string, param_uint
from pyvirtd.constants.domain import DomainState
from pyvirtd.constants.error import ErrorDomain as From
from pyvirtd.constants.host import TypedParameterFlags
from pyvirtd.constants.host import TypedParameterType as Kind
from pyvirtd.core.jobs import Job
from pyvirtd.core.params import checked
from pyvirtd.drivers.qemu import cpu_features
from pyvirtd.drivers.qemu.domain import QemuDomain
from pyvirtd.errors import InvalidArg, OperationInvalid, OperationUnsupported
from pyvirtd.model.features import SevSecurity

if TYPE_CHECKING:
    from pyvirtd.drivers.qemu.driver import QemuDriver

STRING_OKAY = TypedParameterFlags.STRING_OKAY
HEADER, SECRET, ADDRESS = "sev-secret-header", "sev-secret", "sev-secret-set-address"
# Figures of query-sev, and the parameters that they are.
FIGURES = (("api-major", "sev-api-major"), ("api-minor", "sev-api-minor"), ("build-id", "sev-build-id"))


class HostSecurity(NodePart):
    """What SEV the host has."""

    def __init__(self, driver: "QemuDriver") -> None:
        self.driver = driver

    @accepts(STRING_OKAY)
    async def node_get_sev_info(self, nparams: int, flags: int) -> NodeGetSEVInfoReply:
        native = await self.driver.documents.native()
        if native is None or native.sev is None:
            raise OperationUnsupported("QEMU does not support SEV guest", domain=From.QEMU)
        sev = native.sev
        plain, encrypted_state = await asyncio.to_thread(cpu_features.read_sev_guests)
        params = [
            param_string("pdh", sev.pdh),
            param_string("cert-chain", sev.cert_chain),
            param_uint("cbitpos", sev.cbitpos),
            param_uint("reduced-phys-bits", sev.reduced_phys_bits),
            param_uint("max-guests", plain),
            param_uint("max-es-guests", encrypted_state),
        ]
        if sev.cpu0_id is not None:
            params.append(param_string("cpu0-id", sev.cpu0_id))
        # A client that asks for their number first.
        return NodeGetSEVInfoReply(params if nparams else [], len(params))


class LaunchSecurity(TunePart[QemuDomain]):
    """A guest's own launch security."""

    def __init__(self, driver: "QemuDriver") -> None:
        self.driver = driver

    @accepts(STRING_OKAY)
    async def domain_get_launch_security_info(self, dom: QemuDomain, flags: int) -> list[TypedParam]:
        if not isinstance(dom.shown.launch_security, SevSecurity):
            return []
        async with dom.jobs.hold(Job.QUERY, "DomainGetLaunchSecurityInfo"):
            monitor = dom.monitor
            found = await monitor.execute("query-sev")
            measured = await monitor.execute("query-sev-launch-measure")
        params = [param_string("sev-measurement", str(measured["data"]))]
        params += [param_uint(ours, int(found[theirs])) for theirs, ours in FIGURES]
        return [*params, param_uint("sev-policy", int(found["policy"]))]

    @accepts(0)
    async def domain_set_launch_security_state(self, dom: QemuDomain, params: list[TypedParam], flags: int) -> None:
        wanted = checked(params, {HEADER: Kind.STRING, SECRET: Kind.STRING, ADDRESS: Kind.ULLONG})
        if not isinstance(dom.shown.launch_security, SevSecurity):
            raise OperationUnsupported(
                "setting a launch secret is only supported in SEV-enabled domains", domain=From.QEMU
            )
        if HEADER not in wanted or SECRET not in wanted:
            raise InvalidArg(f"both '{SECRET}' and '{HEADER}' are required", domain=From.QEMU)
        async with dom.jobs.hold(Job.MODIFY, "DomainSetLaunchSecurityState"):
            monitor = dom.monitor
            if dom.state is not DomainState.PAUSED:
                raise OperationInvalid("domain must be in a paused state", domain=From.QEMU)
            arguments = {"packet-header": wanted[HEADER], "secret": wanted[SECRET]}
            if ADDRESS in wanted:
                arguments["gpa"] = wanted[ADDRESS]
            await monitor.execute("sev-inject-launch-secret", arguments)
