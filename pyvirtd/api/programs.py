"""The QEMU and LXC side programs.

Declarations only: see pyvirtd.api.rpc for what is derived from them.
"""

from typing import Generic

from pyvirtd.api.rpc import LXC, QEMU, Answer, Files, Part, rpc
from pyvirtd.api.types import Caller, D
from pyvirtd.wire.xdr import Int, Str, UInt


class QemuPart(Part, Generic[D], program=QEMU):
    """QemuPart procedures."""

    @rpc(1, "domain:write", api="DomainQemuMonitorCommand")
    def domain_monitor_command(self, dom: D, cmd: Str, flags: UInt) -> Answer[Str]: ...

    @rpc(2, "domain:start", "domain:write", api="DomainQemuAttach")
    def domain_attach(self, pid_value: UInt, flags: UInt) -> Answer[D]: ...

    @rpc(3, "domain:write", api="DomainQemuAgentCommand")
    def domain_agent_command(self, dom: D, cmd: Str, timeout: Int, flags: UInt) -> Answer[Str | None]: ...

    @rpc(
        4,
        "connect:search_domains",
        "connect:write",
        list_filter="domain:getattr",
        api="ConnectDomainQemuMonitorEventRegister",
    )
    def connect_domain_monitor_event_register(
        self, dom: D | None, event: Str | None, flags: UInt, caller: Caller
    ) -> Answer[Int]: ...

    @rpc(5, "connect:write", api="ConnectDomainQemuMonitorEventDeregister")
    def connect_domain_monitor_event_deregister(self, callback_id: Int, caller: Caller) -> Answer[None]: ...

    @rpc(7, "domain:write", api="DomainQemuMonitorCommandWithFiles")
    def domain_monitor_command_with_files(self, dom: D, cmd: Str, flags: UInt, files: Files) -> Answer[Str]: ...


class LxcPart(Part, Generic[D], program=LXC):
    """LxcPart procedures."""

    @rpc(1, "domain:open_namespace", api="DomainLxcOpenNamespace")
    def domain_open_namespace(self, dom: D, flags: UInt) -> Answer[None]: ...
