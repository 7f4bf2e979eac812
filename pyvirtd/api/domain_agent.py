"""What the guest itself answers: time, file systems, users, addresses, power states.

Declarations only: see pyvirtd.api.rpc for what is derived from them.
"""

from typing import Annotated, Generic, NamedTuple

from pyvirtd.api.limits import (
    DOMAIN_AUTHORIZED_SSH_KEYS_MAX,
    DOMAIN_FSFREEZE_MOUNTPOINTS_MAX,
    DOMAIN_FSINFO_MAX,
    DOMAIN_GUEST_INFO_PARAMS_MAX,
    DOMAIN_GUEST_VCPU_PARAMS_MAX,
    DOMAIN_INTERFACE_MAX,
)
from pyvirtd.api.rpc import REMOTE, Answer, Part, WhenIs, rpc
from pyvirtd.api.types import D, DomainInterface, FSInfo, TypedParam
from pyvirtd.constants.domain import DomainInterfaceAddressesSource
from pyvirtd.constants.error import ErrorDomain as From
from pyvirtd.wire.xdr import Hyper, Int, Max, Str, UHyper, UInt


class DomainGetTimeReply(NamedTuple):
    seconds: Hyper
    nseconds: UInt


class DomainGetFSInfoReply(NamedTuple):
    info: Annotated[list[FSInfo], Max(DOMAIN_FSINFO_MAX)]
    ret: UInt


class AgentPart(Part, Generic[D], program=REMOTE, error_domain=From.DOMAIN):
    """AgentPart procedures."""

    @rpc(261, "domain:pm_control")
    def domain_pm_suspend_for_duration(self, dom: D, target: UInt, duration: UHyper, flags: UInt) -> Answer[None]: ...

    @rpc(267, "domain:pm_control")
    def domain_pm_wakeup(self, dom: D, flags: UInt) -> Answer[None]: ...

    @rpc(277, "domain:write")
    def domain_get_hostname(self, dom: D, flags: UInt) -> Answer[Str]: ...

    @rpc(294, "domain:fs_trim")
    def domain_fstrim(self, dom: D, mount_point: Str | None, minimum: UHyper, flags: UInt) -> Answer[None]: ...

    @rpc(335, "domain:fs_freeze")
    def domain_fsfreeze(
        self, dom: D, mountpoints: Annotated[list[Str], Max(DOMAIN_FSFREEZE_MOUNTPOINTS_MAX)], flags: UInt
    ) -> Answer[Int]: ...

    @rpc(336, "domain:fs_freeze")
    def domain_fsthaw(
        self, dom: D, mountpoints: Annotated[list[Str], Max(DOMAIN_FSFREEZE_MOUNTPOINTS_MAX)], flags: UInt
    ) -> Answer[Int]: ...

    @rpc(337, "domain:write")
    def domain_get_time(self, dom: D, flags: UInt) -> Answer[DomainGetTimeReply]: ...

    @rpc(338, "domain:set_time")
    def domain_set_time(self, dom: D, seconds: Hyper, nseconds: UInt, flags: UInt) -> Answer[None]: ...

    @rpc(349, "domain:fs_freeze")
    def domain_get_fsinfo(self, dom: D, flags: UInt) -> Answer[DomainGetFSInfoReply]: ...

    @rpc(
        353,
        "domain:read",
        WhenIs("source", DomainInterfaceAddressesSource.AGENT, "domain:write"),
        ro=True,
        ro_deny=WhenIs("source", DomainInterfaceAddressesSource.AGENT, "domain:write"),
    )
    def domain_interface_addresses(
        self, dom: D, source: UInt, flags: UInt
    ) -> Answer[Annotated[list[DomainInterface], Max(DOMAIN_INTERFACE_MAX)]]: ...

    @rpc(357, "domain:set_password")
    def domain_set_user_password(self, dom: D, user: Str | None, password: Str | None, flags: UInt) -> Answer[None]: ...

    @rpc(371, "domain:write")
    def domain_get_guest_vcpus(
        self, dom: D, flags: UInt
    ) -> Answer[Annotated[list[TypedParam], Max(DOMAIN_GUEST_VCPU_PARAMS_MAX)]]: ...

    @rpc(372, "domain:write")
    def domain_set_guest_vcpus(self, dom: D, cpumap: Str, state: Int, flags: UInt) -> Answer[None]: ...

    @rpc(418, "domain:write")
    def domain_get_guest_info(
        self, dom: D, types: UInt, flags: UInt
    ) -> Answer[Annotated[list[TypedParam], Max(DOMAIN_GUEST_INFO_PARAMS_MAX)]]: ...

    @rpc(420, "domain:write")
    def domain_agent_set_response_timeout(self, dom: D, timeout: Int, flags: UInt) -> Answer[Int]: ...

    @rpc(424, "domain:write")
    def domain_authorized_ssh_keys_get(
        self, dom: D, user: Str, flags: UInt
    ) -> Answer[Annotated[list[Str], Max(DOMAIN_AUTHORIZED_SSH_KEYS_MAX)]]: ...

    @rpc(425, "domain:write")
    def domain_authorized_ssh_keys_set(
        self, dom: D, user: Str, keys: Annotated[list[Str], Max(DOMAIN_AUTHORIZED_SSH_KEYS_MAX)], flags: UInt
    ) -> Answer[None]: ...
