"""Secrets.

Declarations only: see pyvirtd.api.rpc for what is derived from them.
"""

from typing import Annotated

from pyvirtd.api.limits import SECRET_LIST_MAX, SECRET_VALUE_MAX
from pyvirtd.api.rpc import REMOTE, Answer, Part, Shape, Shaped, rpc
from pyvirtd.api.types import Secret
from pyvirtd.constants.error import ErrorDomain as From
from pyvirtd.wire.xdr import Int, Opaque, Str, UInt, Uuid


class SecretPart(Part, program=REMOTE, error_domain=From.SECRET):
    """SecretPart procedures."""

    @rpc(139, "connect:search_secrets", list_filter="secret:getattr", ro=True)
    def connect_num_of_secrets(self) -> Answer[Annotated[list[Secret], Shaped(Shape.COUNT, 0)]]: ...

    @rpc(140, "connect:search_secrets", list_filter="secret:getattr", ro=True)
    def connect_list_secrets(
        self,
    ) -> Answer[Annotated[list[Secret], Shaped(Shape.NAMES, SECRET_LIST_MAX, max_name="maxuuids")]]: ...

    @rpc(141, "secret:getattr", ro=True)
    def secret_lookup_by_uuid(self, uuid: Uuid) -> Answer[Secret]: ...

    @rpc(142, "secret:write", "secret:save")
    def secret_define_xml(self, xml: Str, flags: UInt) -> Answer[Secret]: ...

    @rpc(143, "secret:read", ro=True)
    def secret_get_xml_desc(self, secret: Secret, flags: UInt) -> Answer[Str]: ...

    @rpc(144, "secret:write")
    def secret_set_value(
        self, secret: Secret, value: Annotated[bytes, Opaque(SECRET_VALUE_MAX)], flags: UInt
    ) -> Answer[None]: ...

    @rpc(145, "secret:read_secure")
    def secret_get_value(self, secret: Secret, flags: UInt) -> Answer[Annotated[bytes, Opaque(SECRET_VALUE_MAX)]]: ...

    @rpc(146, "secret:delete")
    def secret_undefine(self, secret: Secret) -> Answer[None]: ...

    @rpc(147, "secret:getattr", ro=True)
    def secret_lookup_by_usage(self, usage_type: Int, usage_id: Str) -> Answer[Secret]: ...

    @rpc(287, "connect:search_secrets", list_filter="secret:getattr", ro=True)
    def connect_list_all_secrets(
        self, flags: UInt
    ) -> Answer[Annotated[list[Secret], Shaped(Shape.LISTED, SECRET_LIST_MAX)]]: ...
