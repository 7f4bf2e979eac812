"""Snapshots, checkpoints and backups of domains.

Declarations only: see pyvirtd.api.rpc for what is derived from them.
"""

from typing import Annotated, Generic

from pyvirtd.api.limits import DOMAIN_CHECKPOINT_LIST_MAX, DOMAIN_SNAPSHOT_LIST_MAX
from pyvirtd.api.rpc import REMOTE, Answer, Part, Shape, Shaped, When, rpc
from pyvirtd.api.types import D, DomainCheckpoint, DomainSnapshot
from pyvirtd.constants.domain import (
    DomainCheckpointCreateFlags,
    DomainCheckpointXMLFlags,
    DomainSnapshotCreateFlags,
    DomainSnapshotXMLFlags,
)
from pyvirtd.constants.error import ErrorDomain as From
from pyvirtd.wire.xdr import Int, Max, Str, UInt


class SnapshotPart(Part, Generic[D], program=REMOTE, error_domain=From.DOMAIN_SNAPSHOT):
    """SnapshotPart procedures."""

    @rpc(185, "domain:snapshot", When(DomainSnapshotCreateFlags.QUIESCE, "domain:fs_freeze"))
    def domain_snapshot_create_xml(self, dom: D, xml_desc: Str, flags: UInt) -> Answer[DomainSnapshot]: ...

    @rpc(
        186,
        "domain:read",
        When(DomainSnapshotXMLFlags.SECURE, "domain:read_secure"),
        ro=True,
        ro_deny=When(DomainSnapshotXMLFlags.SECURE, "domain:read_secure"),
    )
    def domain_snapshot_get_xml_desc(self, snap: DomainSnapshot, flags: UInt) -> Answer[Str]: ...

    @rpc(187, "domain:read", ro=True)
    def domain_snapshot_num(self, dom: D, flags: UInt) -> Answer[Int]: ...

    @rpc(188, "domain:read", ro=True)
    def domain_snapshot_list_names(
        self, dom: D, maxnames: Int, flags: UInt
    ) -> Answer[Annotated[list[Str], Max(DOMAIN_SNAPSHOT_LIST_MAX)]]: ...

    @rpc(189, "domain:read", ro=True)
    def domain_snapshot_lookup_by_name(self, dom: D, name: Str, flags: UInt) -> Answer[DomainSnapshot]: ...

    @rpc(190, "domain:read", ro=True)
    def domain_has_current_snapshot(self, dom: D, flags: UInt) -> Answer[Int]: ...

    @rpc(191, "domain:read", ro=True)
    def domain_snapshot_current(self, dom: D, flags: UInt) -> Answer[DomainSnapshot]: ...

    @rpc(192, "domain:snapshot")
    def domain_revert_to_snapshot(self, snap: DomainSnapshot, flags: UInt) -> Answer[None]: ...

    @rpc(193, "domain:snapshot")
    def domain_snapshot_delete(self, snap: DomainSnapshot, flags: UInt) -> Answer[None]: ...

    @rpc(244, "domain:read", ro=True)
    def domain_snapshot_get_parent(self, snap: DomainSnapshot, flags: UInt) -> Answer[DomainSnapshot]: ...

    @rpc(246, "domain:read", ro=True)
    def domain_snapshot_num_children(self, snap: DomainSnapshot, flags: UInt) -> Answer[Int]: ...

    @rpc(247, "domain:read", ro=True)
    def domain_snapshot_list_children_names(
        self, snap: DomainSnapshot, maxnames: Int, flags: UInt
    ) -> Answer[Annotated[list[Str], Max(DOMAIN_SNAPSHOT_LIST_MAX)]]: ...

    @rpc(271, "domain:read", ro=True)
    def domain_snapshot_is_current(self, snap: DomainSnapshot, flags: UInt) -> Answer[Int]: ...

    @rpc(272, "domain:read", ro=True)
    def domain_snapshot_has_metadata(self, snap: DomainSnapshot, flags: UInt) -> Answer[Int]: ...

    @rpc(274, "domain:read", ro=True)
    def domain_list_all_snapshots(
        self, dom: D, flags: UInt
    ) -> Answer[Annotated[list[DomainSnapshot], Shaped(Shape.LISTED, DOMAIN_SNAPSHOT_LIST_MAX, count=Int)]]: ...

    @rpc(275, "domain:read", ro=True)
    def domain_snapshot_list_all_children(
        self, snapshot: DomainSnapshot, flags: UInt
    ) -> Answer[Annotated[list[DomainSnapshot], Shaped(Shape.LISTED, DOMAIN_SNAPSHOT_LIST_MAX, count=Int)]]: ...


class CheckpointPart(Part, Generic[D], program=REMOTE, error_domain=From.DOMAIN_CHECKPOINT):
    """CheckpointPart procedures."""

    @rpc(411, "domain:checkpoint", When(DomainCheckpointCreateFlags.QUIESCE, "domain:fs_freeze"))
    def domain_checkpoint_create_xml(self, dom: D, xml_desc: Str, flags: UInt) -> Answer[DomainCheckpoint]: ...

    @rpc(
        412,
        "domain:read",
        When(DomainCheckpointXMLFlags.SECURE, "domain:read_secure"),
        ro=True,
        ro_deny=When(DomainCheckpointXMLFlags.SECURE, "domain:read_secure"),
    )
    def domain_checkpoint_get_xml_desc(self, checkpoint: DomainCheckpoint, flags: UInt) -> Answer[Str]: ...

    @rpc(413, "domain:read", ro=True)
    def domain_list_all_checkpoints(
        self, dom: D, flags: UInt
    ) -> Answer[Annotated[list[DomainCheckpoint], Shaped(Shape.LISTED, DOMAIN_CHECKPOINT_LIST_MAX, count=Int)]]: ...

    @rpc(414, "domain:read", ro=True)
    def domain_checkpoint_list_all_children(
        self, checkpoint: DomainCheckpoint, flags: UInt
    ) -> Answer[Annotated[list[DomainCheckpoint], Shaped(Shape.LISTED, DOMAIN_CHECKPOINT_LIST_MAX, count=Int)]]: ...

    @rpc(415, "domain:read", ro=True)
    def domain_checkpoint_lookup_by_name(self, dom: D, name: Str, flags: UInt) -> Answer[DomainCheckpoint]: ...

    @rpc(416, "domain:read", ro=True)
    def domain_checkpoint_get_parent(self, checkpoint: DomainCheckpoint, flags: UInt) -> Answer[DomainCheckpoint]: ...

    @rpc(417, "domain:checkpoint")
    def domain_checkpoint_delete(self, checkpoint: DomainCheckpoint, flags: UInt) -> Answer[None]: ...

    @rpc(421, "domain:checkpoint", "domain:block_write")
    def domain_backup_begin(self, dom: D, backup_xml: Str, checkpoint_xml: Str | None, flags: UInt) -> Answer[None]: ...

    @rpc(422, "domain:read", ro=True)
    def domain_backup_get_xml_desc(self, dom: D, flags: UInt) -> Answer[Str]: ...
