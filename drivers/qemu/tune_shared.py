"""What the parts that read and change tuning share: names of parameters, the guest's control group, its IOThreads."""

from typing import TYPE_CHECKING

from pyvirtd.constants.error import ErrorDomain as From
from pyvirtd.core.cgroup import Group
from pyvirtd.drivers.qemu.domain import QemuDomain
from pyvirtd.errors import OperationInvalid, VirtError
from pyvirtd.model.cpu import NumaMode
from pyvirtd.model.domain import DomainDef

if TYPE_CHECKING:
    from pyvirtd.drivers.qemu.driver import QemuDriver

# Scheduler parameters in libvirt's order, and the field of <cputune> that each is.
SCHEDULER = (
    ("cpu_shares", "shares"),
    ("vcpu_period", "period"),
    ("vcpu_quota", "quota"),
    ("emulator_period", "emulator_period"),
    ("emulator_quota", "emulator_quota"),
    ("global_period", "global_period"),
    ("global_quota", "global_quota"),
    ("iothread_period", "iothread_period"),
    ("iothread_quota", "iothread_quota"),
)
# virDomainNumatuneMemMode
NUMA_MODES = {NumaMode.STRICT: 0, NumaMode.PREFERRED: 1, NumaMode.INTERLEAVE: 2, NumaMode.RESTRICTIVE: 3}
BLKIO_DEVICE = ("weight", "read_iops_sec", "write_iops_sec", "read_bytes_sec", "write_bytes_sec")
NOT_MOUNTED = {
    "cpu": "cgroup CPU controller is not mounted",
    "cpuacct": "cgroup CPUACCT controller is not mounted",
    "cpuset": "cgroup cpuset controller is not mounted",
    "memory": "cgroup memory controller is not mounted",
    "blkio": "blkio cgroup isn't mounted",
}


def need_system(driver: "QemuDriver", error: type[VirtError], what: str) -> None:
    """Raises the error in a session daemon, whose guests have no control groups."""
    if not driver.host.privileged:
        raise error(f"{what} tuning is not available in session mode", domain=From.QEMU)


def live_group(dom: QemuDomain, controller: str) -> Group:
    """The control group of a running guest. Raises OperationInvalid where it has not this controller."""
    group = dom.running.group
    if group is None or not group.has(controller):
        raise OperationInvalid(NOT_MOUNTED[controller], domain=From.QEMU)
    return group


def iothread_ids(definition: DomainDef) -> list[int]:
    """The numbers of a definition's IOThreads: those it names, then the lowest free ones up to their count."""
    named = [thread.id for thread in definition.iothreadids]
    missing = max((definition.iothreads or 0) - len(named), 0)
    free = (number for number in range(1, len(named) + missing + 1) if number not in named)
    return [*named, *(number for number, _ in zip(free, range(missing), strict=False))]
