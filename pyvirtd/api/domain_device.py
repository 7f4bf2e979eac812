"""Devices of a running or defined domain: attach, detach, consoles, graphics, keys.

Declarations only: see pyvirtd.api.rpc for what is derived from them.
"""

from typing import Annotated, Generic

from pyvirtd.api.limits import DOMAIN_SEND_KEY_MAX
from pyvirtd.api.rpc import REMOTE, Answer, Direction, Files, Part, Unless, When, rpc
from pyvirtd.api.types import Caller, D, Stream
from pyvirtd.constants.domain import DomainModificationImpact
from pyvirtd.constants.error import ErrorDomain as From
from pyvirtd.wire.xdr import Hyper, Max, Str, UInt


class DevicePart(Part, Generic[D], program=REMOTE, error_domain=From.DOMAIN):
    """DevicePart procedures."""

    @rpc(8, "domain:write")
    def domain_attach_device(self, dom: D, xml: Str) -> Answer[None]: ...

    @rpc(13, "domain:write")
    def domain_detach_device(self, dom: D, xml: Str) -> Answer[None]: ...

    @rpc(
        160,
        "domain:write",
        Unless(DomainModificationImpact.CONFIG | DomainModificationImpact.LIVE, "domain:save"),
        When(DomainModificationImpact.CONFIG, "domain:save"),
    )
    def domain_attach_device_flags(self, dom: D, xml: Str, flags: UInt) -> Answer[None]: ...

    @rpc(
        161,
        "domain:write",
        Unless(DomainModificationImpact.CONFIG | DomainModificationImpact.LIVE, "domain:save"),
        When(DomainModificationImpact.CONFIG, "domain:save"),
    )
    def domain_detach_device_flags(self, dom: D, xml: Str, flags: UInt) -> Answer[None]: ...

    @rpc(
        174,
        "domain:write",
        Unless(DomainModificationImpact.CONFIG | DomainModificationImpact.LIVE, "domain:save"),
        When(DomainModificationImpact.CONFIG, "domain:save"),
    )
    def domain_update_device_flags(self, dom: D, xml: Str, flags: UInt) -> Answer[None]: ...

    @rpc(201, "domain:open_device", stream=Direction.DOWNLOAD)
    def domain_open_console(self, dom: D, dev_name: Str | None, flags: UInt, stream: Stream) -> Answer[None]: ...

    @rpc(210, "domain:inject_nmi")
    def domain_inject_nmi(self, dom: D, flags: UInt) -> Answer[None]: ...

    @rpc(211, "domain:screenshot", stream=Direction.DOWNLOAD)
    def domain_screenshot(self, dom: D, screen: UInt, flags: UInt, stream: Stream) -> Answer[Str | None]: ...

    @rpc(226, "domain:send_input")
    def domain_send_key(
        self,
        dom: D,
        codeset: UInt,
        holdtime: UInt,
        keycodes: Annotated[list[UInt], Max(DOMAIN_SEND_KEY_MAX)],
        flags: UInt,
    ) -> Answer[None]: ...

    @rpc(249, "domain:open_graphics")
    def domain_open_graphics(self, dom: D, idx: UInt, flags: UInt, files: Files) -> Answer[None]: ...

    @rpc(295, "domain:send_signal")
    def domain_send_process_signal(self, dom: D, pid_value: Hyper, signum: UInt, flags: UInt) -> Answer[None]: ...

    @rpc(296, "domain:open_device", stream=Direction.DOWNLOAD)
    def domain_open_channel(self, dom: D, name: Str | None, flags: UInt, stream: Stream) -> Answer[None]: ...

    @rpc(343, "domain:open_graphics")
    def domain_open_graphics_fd(self, dom: D, idx: UInt, flags: UInt) -> Answer[None]: ...

    @rpc(
        392,
        "domain:write",
        Unless(DomainModificationImpact.CONFIG | DomainModificationImpact.LIVE, "domain:save"),
        When(DomainModificationImpact.CONFIG, "domain:save"),
    )
    def domain_detach_device_alias(self, dom: D, alias: Str, flags: UInt) -> Answer[None]: ...

    @rpc(443, "domain:write")
    def domain_fd_associate(self, dom: D, name: Str, flags: UInt, files: Files, caller: Caller) -> Answer[None]: ...

    @rpc(448, "domain:open_graphics")
    def domain_graphics_reload(self, dom: D, type: UInt, flags: UInt) -> Answer[None]: ...
