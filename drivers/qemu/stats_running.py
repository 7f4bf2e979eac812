"""Statistics of one running guest, group after group, from its definition, /proc and QEMU's answers.

`commands_for` says what must be asked of QEMU for some groups; `RunningStats` turns the answers into parameters.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from pyvirtd.api.types import TypedParam, param_int, param_llong, param_string, param_uint, param_ullong
from pyvirtd.constants.domain import DomainStatsTypes as Group
from pyvirtd.core.procstat import ProcessStat, read_process, read_thread
from pyvirtd.drivers.qemu.blocks_find import Layer, chain, format_node, is_empty, local_path, measured_path
from pyvirtd.drivers.qemu.domain import Guest, QemuDomain
from pyvirtd.drivers.qemu.shares import cache_params, memory_params
from pyvirtd.drivers.qemu.stats_image import Image
from pyvirtd.drivers.qemu.stats_net import Counters, device_of, guest_view
from pyvirtd.drivers.qemu.stats_off import Sizes, block_header, layers, state_params
from pyvirtd.drivers.qemu.stats_perf import counters_of
from pyvirtd.drivers.qemu.stats_qmp import (
    Answer,
    BlockStats,
    KvmFigure,
    Node,
    Traffic,
    balloon_figures,
    block_nodes,
    kvm_params,
    kvm_schema,
    write_mark,
)
from pyvirtd.model.disk import Disk
from pyvirtd.model.domain import DomainDef, DomainType

RUNNING = 1  # VIR_VCPU_RUNNING
DIRTY_STATES = ("unstarted", "measuring", "measured")  # VIR_DOMAIN_DIRTYRATE_...

Command = tuple[str, dict[str, Any] | None]
Commands = dict[str, Command]  # by what the answer is for


@dataclass(slots=True)
class Known:
    """What need not be asked of a guest again, as long as nothing was done to its QEMU and nothing happened in it."""

    guest: Guest
    silent: bool = False  # it did not answer the last time
    mark: int = -1  # the monitor's count of changes when this was learnt
    dirty_untouched: bool = False  # no dirty rate was ever measured
    nodes: dict[str, Node] = field(default_factory=dict)
    kvm: dict[str, dict[str, KvmFigure]] | None = None  # these two are true for the whole run
    vcpu_paths: dict[str, int] = field(default_factory=dict)  # QOM path -> vcpu

    def renew(self) -> int:
        """Forget what may have changed; the mark to learn with."""
        changes = self.guest.monitor.changes
        if changes != self.mark:
            self.mark, self.dirty_untouched, self.nodes = changes, False, {}
        return changes

    def recall(self) -> dict[str, Any]:
        """What is known, as if QEMU had answered it now."""
        known: dict[str, Any] = {"known nodes": self.nodes}
        if self.dirty_untouched:
            known["dirty"] = _NO_DIRTY_RATE
        return known

    def learn(self, answers: dict[str, Any], mark: int) -> None:
        """Keep what need not be asked again, unless something changed since the mark."""
        if "kvm schema" in answers:
            self.kvm = kvm_schema(answers["kvm schema"])
        if "cpus" in answers:
            self.vcpu_paths = {cpu["qom-path"]: cpu["cpu-index"] for cpu in answers["cpus"]}
        if mark != self.guest.monitor.changes:
            return
        self.mark = mark
        if "dirty" in answers:
            self.dirty_untouched = answers["dirty"]["status"] == DIRTY_STATES[0]
        if "nodes" in answers:
            self.nodes = block_nodes(answers["nodes"])


def commands_for(live: DomainDef, known: Known, groups: Group) -> Commands:
    """What must be asked of QEMU for these groups."""
    commands: Commands = {}
    if groups & Group.BALLOON and live.devices.balloon is not None:
        commands["balloon"] = balloon_command(live)
    if groups & Group.BLOCK and live.devices.disk:
        commands["blocks"] = ("query-blockstats", None)
        if not known.nodes or not all_local(live):
            commands["nodes"] = ("query-named-block-nodes", {"flat": True})
    if groups & Group.IOTHREAD and (live.iothreads or live.iothreadids):
        commands["iothreads"] = ("query-iothreads", None)
    if groups & Group.DIRTYRATE and not known.dirty_untouched:
        commands["dirty"] = ("query-dirty-rate", None)
    if live.type is DomainType.KVM and "query-stats-schemas" in known.guest.caps.schema:
        commands |= _kvm_commands(known, groups)
    return commands


def all_local(live: DomainDef) -> bool:
    """Whether every image is a file or device of this host, whose size there need not be asked of QEMU."""
    return all(measured_path(layer.source) for disk in live.devices.disk for layer in chain(disk) if not is_empty(disk))


def images_of(live: DomainDef, *, backing: bool) -> Iterator[Image]:
    """The files and devices behind the block group."""
    for _, layer in layers(live, backing=backing):
        if layer is not None and (path := measured_path(layer.source)):
            yield Image(path, None)


def balloon_command(live: DomainDef) -> Command:
    """Asks for what the guest told of its memory."""
    balloon = live.devices.memballoon
    alias = balloon.info.alias if balloon is not None else None
    return "qom-get", {"path": f"/machine/peripheral/{alias}", "property": "guest-stats"}


def _kvm_commands(known: Known, groups: Group) -> Commands:
    commands: Commands = {}
    if groups & (Group.VCPU | Group.CPU_TOTAL):
        commands["kvm vcpu"] = ("query-stats", {"target": "vcpu"})
        if not known.vcpu_paths:
            commands["cpus"] = ("query-cpus-fast", None)
    if groups & Group.VM:
        commands["kvm vm"] = ("query-stats", {"target": "vm"})
    if commands and known.kvm is None:
        commands["kvm schema"] = ("query-stats-schemas", None)
    return commands


@dataclass(slots=True)
class RunningStats:
    """One running guest whose answers came."""

    dom: QemuDomain
    guest: Guest
    live: DomainDef
    known: Known
    answers: dict[str, Any]
    counters: Mapping[str, Counters]
    sizes: Sizes
    groups: Group
    backing: bool

    def params(self) -> list[TypedParam]:
        """Its parameters."""
        params: list[TypedParam] = []
        for group, tell in _TELLERS:
            if self.groups & group:
                params += tell(self)
        return params

    def _process(self) -> ProcessStat | None:
        try:
            return read_process(self.guest.process.pid)
        except ProcessLookupError:
            return None

    # --- groups ----------------------------------------------------------------------------------------------

    def state(self) -> Iterable[TypedParam]:
        return state_params(self.dom)

    def cpu(self) -> Iterator[TypedParam]:
        if (process := self._process()) is not None:
            yield param_ullong("cpu.time", process.user_ns + process.system_ns)
            yield param_ullong("cpu.user", process.user_ns)
            yield param_ullong("cpu.system", process.system_ns)
        yield from cache_params(self.live, self.answers.get("resctrl", {}))
        polled = dict.fromkeys(("halt_poll_success_ns", "halt_poll_fail_ns"), 0)
        for vcpu in self.answers.get("kvm vcpu", ()):
            for stat in vcpu["stats"]:
                if stat["name"] in polled:
                    polled[stat["name"]] += stat["value"]
        yield param_ullong("cpu.haltpoll.success.time", polled["halt_poll_success_ns"])
        yield param_ullong("cpu.haltpoll.fail.time", polled["halt_poll_fail_ns"])

    def balloon(self) -> Iterator[TypedParam]:
        memory, current = self.live.memory.kib, self.live.current_memory_kib
        yield param_ullong("balloon.current", memory if current is None else current)
        yield param_ullong("balloon.maximum", memory)
        for figure in balloon_figures(self.answers.get("balloon", {})):
            yield param_ullong(f"balloon.{figure.name}", figure.value)
        if (process := self._process()) is not None:
            yield param_ullong("balloon.rss", process.rss_kib)

    def vcpu(self) -> Iterator[TypedParam]:
        vcpu = self.live.vcpu
        yield param_uint("vcpu.current", vcpu.current or vcpu.count)
        yield param_uint("vcpu.maximum", vcpu.count)
        told = self._kvm_by_vcpu()
        pid = self.guest.process.pid
        for number, tid in sorted(self.guest.vcpu_threads.items()):
            try:
                thread = read_thread(pid, tid)
            except ProcessLookupError:
                continue
            prefix = f"vcpu.{number}"
            yield param_int(f"{prefix}.state", RUNNING)
            yield param_ullong(f"{prefix}.time", thread.cpu_ns)
            yield param_ullong(f"{prefix}.wait", 0)
            yield param_ullong(f"{prefix}.delay", thread.wait_ns)
            yield from kvm_params(prefix, told.get(number, ()), self._kvm_schema("vcpu"))

    def _kvm_schema(self, target: str) -> dict[str, KvmFigure]:
        return (self.known.kvm or {}).get(target, {})

    def _kvm_by_vcpu(self) -> dict[int, list[Answer]]:
        paths = self.known.vcpu_paths
        answers = self.answers.get("kvm vcpu", ())
        if any(answer.get("qom-path") not in paths for answer in answers):
            self.known.vcpu_paths = {}  # a vcpu came: ask which at the next call
        return {paths[a["qom-path"]]: a["stats"] for a in answers if a.get("qom-path") in paths}

    def interface(self) -> Iterator[TypedParam]:
        interfaces = self.live.devices.interface
        yield param_uint("net.count", len(interfaces))
        for number, interface in enumerate(interfaces):
            device = device_of(interface)
            if not device:
                continue
            yield param_string(f"net.{number}.name", device)
            if (counters := self.counters.get(device)) is None:
                continue
            figures = guest_view(interface, counters)
            for name, value in zip(_NET_NAMES, figures, strict=True):
                yield param_ullong(f"net.{number}.{name}", value)

    def block(self) -> Iterator[TypedParam]:
        entries = list(layers(self.live, backing=self.backing))
        blocks = BlockStats.of(self.answers.get("blocks", ()))
        answers = self.answers
        nodes = block_nodes(answers["nodes"]) if "nodes" in answers else answers.get("known nodes", {})
        yield param_uint("block.count", len(entries))
        before: Disk | None = None
        for number, (disk, layer) in enumerate(entries):
            prefix = f"block.{number}"
            yield from block_header(prefix, disk, layer)
            if disk is not before:
                yield from _traffic_params(prefix, blocks.traffic.get(disk.info.alias or ""))
            before = disk
            if layer is not None:
                name = format_node(layer.number)
                if (highest := blocks.highest.get(name)) is not None:
                    yield param_ullong(f"{prefix}.allocation", highest)
                yield from self._node_params(prefix, layer, nodes.get(name), write_mark(nodes, layer.number))

    def _node_params(self, prefix: str, layer: Layer, node: Node | None, mark: int) -> Iterator[TypedParam]:
        """The sizes of an image; what it holds on the host is looked up where QEMU was not asked or does not know."""
        if node is None:
            return
        physical = node.physical if "nodes" in self.answers else 0
        if not physical:
            size = self.sizes.get(Image(local_path(layer.source), None))
            physical = size.allocation if size is not None else node.physical
        for word, value in (("capacity", node.capacity), ("physical", physical), ("threshold", mark)):
            if value:
                yield param_ullong(f"{prefix}.{word}", value)

    def perf(self) -> Iterator[TypedParam]:
        for name, value in counters_of(self.guest, self.live).read().items():
            yield param_ullong(f"perf.{name}", value)

    def iothread(self) -> Iterator[TypedParam]:
        threads = self.answers.get("iothreads", ())
        if not threads:
            return
        yield param_uint("iothread.count", len(threads))
        for thread in threads:
            prefix = f"iothread.{str(thread['id']).removeprefix('iothread')}"
            if "poll-max-ns" in thread:
                yield param_ullong(f"{prefix}.poll-max-ns", thread["poll-max-ns"])
                yield param_uint(f"{prefix}.poll-grow", thread["poll-grow"])
                yield param_uint(f"{prefix}.poll-shrink", thread["poll-shrink"])

    def dirty_rate(self) -> Iterator[TypedParam]:
        answer: Answer | None = self.answers.get("dirty")
        if answer is None:
            return
        yield param_int("dirtyrate.calc_status", DIRTY_STATES.index(answer["status"]))
        yield param_llong("dirtyrate.calc_start_time", answer["start-time"])
        yield param_int("dirtyrate.calc_period", answer["calc-time"])
        yield param_string("dirtyrate.calc_mode", answer.get("mode", "page-sampling"))
        if "dirty-rate" in answer:
            yield param_llong("dirtyrate.megabytes_per_second", answer["dirty-rate"])
            for vcpu in answer.get("vcpu-dirty-rate", ()):
                yield param_ullong(f"dirtyrate.vcpu.{vcpu['id']}.megabytes_per_second", vcpu["dirty-rate"])

    def memory(self) -> Iterator[TypedParam]:
        return memory_params(self.live, self.answers.get("resctrl", {}))

    def vm(self) -> Iterator[TypedParam]:
        for answer in self.answers.get("kvm vm", ()):
            yield from kvm_params("vm", answer["stats"], self._kvm_schema("vm"))


_NO_DIRTY_RATE: Answer = {"status": "unstarted", "start-time": 0, "calc-time": 0}
_NET_NAMES = ("rx.bytes", "rx.pkts", "rx.errs", "rx.drop", "tx.bytes", "tx.pkts", "tx.errs", "tx.drop")
_TRAFFIC_NAMES = ("rd.reqs", "rd.bytes", "rd.times", "wr.reqs", "wr.bytes", "wr.times", "fl.reqs", "fl.times")

# In the order of the reply.
_TELLERS: tuple[tuple[Group, Callable[[RunningStats], Iterable[TypedParam]]], ...] = (
    (Group.STATE, RunningStats.state),
    (Group.CPU_TOTAL, RunningStats.cpu),
    (Group.BALLOON, RunningStats.balloon),
    (Group.VCPU, RunningStats.vcpu),
    (Group.INTERFACE, RunningStats.interface),
    (Group.BLOCK, RunningStats.block),
    (Group.PERF, RunningStats.perf),
    (Group.IOTHREAD, RunningStats.iothread),
    (Group.MEMORY, RunningStats.memory),
    (Group.DIRTYRATE, RunningStats.dirty_rate),
    (Group.VM, RunningStats.vm),
)


def _traffic_params(prefix: str, traffic: Traffic | None) -> Iterator[TypedParam]:
    if traffic is not None:
        for name, value in zip(_TRAFFIC_NAMES, traffic, strict=True):
            yield param_ullong(f"{prefix}.{name}", value)
