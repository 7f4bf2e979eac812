"""Networks and their ports.

Declarations only: see pyvirtd.api.rpc for what is derived from them.
"""

from typing import Annotated

from pyvirtd.api.limits import (
    NETWORK_DHCP_LEASES_MAX,
    NETWORK_LIST_MAX,
    NETWORK_PORT_LIST_MAX,
    NETWORK_PORT_PARAMETERS_MAX,
)
from pyvirtd.api.rpc import REMOTE, Answer, Part, Shape, Shaped, Unless, When, rpc
from pyvirtd.api.types import DHCPLease, Network, NetworkPort, TypedParam
from pyvirtd.constants.error import ErrorDomain as From
from pyvirtd.constants.network import NetworkUpdateFlags
from pyvirtd.wire.xdr import Int, Max, Str, UInt, Uuid


class NetworkPart(Part, program=REMOTE, error_domain=From.NETWORK):
    """NetworkPart procedures."""

    @rpc(36, "connect:search_networks", list_filter="network:getattr", ro=True)
    def connect_list_defined_networks(
        self,
    ) -> Answer[Annotated[list[Network], Shaped(Shape.NAMES, NETWORK_LIST_MAX)]]: ...

    @rpc(38, "connect:search_networks", list_filter="network:getattr", ro=True)
    def connect_list_networks(self) -> Answer[Annotated[list[Network], Shaped(Shape.NAMES, NETWORK_LIST_MAX)]]: ...

    @rpc(39, "network:start")
    def network_create(self, net: Network) -> Answer[None]: ...

    @rpc(40, "network:write", "network:start")
    def network_create_xml(self, xml: Str) -> Answer[Network]: ...

    @rpc(41, "network:write", "network:save")
    def network_define_xml(self, xml: Str) -> Answer[Network]: ...

    @rpc(42, "network:stop")
    def network_destroy(self, net: Network) -> Answer[None]: ...

    @rpc(43, "network:read", ro=True)
    def network_get_xml_desc(self, net: Network, flags: UInt) -> Answer[Str]: ...

    @rpc(44, "network:read", ro=True)
    def network_get_autostart(self, net: Network) -> Answer[Int]: ...

    @rpc(45, "network:read", ro=True)
    def network_get_bridge_name(self, net: Network) -> Answer[Str]: ...

    @rpc(46, "network:getattr", ro=True)
    def network_lookup_by_name(self, name: Str) -> Answer[Network]: ...

    @rpc(47, "network:getattr", ro=True)
    def network_lookup_by_uuid(self, uuid: Uuid) -> Answer[Network]: ...

    @rpc(48, "network:write")
    def network_set_autostart(self, net: Network, autostart: Int) -> Answer[None]: ...

    @rpc(49, "network:delete")
    def network_undefine(self, net: Network) -> Answer[None]: ...

    @rpc(50, "connect:search_networks", list_filter="network:getattr", ro=True)
    def connect_num_of_defined_networks(self) -> Answer[Annotated[list[Network], Shaped(Shape.COUNT, 0)]]: ...

    @rpc(52, "connect:search_networks", list_filter="network:getattr", ro=True)
    def connect_num_of_networks(self) -> Answer[Annotated[list[Network], Shaped(Shape.COUNT, 0)]]: ...

    @rpc(152, "network:read", ro=True)
    def network_is_active(self, net: Network) -> Answer[Int]: ...

    @rpc(153, "network:read", ro=True)
    def network_is_persistent(self, net: Network) -> Answer[Int]: ...

    @rpc(283, "connect:search_networks", list_filter="network:getattr", ro=True)
    def connect_list_all_networks(
        self, flags: UInt
    ) -> Answer[Annotated[list[Network], Shaped(Shape.LISTED, NETWORK_LIST_MAX)]]: ...

    @rpc(
        291,
        "network:write",
        Unless(NetworkUpdateFlags.CONFIG | NetworkUpdateFlags.LIVE, "network:save"),
        When(NetworkUpdateFlags.CONFIG, "network:save"),
    )
    def network_update(
        self, net: Network, command: UInt, section: UInt, parent_index: Int, xml: Str, flags: UInt
    ) -> Answer[None]: ...

    @rpc(341, "network:read", ro=True)
    def network_get_dhcp_leases(
        self, net: Network, mac: Str | None, flags: UInt
    ) -> Answer[Annotated[list[DHCPLease], Shaped(Shape.LISTED, NETWORK_DHCP_LEASES_MAX)]]: ...

    @rpc(404, "network:search_ports", list_filter="network_port:getattr", ro=True)
    def network_list_all_ports(
        self, network: Network, flags: UInt
    ) -> Answer[Annotated[list[NetworkPort], Shaped(Shape.LISTED, NETWORK_PORT_LIST_MAX)]]: ...

    @rpc(405, "network_port:getattr", ro=True)
    def network_port_lookup_by_uuid(self, network: Network, uuid: Uuid) -> Answer[NetworkPort]: ...

    @rpc(406, "network_port:create")
    def network_port_create_xml(self, network: Network, xml: Str, flags: UInt) -> Answer[NetworkPort]: ...

    @rpc(407, "network_port:read", ro=True)
    def network_port_get_parameters(
        self, port: NetworkPort, flags: UInt
    ) -> Answer[Annotated[list[TypedParam], Shaped(Shape.SIZED, NETWORK_PORT_PARAMETERS_MAX)]]: ...

    @rpc(408, "network_port:write")
    def network_port_set_parameters(
        self, port: NetworkPort, params: Annotated[list[TypedParam], Max(NETWORK_PORT_PARAMETERS_MAX)], flags: UInt
    ) -> Answer[None]: ...

    @rpc(409, "network_port:read", ro=True)
    def network_port_get_xml_desc(self, port: NetworkPort, flags: UInt) -> Answer[Str]: ...

    @rpc(410, "network_port:delete")
    def network_port_delete(self, port: NetworkPort, flags: UInt) -> Answer[None]: ...

    @rpc(432, "network:write", "network:save")
    def network_define_xml_flags(self, xml: Str, flags: UInt) -> Answer[Network]: ...

    @rpc(437, "network:write", "network:start")
    def network_create_xml_flags(self, xml: Str, flags: UInt) -> Answer[Network]: ...

    @rpc(444, "network:write")
    def network_set_metadata(
        self, network: Network, type: Int, metadata: Str | None, key: Str | None, uri: Str | None, flags: UInt
    ) -> Answer[None]: ...

    @rpc(445, "network:read", ro=True)
    def network_get_metadata(self, network: Network, type: Int, uri: Str | None, flags: UInt) -> Answer[Str]: ...
