"""Event messages, each declared once with the numbers of its old and new form.

`@event(number, family, id)`: `number` is the message sent to callbacks, `id` what clients name when they register in
the family; `legacy` is the number of the same body without a callback id for the registration calls of old clients.
"""

from typing import Annotated, NamedTuple

from pyvirtd.api.limits import DOMAIN_EVENT_GRAPHICS_IDENTITY_MAX, DOMAIN_EVENT_TUNABLE_MAX, DOMAIN_JOB_STATS_MAX
from pyvirtd.api.rpc import QEMU, event
from pyvirtd.api.types import (
    Domain,
    GraphicsAddress,
    GraphicsIdentity,
    Network,
    NodeDevice,
    Secret,
    StoragePool,
    TypedParam,
)
from pyvirtd.constants.domain import DomainEventID
from pyvirtd.constants.network import NetworkEventID
from pyvirtd.constants.nodedev import NodeDeviceEventID
from pyvirtd.constants.secret import SecretEventID
from pyvirtd.constants.storage import StoragePoolEventID
from pyvirtd.wire.xdr import Hyper, Int, Max, Str, UHyper, UInt


@event(315, "network", NetworkEventID.LIFECYCLE)
class NetworkEventLifecycle(NamedTuple):
    net: Network
    event: Int
    detail: Int


@event(318, "domain", DomainEventID.LIFECYCLE, legacy=107)
class DomainEventLifecycle(NamedTuple):
    dom: Domain
    event: Int
    detail: Int


@event(319, "domain", DomainEventID.REBOOT, legacy=169)
class DomainEventReboot(NamedTuple):
    dom: Domain


@event(320, "domain", DomainEventID.RTC_CHANGE, legacy=170)
class DomainEventRTCChange(NamedTuple):
    dom: Domain
    offset: Hyper


@event(321, "domain", DomainEventID.WATCHDOG, legacy=171)
class DomainEventWatchdog(NamedTuple):
    dom: Domain
    action: Int


@event(322, "domain", DomainEventID.IO_ERROR, legacy=172)
class DomainEventIOError(NamedTuple):
    dom: Domain
    src_path: Str
    dev_alias: Str
    action: Int


@event(323, "domain", DomainEventID.GRAPHICS, legacy=173)
class DomainEventGraphics(NamedTuple):
    dom: Domain
    phase: Int
    local: GraphicsAddress
    remote: GraphicsAddress
    auth_scheme: Str
    subject: Annotated[list[GraphicsIdentity], Max(DOMAIN_EVENT_GRAPHICS_IDENTITY_MAX)]


@event(324, "domain", DomainEventID.IO_ERROR_REASON, legacy=195)
class DomainEventIOErrorReason(NamedTuple):
    dom: Domain
    src_path: Str
    dev_alias: Str
    action: Int
    reason: Str


@event(325, "domain", DomainEventID.CONTROL_ERROR, legacy=224)
class DomainEventControlError(NamedTuple):
    dom: Domain


@event(326, "domain", DomainEventID.BLOCK_JOB, legacy=241)
class DomainEventBlockJob(NamedTuple):
    dom: Domain
    path: Str
    type: Int
    status: Int


@event(327, "domain", DomainEventID.DISK_CHANGE, legacy=248)
class DomainEventDiskChange(NamedTuple):
    dom: Domain
    old_src_path: Str | None
    new_src_path: Str | None
    dev_alias: Str
    reason: Int


@event(328, "domain", DomainEventID.TRAY_CHANGE, legacy=268)
class DomainEventTrayChange(NamedTuple):
    dom: Domain
    dev_alias: Str
    reason: Int


@event(329, "domain", DomainEventID.PMWAKEUP, legacy=269, lead_words=1)
class DomainEventPMWakeup(NamedTuple):
    dom: Domain


@event(330, "domain", DomainEventID.PMSUSPEND, legacy=270, lead_words=1)
class DomainEventPMSuspend(NamedTuple):
    dom: Domain


@event(331, "domain", DomainEventID.BALLOON_CHANGE, legacy=276)
class DomainEventBalloonChange(NamedTuple):
    dom: Domain
    actual: UHyper


@event(332, "domain", DomainEventID.PMSUSPEND_DISK, legacy=292, lead_words=1)
class DomainEventPMSuspendDisk(NamedTuple):
    dom: Domain


@event(333, "domain", DomainEventID.DEVICE_REMOVED, legacy=311)
class DomainEventDeviceRemoved(NamedTuple):
    dom: Domain
    dev_alias: Str


@event(339, "domain", DomainEventID.BLOCK_JOB_2)
class DomainEventBlockJob2(NamedTuple):
    dom: Domain
    dst: Str
    type: Int
    status: Int


@event(346, "domain", DomainEventID.TUNABLE)
class DomainEventTunable(NamedTuple):
    dom: Domain
    params: Annotated[list[TypedParam], Max(DOMAIN_EVENT_TUNABLE_MAX)]


@event(348, "domain", DomainEventID.AGENT_LIFECYCLE)
class DomainEventAgentLifecycle(NamedTuple):
    dom: Domain
    state: Int
    reason: Int


@event(354, "domain", DomainEventID.DEVICE_ADDED)
class DomainEventDeviceAdded(NamedTuple):
    dom: Domain
    dev_alias: Str


@event(359, "domain", DomainEventID.MIGRATION_ITERATION)
class DomainEventMigrationIteration(NamedTuple):
    dom: Domain
    iteration: Int


@event(362, "connect", None)
class ConnectEventConnectionClosed(NamedTuple):
    reason: Int


@event(363, "domain", DomainEventID.JOB_COMPLETED)
class DomainEventJobCompleted(NamedTuple):
    dom: Domain
    params: Annotated[list[TypedParam], Max(DOMAIN_JOB_STATS_MAX)]


@event(367, "domain", DomainEventID.DEVICE_REMOVAL_FAILED)
class DomainEventDeviceRemovalFailed(NamedTuple):
    dom: Domain
    dev_alias: Str


@event(370, "storage_pool", StoragePoolEventID.LIFECYCLE)
class StoragePoolEventLifecycle(NamedTuple):
    pool: StoragePool
    event: Int
    detail: Int


@event(373, "storage_pool", StoragePoolEventID.REFRESH)
class StoragePoolEventRefresh(NamedTuple):
    pool: StoragePool


@event(376, "node_device", NodeDeviceEventID.LIFECYCLE)
class NodeDeviceEventLifecycle(NamedTuple):
    dev: NodeDevice
    event: Int
    detail: Int


@event(377, "node_device", NodeDeviceEventID.UPDATE)
class NodeDeviceEventUpdate(NamedTuple):
    dev: NodeDevice


@event(379, "domain", DomainEventID.METADATA_CHANGE)
class DomainEventMetadataChange(NamedTuple):
    dom: Domain
    type: Int
    nsuri: Str | None


@event(382, "secret", SecretEventID.LIFECYCLE)
class SecretEventLifecycle(NamedTuple):
    secret: Secret
    event: Int
    detail: Int


@event(383, "secret", SecretEventID.VALUE_CHANGED)
class SecretEventValueChanged(NamedTuple):
    secret: Secret


@event(385, "domain", DomainEventID.BLOCK_THRESHOLD)
class DomainEventBlockThreshold(NamedTuple):
    dom: Domain
    dev: Str
    path: Str | None
    threshold: UHyper
    excess: UHyper


@event(423, "domain", DomainEventID.MEMORY_FAILURE)
class DomainEventMemoryFailure(NamedTuple):
    dom: Domain
    recipient: Int
    action: Int
    flags: UInt


@event(438, "domain", DomainEventID.MEMORY_DEVICE_SIZE_CHANGE)
class DomainEventMemoryDeviceSizeChange(NamedTuple):
    dom: Domain
    alias: Str
    size: UHyper


@event(446, "network", 1)
class NetworkEventMetadataChange(NamedTuple):
    net: Network
    type: Int
    nsuri: Str | None


@event(453, "domain", 27)
class DomainEventNICMACChange(NamedTuple):
    dom: Domain
    alias: Str
    old_mac: Str
    new_mac: Str


@event(6, "qemu_monitor", None, program=QEMU)
class QemuMonitorEvent(NamedTuple):
    """An event of QEMU's monitor, as it came: `details` is JSON."""

    dom: Domain
    event: Str
    seconds: Hyper
    micros: UInt
    details: Str | None
