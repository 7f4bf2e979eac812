"""The state file of a running QEMU guest, as libvirtd keeps it in /run/libvirt/qemu/NAME.xml.

It is for the daemon that is started next, ours or libvirtd: read with STATUS_VIEW and printed with it. What stands in
a file and is not modelled here is of no use to us and is ignored.
"""

from enum import StrEnum

from pyvirtd.model.cpu import Cpu
from pyvirtd.model.domain import DomainDef
from pyvirtd.xml.element import LIVE, SECURE, STATUS, Element, attr, child, children, flag, text, via
from pyvirtd.xml.types import I32, I64, U32, U64, CpuSet, HexShort, YesNo

STATUS_VIEW = LIVE | SECURE | STATUS


class MonitorType(StrEnum):
    UNIX = "unix"


class StatusMonitor(Element, tag="monitor"):
    """QEMU's QMP socket."""

    path: str = attr("")
    type: MonitorType = attr(MonitorType.UNIX)


class StatusNamespaces(Element, tag="namespaces"):
    """Namespaces of its own that QEMU runs in."""

    mount: bool = flag()


class StatusVcpu(Element, tag="vcpu"):
    """The thread of a virtual CPU; 0 when QEMU does not tell."""

    id: U32 = attr(0)
    pid: I32 = attr(0)


class StatusFlag(Element, tag="flag"):
    name: str = attr("")


class StatusTaint(Element, tag="taint"):
    flag: str = attr("")


class StatusDevice(Element, tag="device"):
    alias: str = attr("")


class StatusJobDisk(Element, tag="disk"):
    """A disk that is being copied by a migration."""

    dev: str | None = attr()
    migrating: YesNo | None = attr()


class StatusJob(Element, tag="job"):
    """The jobs that run: the normal one, the long one with its phase, and when that began (milliseconds)."""

    type: str = attr("none")
    async_: str = attr("none")
    phase: str | None = attr()
    flags: HexShort | None = attr()
    async_started: U64 | None = attr(name="asyncStarted")
    disk: list[StatusJobDisk] = children()


class NodeName(Element):
    """A block node that a job works on."""

    node: str | None = attr()


class StatusJobTarget(Element, tag="disk"):
    """The disk of a block job."""

    dst: str | None = attr()
    mirror: YesNo | None = attr()


class StatusBlockJob(Element, tag="blockjob"):
    name: str = attr("")
    type: str | None = attr()
    state: str | None = attr()
    newstate: str | None = attr()
    brokentype: str | None = attr()
    jobflags: HexShort | None = attr()
    errmsg: str | None = text()
    disk: StatusJobTarget | None = child()
    base: NodeName | None = child(name="base")
    top: NodeName | None = child(name="top")
    topparent: NodeName | None = child(name="topparent")
    delete_committed_images: bool = flag(name="deleteCommittedImages")


class StatusBlockJobs(Element, tag="blockjobs"):
    active: YesNo = attr(False)
    blockjob: list[StatusBlockJob] = children()


class StatusRestored(Element, tag="restored"):
    """Ours: a start that has read a save image in full is not to be undone; `resume`: the guest is to run then."""

    image: str = attr("", required=True)
    resume: YesNo = attr(False)


class StatusAdvice(Element, tag="numad"):
    """What numad advised for a guest that leaves its place to us."""

    nodeset: CpuSet | None = attr()
    cpuset: CpuSet | None = attr()


class DomStatus(Element, tag="domstatus"):
    """`state` and `reason` are libvirt's words for virDomainState and its reasons."""

    state: str = attr("running", required=True)
    reason: str = attr("unknown")
    pid: I64 = attr(0, required=True)
    taint: list[StatusTaint] = children()
    deprecation: list[str] = children()
    monitor: StatusMonitor = child()
    dbus_daemon: bool = flag(name="dbusDaemon")
    namespaces: StatusNamespaces | None = child()
    vcpus: list[StatusVcpu] = children(wrap="vcpus")
    qemu_caps: list[StatusFlag] = children(wrap="qemuCaps")
    lockstate: str | None = text()
    job: StatusJob | None = child()
    fakereboot: bool = flag()
    devices: list[StatusDevice] = children(wrap="devices")
    numad: StatusAdvice | None = child()
    pr_daemon: bool = flag(name="prDaemon")
    lib_dir: str | None = via("libDir", "path")
    channel_target_dir: str | None = via("channelTargetDir", "path")
    cpu: Cpu | None = child()
    chardev_stdio_logd: bool = flag(name="chardevStdioLogd")
    remember_owner: bool = flag(name="rememberOwner")
    allow_reboot: YesNo | None = via("allowReboot", "value")
    nodename: U32 | None = via("nodename", "index")
    fdset: U32 | None = via("fdset", "index")
    blockjobs: StatusBlockJobs = child()
    agent_timeout: I32 | None = text(name="agentTimeout")
    restored: StatusRestored | None = child()
    domain: DomainDef = child()


def read_status(source: str) -> DomStatus:
    """The state in a file. Raises XmlDetail, XmlError and ConfigUnsupported as reading a definition does."""
    return DomStatus.parse(source, STATUS_VIEW)
