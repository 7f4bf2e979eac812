"""Host interfaces.

Declarations only: see pyvirtd.api.rpc for what is derived from them.
"""

from typing import Annotated

from pyvirtd.api.limits import INTERFACE_LIST_MAX
from pyvirtd.api.rpc import REMOTE, Answer, Part, Shape, Shaped, rpc
from pyvirtd.api.types import Interface
from pyvirtd.constants.error import ErrorDomain as From
from pyvirtd.wire.xdr import Int, Str, UInt


class InterfacePart(Part, program=REMOTE, error_domain=From.INTERFACE):
    """InterfacePart procedures."""

    @rpc(126, "connect:search_interfaces", list_filter="interface:getattr", ro=True)
    def connect_num_of_interfaces(self) -> Answer[Annotated[list[Interface], Shaped(Shape.COUNT, 0)]]: ...

    @rpc(127, "connect:search_interfaces", list_filter="interface:getattr", ro=True)
    def connect_list_interfaces(
        self,
    ) -> Answer[Annotated[list[Interface], Shaped(Shape.NAMES, INTERFACE_LIST_MAX)]]: ...

    @rpc(128, "interface:getattr", ro=True)
    def interface_lookup_by_name(self, name: Str) -> Answer[Interface]: ...

    @rpc(129, "interface:getattr", ro=True)
    def interface_lookup_by_mac_string(self, mac: Str) -> Answer[Interface]: ...

    @rpc(130, "interface:read", ro=True)
    def interface_get_xml_desc(self, iface: Interface, flags: UInt) -> Answer[Str]: ...

    @rpc(131, "interface:write", "interface:save")
    def interface_define_xml(self, xml: Str, flags: UInt) -> Answer[Interface]: ...

    @rpc(132, "interface:delete")
    def interface_undefine(self, iface: Interface) -> Answer[None]: ...

    @rpc(133, "interface:start")
    def interface_create(self, iface: Interface, flags: UInt) -> Answer[None]: ...

    @rpc(134, "interface:stop")
    def interface_destroy(self, iface: Interface, flags: UInt) -> Answer[None]: ...

    @rpc(137, "connect:search_interfaces", list_filter="interface:getattr", ro=True)
    def connect_num_of_defined_interfaces(self) -> Answer[Annotated[list[Interface], Shaped(Shape.COUNT, 0)]]: ...

    @rpc(138, "connect:search_interfaces", list_filter="interface:getattr", ro=True)
    def connect_list_defined_interfaces(
        self,
    ) -> Answer[Annotated[list[Interface], Shaped(Shape.NAMES, INTERFACE_LIST_MAX)]]: ...

    @rpc(156, "interface:read", ro=True)
    def interface_is_active(self, iface: Interface) -> Answer[Int]: ...

    @rpc(220, "connect:interface_transaction")
    def interface_change_begin(self, flags: UInt) -> Answer[None]: ...

    @rpc(221, "connect:interface_transaction")
    def interface_change_commit(self, flags: UInt) -> Answer[None]: ...

    @rpc(222, "connect:interface_transaction")
    def interface_change_rollback(self, flags: UInt) -> Answer[None]: ...

    @rpc(284, "connect:search_interfaces", list_filter="interface:getattr", ro=True)
    def connect_list_all_interfaces(
        self, flags: UInt
    ) -> Answer[Annotated[list[Interface], Shaped(Shape.LISTED, INTERFACE_LIST_MAX)]]: ...
