"""Domains: lookup, lists, definition, life cycle, state, description.

Declarations only: see pyvirtd.api.rpc for what is derived from them.
"""

from typing import Annotated, Generic, NamedTuple

from pyvirtd.api.limits import DOMAIN_LIST_MAX, DOMAIN_MESSAGES_MAX
from pyvirtd.api.rpc import REMOTE, Answer, Files, Part, Shape, Shaped, Unless, When, rpc
from pyvirtd.api.types import Caller, D
from pyvirtd.constants.domain import (
    DomainModificationImpact,
    DomainRebootFlagValues,
    DomainShutdownFlagValues,
    DomainXMLFlags,
)
from pyvirtd.constants.error import ErrorDomain as From
from pyvirtd.wire.xdr import Int, Max, Str, UHyper, UInt, Uuid


class DomainGetInfoReply(NamedTuple):
    state: Int
    max_mem: UHyper
    memory: UHyper
    nr_virt_cpu: Int
    cpu_time: UHyper


class DomainGetStateReply(NamedTuple):
    state: Int
    reason: Int


class DomainGetControlInfoReply(NamedTuple):
    state: UInt
    details: UInt
    state_time: UHyper


class DomainPart(Part, Generic[D], program=REMOTE, error_domain=From.DOMAIN):
    """DomainPart procedures."""

    @rpc(9, "domain:start")
    def domain_create(self, dom: D) -> Answer[None]: ...

    @rpc(10, "domain:write", "domain:start")
    def domain_create_xml(self, xml_desc: Str, flags: UInt, caller: Caller) -> Answer[D]: ...

    @rpc(11, "domain:write", "domain:save")
    def domain_define_xml(self, xml: Str) -> Answer[D]: ...

    @rpc(12, "domain:stop")
    def domain_destroy(self, dom: D) -> Answer[None]: ...

    @rpc(
        14,
        "domain:read",
        When(DomainXMLFlags.SECURE, "domain:read_secure"),
        When(DomainXMLFlags.MIGRATABLE, "domain:read_secure"),
        ro=True,
        ro_deny=When(DomainXMLFlags.SECURE | DomainXMLFlags.MIGRATABLE, "domain:read_secure"),
    )
    def domain_get_xml_desc(self, dom: D, flags: UInt) -> Answer[Str]: ...

    @rpc(15, "domain:read", ro=True)
    def domain_get_autostart(self, dom: D) -> Answer[Int]: ...

    @rpc(16, "domain:read", ro=True)
    def domain_get_info(self, dom: D) -> Answer[DomainGetInfoReply]: ...

    @rpc(17, "domain:read", ro=True)
    def domain_get_max_memory(self, dom: D) -> Answer[UHyper]: ...

    @rpc(19, "domain:read", ro=True)
    def domain_get_os_type(self, dom: D) -> Answer[Str]: ...

    @rpc(21, "connect:search_domains", list_filter="domain:getattr", ro=True)
    def connect_list_defined_domains(self) -> Answer[Annotated[list[D], Shaped(Shape.NAMES, DOMAIN_LIST_MAX)]]: ...

    @rpc(22, "domain:getattr", ro=True)
    def domain_lookup_by_id(self, id: Int) -> Answer[D]: ...

    @rpc(23, "domain:getattr", ro=True)
    def domain_lookup_by_name(self, name: Str) -> Answer[D]: ...

    @rpc(24, "domain:getattr", ro=True)
    def domain_lookup_by_uuid(self, uuid: Uuid) -> Answer[D]: ...

    @rpc(25, "connect:search_domains", list_filter="domain:getattr", ro=True)
    def connect_num_of_defined_domains(self) -> Answer[Annotated[list[D], Shaped(Shape.COUNT, 0)]]: ...

    @rpc(27, "domain:init_control", When(DomainRebootFlagValues.GUEST_AGENT, "domain:write"))
    def domain_reboot(self, dom: D, flags: UInt) -> Answer[None]: ...

    @rpc(28, "domain:suspend")
    def domain_resume(self, dom: D) -> Answer[None]: ...

    @rpc(29, "domain:write")
    def domain_set_autostart(self, dom: D, autostart: Int) -> Answer[None]: ...

    @rpc(33, "domain:init_control")
    def domain_shutdown(self, dom: D) -> Answer[None]: ...

    @rpc(34, "domain:suspend")
    def domain_suspend(self, dom: D) -> Answer[None]: ...

    @rpc(35, "domain:delete")
    def domain_undefine(self, dom: D) -> Answer[None]: ...

    @rpc(37, "connect:search_domains", list_filter="domain:getattr", ro=True)
    def connect_list_domains(
        self,
    ) -> Answer[Annotated[list[D], Shaped(Shape.IDS, DOMAIN_LIST_MAX, max_name="maxids")]]: ...

    @rpc(51, "connect:search_domains", list_filter="domain:getattr", ro=True)
    def connect_num_of_domains(self) -> Answer[Annotated[list[D], Shaped(Shape.COUNT, 0)]]: ...

    @rpc(150, "domain:read", ro=True)
    def domain_is_active(self, dom: D) -> Answer[Int]: ...

    @rpc(151, "domain:read", ro=True)
    def domain_is_persistent(self, dom: D) -> Answer[Int]: ...

    @rpc(196, "domain:start")
    def domain_create_with_flags(self, dom: D, flags: UInt, caller: Caller) -> Answer[D]: ...

    @rpc(202, "domain:read", ro=True)
    def domain_is_updated(self, dom: D) -> Answer[Int]: ...

    @rpc(212, "domain:read", ro=True)
    def domain_get_state(self, dom: D, flags: UInt) -> Answer[DomainGetStateReply]: ...

    @rpc(229, "domain:read", ro=True)
    def domain_get_control_info(self, dom: D, flags: UInt) -> Answer[DomainGetControlInfoReply]: ...

    @rpc(231, "domain:delete")
    def domain_undefine_flags(self, dom: D, flags: UInt) -> Answer[None]: ...

    @rpc(234, "domain:stop")
    def domain_destroy_flags(self, dom: D, flags: UInt) -> Answer[None]: ...

    @rpc(245, "domain:reset")
    def domain_reset(self, dom: D, flags: UInt) -> Answer[None]: ...

    @rpc(258, "domain:init_control", When(DomainShutdownFlagValues.GUEST_AGENT, "domain:write"))
    def domain_shutdown_flags(self, dom: D, flags: UInt) -> Answer[None]: ...

    @rpc(
        264,
        "domain:write",
        Unless(DomainModificationImpact.CONFIG | DomainModificationImpact.LIVE, "domain:save"),
        When(DomainModificationImpact.CONFIG, "domain:save"),
    )
    def domain_set_metadata(
        self, dom: D, type: Int, metadata: Str | None, key: Str | None, uri: Str | None, flags: UInt
    ) -> Answer[None]: ...

    @rpc(265, "domain:read", ro=True)
    def domain_get_metadata(self, dom: D, type: Int, uri: Str | None, flags: UInt) -> Answer[Str]: ...

    @rpc(273, "connect:search_domains", list_filter="domain:getattr", ro=True)
    def connect_list_all_domains(
        self, flags: UInt
    ) -> Answer[Annotated[list[D], Shaped(Shape.LISTED, DOMAIN_LIST_MAX)]]: ...

    @rpc(309, "domain:write", "domain:start")
    def domain_create_xml_with_files(self, xml_desc: Str, flags: UInt, files: Files, caller: Caller) -> Answer[D]: ...

    @rpc(310, "domain:start")
    def domain_create_with_files(self, dom: D, flags: UInt, files: Files, caller: Caller) -> Answer[D]: ...

    @rpc(350, "domain:write", "domain:save")
    def domain_define_xml_flags(self, xml: Str, flags: UInt) -> Answer[D]: ...

    @rpc(358, "domain:write", "domain:save")
    def domain_rename(self, dom: D, new_name: Str | None, flags: UInt) -> Answer[Int]: ...

    @rpc(426, "domain:read", ro=True)
    def domain_get_messages(self, dom: D, flags: UInt) -> Answer[Annotated[list[Str], Max(DOMAIN_MESSAGES_MAX)]]: ...

    @rpc(449, "domain:read", ro=True)
    def domain_get_autostart_once(self, dom: D) -> Answer[Int]: ...

    @rpc(450, "domain:write")
    def domain_set_autostart_once(self, dom: D, autostart: Int) -> Answer[None]: ...
