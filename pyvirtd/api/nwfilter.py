"""Network filters and their bindings.

Declarations only: see pyvirtd.api.rpc for what is derived from them.
"""

from typing import Annotated

from pyvirtd.api.limits import NWFILTER_BINDING_LIST_MAX, NWFILTER_LIST_MAX
from pyvirtd.api.rpc import REMOTE, Answer, Part, Shape, Shaped, rpc
from pyvirtd.api.types import NWFilter, NWFilterBinding
from pyvirtd.constants.error import ErrorDomain as From
from pyvirtd.wire.xdr import Str, UInt, Uuid


class NWFilterPart(Part, program=REMOTE, error_domain=From.NWFILTER):
    """NWFilterPart procedures."""

    @rpc(175, "nwfilter:getattr", ro=True)
    def nwfilter_lookup_by_name(self, name: Str) -> Answer[NWFilter]: ...

    @rpc(176, "nwfilter:getattr", ro=True)
    def nwfilter_lookup_by_uuid(self, uuid: Uuid) -> Answer[NWFilter]: ...

    @rpc(177, "nwfilter:read", ro=True)
    def nwfilter_get_xml_desc(self, nwfilter: NWFilter, flags: UInt) -> Answer[Str]: ...

    @rpc(178, "connect:search_nwfilters", list_filter="nwfilter:getattr", ro=True)
    def connect_num_of_nwfilters(self) -> Answer[Annotated[list[NWFilter], Shaped(Shape.COUNT, 0)]]: ...

    @rpc(179, "connect:search_nwfilters", list_filter="nwfilter:getattr", ro=True)
    def connect_list_nwfilters(self) -> Answer[Annotated[list[NWFilter], Shaped(Shape.NAMES, NWFILTER_LIST_MAX)]]: ...

    @rpc(180, "nwfilter:write", "nwfilter:save")
    def nwfilter_define_xml(self, xml: Str) -> Answer[NWFilter]: ...

    @rpc(181, "nwfilter:delete")
    def nwfilter_undefine(self, nwfilter: NWFilter) -> Answer[None]: ...

    @rpc(286, "connect:search_nwfilters", list_filter="nwfilter:getattr", ro=True)
    def connect_list_all_nwfilters(
        self, flags: UInt
    ) -> Answer[Annotated[list[NWFilter], Shaped(Shape.LISTED, NWFILTER_LIST_MAX)]]: ...

    @rpc(397, "nwfilter_binding:getattr", ro=True)
    def nwfilter_binding_lookup_by_port_dev(self, name: Str) -> Answer[NWFilterBinding]: ...

    @rpc(398, "nwfilter_binding:read", ro=True)
    def nwfilter_binding_get_xml_desc(self, nwfilter: NWFilterBinding, flags: UInt) -> Answer[Str]: ...

    @rpc(399, "nwfilter_binding:create")
    def nwfilter_binding_create_xml(self, xml: Str, flags: UInt) -> Answer[NWFilterBinding]: ...

    @rpc(400, "nwfilter_binding:delete")
    def nwfilter_binding_delete(self, nwfilter: NWFilterBinding) -> Answer[None]: ...

    @rpc(401, "connect:search_nwfilter_bindings", list_filter="nwfilter_binding:getattr", ro=True)
    def connect_list_all_nwfilter_bindings(
        self, flags: UInt
    ) -> Answer[Annotated[list[NWFilterBinding], Shaped(Shape.LISTED, NWFILTER_BINDING_LIST_MAX)]]: ...

    @rpc(431, "nwfilter:write", "nwfilter:save")
    def nwfilter_define_xml_flags(self, xml: Str, flags: UInt) -> Answer[NWFilter]: ...
