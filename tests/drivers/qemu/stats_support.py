"""Domains and guests for tests of statistics and tuning: definitions as a user writes them, a monitor that is none."""

import asyncio
import os
import uuid
from pathlib import Path
from typing import Any, cast

from pyvirtd.constants.domain import DomainRunningReason, DomainState
from pyvirtd.drivers.qemu.capabilities import QemuCapabilities
from pyvirtd.drivers.qemu.domain import Guest, QemuDomain
from pyvirtd.drivers.qemu.monitor import Monitor
from pyvirtd.errors import OperationTimeout
from pyvirtd.model.domain import DomainDef
from pyvirtd.util.process import Process
from pyvirtd.xml.element import LIVE

Answers = dict[str, Any]

DISK = "<disk type='file'><driver name='qemu' type='{}'/><source file='{}'/><target dev='{}' bus='virtio'/></disk>"


def definition(
    name: str = "d", *, vcpu: str = "<vcpu>2</vcpu>", extra: str = "", devices: str = "", kind: str = "qemu"
) -> DomainDef:
    """A definition of 64 MiB with the balloon that libvirt gives every domain."""
    return DomainDef.parse(
        f"<domain type='{kind}'><name>{name}</name><uuid>{uuid.uuid4()}</uuid><memory unit='MiB'>64</memory>"
        f"<currentMemory unit='MiB'>48</currentMemory>{vcpu}<os><type arch='x86_64' machine='q35'>hvm</type></os>"
        f"{extra}<devices>{devices}<memballoon model='virtio'/></devices></domain>"
    )


def off(name: str = "d", **parts: str) -> QemuDomain:
    return QemuDomain(definition(name, **parts), persistent=True)


class FakeMonitor:
    """Answers from a table; a command that is not in it is never answered."""

    def __init__(self, answers: Answers) -> None:
        self.answers = answers
        self.asked: list[str] = []
        self.told: dict[str, Answers] = {}  # arguments of the last of each command that had some
        self.changes = 0
        self.first = asyncio.Event()

    async def execute(self, command: str, arguments: Answers | None = None, timeout: float = 30) -> Any:
        self.asked.append(command)
        self.first.set()
        if arguments:
            self.told[command] = arguments
        await asyncio.sleep(0)
        if command not in self.answers:
            await asyncio.sleep(timeout)
            raise OperationTimeout(f"the guest's QEMU did not answer '{command}'")
        answer = self.answers[command]
        if isinstance(answer, Exception):
            raise answer
        return answer


def running(dom: QemuDomain, answers: Answers, *, number: int = 1, schema: frozenset[str] = frozenset()) -> FakeMonitor:
    """Make a domain run, in this very process, with a thread of it as its vcpu."""
    monitor = FakeMonitor(answers)
    process = cast("Process", type("Process", (), {"pid": os.getpid()})())
    caps = cast("QemuCapabilities", type("Caps", (), {"schema": schema})())
    dom.guest = Guest(process, cast("Monitor", monitor), caps, Path("/nonexistent"), Path("/nonexistent"))
    dom.guest.vcpu_threads = {0: os.getpid()}
    dom.live = DomainDef.parse(dom.config.format(LIVE), LIVE)
    dom.live.id = dom.id = number
    for index, disk in enumerate(dom.live.devices.disk):
        disk.info.alias = f"virtio-disk{index}"
        if disk.source is not None:
            disk.source.index = index + 1
    if dom.live.devices.memballoon is not None:
        dom.live.devices.memballoon.info.alias = "balloon0"
    dom.set_state(DomainState.RUNNING, DomainRunningReason.BOOTED)
    return monitor


def node_stats(name: str, *, highest: int, below: Answers | None = None, **counts: int) -> Answers:
    """One node of query-blockstats: its own counters, the node below it, the image behind it."""
    stats = dict.fromkeys(
        (
            "rd_operations", "rd_bytes", "rd_total_time_ns", "wr_operations", "wr_bytes", "wr_total_time_ns",
            "flush_operations", "flush_total_time_ns",
        ),
        0,
    )  # fmt: skip
    answer: Answers = {
        "node-name": name,
        "stats": stats | counts | {"wr_highest_offset": highest * 2},
        "parent": {"node-name": name.replace("format", "storage"), "stats": stats | {"wr_highest_offset": highest}},
    }
    if below is not None:
        answer["backing"] = below
    return answer


def drive(alias: str, stats: Answers) -> Answers:
    """A drive of query-blockstats."""
    return {"device": "", "qdev": f"/machine/peripheral/{alias}/virtio-backend"} | stats


def node(name: str, virtual: int, actual: int, threshold: int = 0) -> Answers:
    """One node of query-named-block-nodes."""
    return {
        "node-name": name,
        "image": {"virtual-size": virtual, "actual-size": actual},
        "write_threshold": threshold,
    }


UNSTARTED = {"status": "unstarted", "start-time": 0, "calc-time": 0}
NO_BALLOON_STATS = {"stats": {"stat-swap-in": 2**64 - 1, "stat-free-memory": 2**64 - 1}, "last-update": 0}
