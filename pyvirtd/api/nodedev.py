"""Node devices.

Declarations only: see pyvirtd.api.rpc for what is derived from them.
"""

from typing import Annotated

from pyvirtd.api.limits import NODE_DEVICE_CAPS_LIST_MAX, NODE_DEVICE_LIST_MAX
from pyvirtd.api.rpc import REMOTE, Answer, Part, Shape, Shaped, rpc
from pyvirtd.api.types import NodeDevice
from pyvirtd.constants.error import ErrorDomain as From
from pyvirtd.wire.xdr import Int, Max, Str, UInt


class NodeDevicePart(Part, program=REMOTE, error_domain=From.NODEDEV):
    """NodeDevicePart procedures."""

    @rpc(111, "connect:search_node_devices", list_filter="node_device:getattr", ro=True)
    def node_num_of_devices(
        self, cap: Str | None, flags: UInt
    ) -> Answer[Annotated[list[NodeDevice], Shaped(Shape.COUNT, 0)]]: ...

    @rpc(112, "connect:search_node_devices", list_filter="node_device:getattr", ro=True)
    def node_list_devices(
        self, cap: Str | None, flags: UInt
    ) -> Answer[Annotated[list[NodeDevice], Shaped(Shape.NAMES, NODE_DEVICE_LIST_MAX)]]: ...

    @rpc(113, "node_device:getattr", ro=True)
    def node_device_lookup_by_name(self, name: Str) -> Answer[NodeDevice]: ...

    @rpc(114, "node_device:read", ro=True)
    def node_device_get_xml_desc(self, name: Str, flags: UInt) -> Answer[Str]: ...

    @rpc(115, "node_device:read", ro=True)
    def node_device_get_parent(self, name: Str) -> Answer[Str | None]: ...

    @rpc(116, "node_device:read", ro=True)
    def node_device_num_of_caps(self, name: Str) -> Answer[Int]: ...

    @rpc(117, "node_device:read", ro=True)
    def node_device_list_caps(
        self, name: Str, maxnames: Int
    ) -> Answer[Annotated[list[Str], Max(NODE_DEVICE_CAPS_LIST_MAX)]]: ...

    @rpc(118, "node_device:detach")
    def node_device_dettach(self, name: Str) -> Answer[None]: ...

    @rpc(119, "node_device:detach")
    def node_device_re_attach(self, name: Str) -> Answer[None]: ...

    @rpc(120, "node_device:detach")
    def node_device_reset(self, name: Str) -> Answer[None]: ...

    @rpc(123, "node_device:write", "node_device:start")
    def node_device_create_xml(self, xml_desc: Str, flags: UInt) -> Answer[NodeDevice]: ...

    @rpc(124, "node_device:stop")
    def node_device_destroy(self, name: Str) -> Answer[None]: ...

    @rpc(285, "connect:search_node_devices", list_filter="node_device:getattr", ro=True)
    def connect_list_all_node_devices(
        self, flags: UInt
    ) -> Answer[Annotated[list[NodeDevice], Shaped(Shape.LISTED, NODE_DEVICE_LIST_MAX)]]: ...

    @rpc(297, "node_device:getattr", ro=True)
    def node_device_lookup_scsi_host_by_wwn(self, wwnn: Str, wwpn: Str, flags: UInt) -> Answer[NodeDevice]: ...

    @rpc(301, "node_device:detach")
    def node_device_detach_flags(self, name: Str, driver_name: Str | None, flags: UInt) -> Answer[None]: ...

    @rpc(428, "node_device:write")
    def node_device_define_xml(self, xml_desc: Str, flags: UInt) -> Answer[NodeDevice]: ...

    @rpc(429, "node_device:delete")
    def node_device_undefine(self, name: Str, flags: UInt) -> Answer[None]: ...

    @rpc(430, "node_device:start")
    def node_device_create(self, name: Str, flags: UInt) -> Answer[None]: ...

    @rpc(433, "node_device:read")
    def node_device_get_autostart(self, name: Str) -> Answer[Int]: ...

    @rpc(434, "node_device:write")
    def node_device_set_autostart(self, name: Str, autostart: Int) -> Answer[None]: ...

    @rpc(435, "node_device:read", ro=True)
    def node_device_is_persistent(self, name: Str) -> Answer[Int]: ...

    @rpc(436, "node_device:read", ro=True)
    def node_device_is_active(self, name: Str) -> Answer[Int]: ...

    @rpc(447, "node_device:write")
    def node_device_update(self, name: Str, xml_desc: Str, flags: UInt) -> Answer[None]: ...
