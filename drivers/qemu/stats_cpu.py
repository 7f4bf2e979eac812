"""Processor time of a guest by its control group, in total and on each processor. These block: for a thread."""

from collections.abc import Iterable

from pyvirtd.api.types import TypedParam, param_ullong
from pyvirtd.core.cgroup import Group
from pyvirtd.core.cgroup_limits import cpu_times, cpu_times_each
from pyvirtd.core.procstat import read_process
from pyvirtd.errors import OperationUnsupported


def cpu_totals(pid: int, group: Group | None) -> list[TypedParam]:
    """Of all processors; QEMU's own figures where no control group counts."""
    if group is not None and group.has("cpuacct"):
        times: tuple[int, int, int] = cpu_times(group)
    else:
        process = read_process(pid)
        times = (process.user_ns + process.system_ns, process.user_ns, process.system_ns)
    return [
        param_ullong(name, value) for name, value in zip(("cpu_time", "user_time", "system_time"), times, strict=True)
    ]


def cpu_times_of_each(group: Group, vcpus: Iterable[int]) -> list[list[TypedParam]]:
    """Of each processor: all of the guest, and its vcpus alone. Raises OperationUnsupported under version 2."""
    if group.is_v2("cpuacct"):
        raise OperationUnsupported("operation 'getCpuacctPercpuUsage' not supported for backend 'cgroup V2'")
    whole = cpu_times_each(group)
    threads = [cpu_times_each(group.threads(f"vcpu{number}")) for number in vcpus]
    return [
        [param_ullong("cpu_time", time_ns), param_ullong("vcpu_time", sum(times[number] for times in threads))]
        for number, time_ns in enumerate(whole)
    ]
