"""Storage pools and volumes.

Declarations only: see pyvirtd.api.rpc for what is derived from them.
"""

from typing import Annotated, NamedTuple

from pyvirtd.api.limits import STORAGE_POOL_LIST_MAX, STORAGE_VOL_LIST_MAX
from pyvirtd.api.rpc import REMOTE, Answer, Direction, Part, Shape, Shaped, rpc
from pyvirtd.api.types import StoragePool, StorageVol, Stream
from pyvirtd.constants.error import ErrorDomain as From
from pyvirtd.constants.storage import StorageVolDownloadFlags, StorageVolUploadFlags
from pyvirtd.wire.xdr import Int, Str, UHyper, UInt, Uuid


class StoragePoolGetInfoReply(NamedTuple):
    state: Int
    capacity: UHyper
    allocation: UHyper
    available: UHyper


class StorageVolGetInfoReply(NamedTuple):
    type: Int
    capacity: UHyper
    allocation: UHyper


class StorageVolGetInfoFlagsReply(NamedTuple):
    type: Int
    capacity: UHyper
    allocation: UHyper


class StoragePoolPart(Part, program=REMOTE, error_domain=From.STORAGE):
    """StoragePoolPart procedures."""

    @rpc(71, "connect:search_storage_pools", list_filter="storage_pool:getattr", ro=True)
    def connect_num_of_storage_pools(self) -> Answer[Annotated[list[StoragePool], Shaped(Shape.COUNT, 0)]]: ...

    @rpc(72, "connect:search_storage_pools", list_filter="storage_pool:getattr", ro=True)
    def connect_list_storage_pools(
        self,
    ) -> Answer[Annotated[list[StoragePool], Shaped(Shape.NAMES, STORAGE_POOL_LIST_MAX)]]: ...

    @rpc(73, "connect:search_storage_pools", list_filter="storage_pool:getattr", ro=True)
    def connect_num_of_defined_storage_pools(self) -> Answer[Annotated[list[StoragePool], Shaped(Shape.COUNT, 0)]]: ...

    @rpc(74, "connect:search_storage_pools", list_filter="storage_pool:getattr", ro=True)
    def connect_list_defined_storage_pools(
        self,
    ) -> Answer[Annotated[list[StoragePool], Shaped(Shape.NAMES, STORAGE_POOL_LIST_MAX)]]: ...

    @rpc(75, "connect:detect_storage_pools")
    def connect_find_storage_pool_sources(self, type: Str, src_spec: Str | None, flags: UInt) -> Answer[Str]: ...

    @rpc(76, "storage_pool:start", "storage_pool:write")
    def storage_pool_create_xml(self, xml: Str, flags: UInt) -> Answer[StoragePool]: ...

    @rpc(77, "storage_pool:write", "storage_pool:save")
    def storage_pool_define_xml(self, xml: Str, flags: UInt) -> Answer[StoragePool]: ...

    @rpc(78, "storage_pool:start")
    def storage_pool_create(self, pool: StoragePool, flags: UInt) -> Answer[None]: ...

    @rpc(79, "storage_pool:format")
    def storage_pool_build(self, pool: StoragePool, flags: UInt) -> Answer[None]: ...

    @rpc(80, "storage_pool:stop")
    def storage_pool_destroy(self, pool: StoragePool) -> Answer[None]: ...

    @rpc(81, "storage_pool:format")
    def storage_pool_delete(self, pool: StoragePool, flags: UInt) -> Answer[None]: ...

    @rpc(82, "storage_pool:delete")
    def storage_pool_undefine(self, pool: StoragePool) -> Answer[None]: ...

    @rpc(83, "storage_pool:refresh")
    def storage_pool_refresh(self, pool: StoragePool, flags: UInt) -> Answer[None]: ...

    @rpc(84, "storage_pool:getattr", ro=True)
    def storage_pool_lookup_by_name(self, name: Str) -> Answer[StoragePool]: ...

    @rpc(85, "storage_pool:getattr", ro=True)
    def storage_pool_lookup_by_uuid(self, uuid: Uuid) -> Answer[StoragePool]: ...

    @rpc(86, "storage_pool:getattr", ro=True)
    def storage_pool_lookup_by_volume(self, vol: StorageVol) -> Answer[StoragePool]: ...

    @rpc(87, "storage_pool:read", ro=True)
    def storage_pool_get_info(self, pool: StoragePool) -> Answer[StoragePoolGetInfoReply]: ...

    @rpc(88, "storage_pool:read", ro=True)
    def storage_pool_get_xml_desc(self, pool: StoragePool, flags: UInt) -> Answer[Str]: ...

    @rpc(89, "storage_pool:read", ro=True)
    def storage_pool_get_autostart(self, pool: StoragePool) -> Answer[Int]: ...

    @rpc(90, "storage_pool:write")
    def storage_pool_set_autostart(self, pool: StoragePool, autostart: Int) -> Answer[None]: ...

    @rpc(91, "storage_pool:search_storage_vols", list_filter="storage_vol:getattr", ro=True)
    def storage_pool_num_of_volumes(
        self, pool: StoragePool
    ) -> Answer[Annotated[list[StorageVol], Shaped(Shape.COUNT, 0)]]: ...

    @rpc(92, "storage_pool:search_storage_vols", list_filter="storage_vol:getattr", ro=True)
    def storage_pool_list_volumes(
        self, pool: StoragePool
    ) -> Answer[Annotated[list[StorageVol], Shaped(Shape.NAMES, STORAGE_VOL_LIST_MAX)]]: ...

    @rpc(154, "storage_pool:read", ro=True)
    def storage_pool_is_active(self, pool: StoragePool) -> Answer[Int]: ...

    @rpc(155, "storage_pool:read", ro=True)
    def storage_pool_is_persistent(self, pool: StoragePool) -> Answer[Int]: ...

    @rpc(281, "connect:search_storage_pools", list_filter="storage_pool:getattr", ro=True)
    def connect_list_all_storage_pools(
        self, flags: UInt
    ) -> Answer[Annotated[list[StoragePool], Shaped(Shape.LISTED, STORAGE_POOL_LIST_MAX)]]: ...

    @rpc(282, "storage_pool:search_storage_vols", list_filter="storage_vol:getattr", ro=True)
    def storage_pool_list_all_volumes(
        self, pool: StoragePool, flags: UInt
    ) -> Answer[Annotated[list[StorageVol], Shaped(Shape.LISTED, STORAGE_VOL_LIST_MAX)]]: ...

    @rpc(391, "storage_pool:getattr", ro=True)
    def storage_pool_lookup_by_target_path(self, path: Str) -> Answer[StoragePool]: ...

    @rpc(403, "connect:read", ro=True)
    def connect_get_storage_pool_capabilities(self, flags: UInt) -> Answer[Str]: ...


class StorageVolPart(Part, program=REMOTE, error_domain=From.STORAGE):
    """StorageVolPart procedures."""

    @rpc(93, "storage_vol:create")
    def storage_vol_create_xml(self, pool: StoragePool, xml: Str, flags: UInt) -> Answer[StorageVol]: ...

    @rpc(94, "storage_vol:delete")
    def storage_vol_delete(self, vol: StorageVol, flags: UInt) -> Answer[None]: ...

    @rpc(95, "storage_vol:getattr", ro=True)
    def storage_vol_lookup_by_name(self, pool: StoragePool, name: Str) -> Answer[StorageVol]: ...

    @rpc(96, "storage_vol:getattr", ro=True)
    def storage_vol_lookup_by_key(self, key: Str) -> Answer[StorageVol]: ...

    @rpc(97, "storage_vol:getattr", ro=True)
    def storage_vol_lookup_by_path(self, path: Str) -> Answer[StorageVol]: ...

    @rpc(98, "storage_vol:read", ro=True)
    def storage_vol_get_info(self, vol: StorageVol) -> Answer[StorageVolGetInfoReply]: ...

    @rpc(99, "storage_vol:read", ro=True)
    def storage_vol_get_xml_desc(self, vol: StorageVol, flags: UInt) -> Answer[Str]: ...

    @rpc(100, "storage_vol:read", ro=True)
    def storage_vol_get_path(self, vol: StorageVol) -> Answer[Str]: ...

    @rpc(125, "storage_vol:create")
    def storage_vol_create_xml_from(
        self, pool: StoragePool, xml: Str, clonevol: StorageVol, flags: UInt
    ) -> Answer[StorageVol]: ...

    @rpc(165, "storage_vol:format")
    def storage_vol_wipe(self, vol: StorageVol, flags: UInt) -> Answer[None]: ...

    @rpc(208, "storage_vol:data_write", stream=Direction.UPLOAD, sparse_flag=StorageVolUploadFlags.SPARSE_STREAM)
    def storage_vol_upload(
        self, vol: StorageVol, offset: UHyper, length: UHyper, flags: UInt, stream: Stream
    ) -> Answer[None]: ...

    @rpc(209, "storage_vol:data_read", stream=Direction.DOWNLOAD, sparse_flag=StorageVolDownloadFlags.SPARSE_STREAM)
    def storage_vol_download(
        self, vol: StorageVol, offset: UHyper, length: UHyper, flags: UInt, stream: Stream
    ) -> Answer[None]: ...

    @rpc(259, "storage_vol:format")
    def storage_vol_wipe_pattern(self, vol: StorageVol, algorithm: UInt, flags: UInt) -> Answer[None]: ...

    @rpc(260, "storage_vol:resize")
    def storage_vol_resize(self, vol: StorageVol, capacity: UHyper, flags: UInt) -> Answer[None]: ...

    @rpc(378, "storage_vol:read", ro=True)
    def storage_vol_get_info_flags(self, vol: StorageVol, flags: UInt) -> Answer[StorageVolGetInfoFlagsReply]: ...
