"""The client's side: one process for each measurement, with python3-libvirt, as a management program would call.

Usage: python3 -m bench.client WORK [JSON ARGUMENTS]; prints one JSON object, figure name -> value.
"""

import json
import os
import random
import statistics
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import libvirt

from tests.support.domains import bare_domain

Figures = dict[str, float]
WORK: dict[str, Callable[..., Figures]] = {}
START_FLAGS = libvirt.VIR_DOMAIN_START_PAUSED


def work(function: Callable[..., Figures]) -> Callable[..., Figures]:
    WORK[function.__name__.removeprefix("do_").replace("_", "-")] = function
    return function


def seconds(action: Callable[[], object], count: int, warm: int = 1) -> list[float]:
    """How long each of `count` runs took, after `warm` that do not count."""
    for _ in range(warm):
        action()
    taken = []
    for _ in range(count):
        start = time.perf_counter()
        action()
        taken.append(time.perf_counter() - start)
    return taken


def defined(conn: Any, name: str, xml: str) -> Any:
    """A defined domain that does not run, made at the first call."""
    if name in conn.listDefinedDomains():
        return conn.lookupByName(name)
    return conn.defineXML(xml)


def one(conn: Any) -> Any:
    return defined(conn, "bench-one", bare_domain("bench-one"))


def thirty(conn: Any) -> Any:
    return defined(conn, "bench-thirty", thirty_devices("bench-thirty"))


@work
def do_calls(count: int) -> Figures:
    conn = libvirt.open()
    taken = sorted(seconds(one(conn).state, count, warm=200))
    return {"call-p50": taken[count // 2] * 1e6, "call-p99": taken[count * 99 // 100] * 1e6}


@work
def do_rate(duration_s: float) -> Figures:
    """One of several clients: says when it is ready, waits for a line, then calls for a while."""
    conn = libvirt.open()
    state = one(conn).state
    state()
    print("ready", flush=True)
    sys.stdin.readline()
    count = 0
    start = time.perf_counter()
    while (taken := time.perf_counter() - start) < duration_s:
        state()
        count += 1
    return {"rate": count / taken}


@work
def do_connect(count: int) -> Figures:
    return {"connect": statistics.median(seconds(lambda: libvirt.open().close(), count)) * 1e3}


@work
def do_capabilities(count: int) -> Figures:
    conn = libvirt.open()
    return {"capabilities": statistics.median(seconds(conn.getCapabilities, count)) * 1e3}


@work
def do_xml(count: int) -> Figures:
    conn = libvirt.open()
    dom = thirty(conn)
    return {"xml": statistics.median(seconds(dom.XMLDesc, count, warm=5)) * 1e3}


@work
def do_redefine(count: int) -> Figures:
    conn = libvirt.open()
    xml = thirty(conn).XMLDesc()
    return {"redefine": statistics.median(seconds(lambda: conn.defineXML(xml), count, warm=2)) * 1e3}


@work
def do_start(count: int) -> Figures:
    conn = libvirt.open()
    dom = one(conn)
    start, destroy = [], []
    for _ in range(count):
        start += seconds(lambda: dom.createWithFlags(START_FLAGS), 1, warm=0)
        destroy += seconds(dom.destroy, 1, warm=0)
    return {"start": statistics.median(start), "destroy": statistics.median(destroy)}


@work
def do_ten(count: int) -> Figures:
    """Ten starts at once, each from a connection of its own; then the statistics of the ten."""
    conns = [libvirt.open() for _ in range(10)]
    domains = [conn.defineXML(bare_domain(f"bench-ten-{index}")) for index, conn in enumerate(conns)]
    barrier = threading.Barrier(len(domains) + 1)
    failures: list[libvirt.libvirtError] = []

    def start(dom: Any) -> None:
        barrier.wait()
        try:
            dom.createWithFlags(START_FLAGS)
        except libvirt.libvirtError as error:
            failures.append(error)

    threads = [threading.Thread(target=start, args=(dom,)) for dom in domains]
    for thread in threads:
        thread.start()
    barrier.wait()
    begin = time.perf_counter()
    for thread in threads:
        thread.join()
    taken = time.perf_counter() - begin
    try:
        if failures:
            raise failures[0]
        running = libvirt.VIR_CONNECT_GET_ALL_DOMAINS_STATS_RUNNING | libvirt.VIR_CONNECT_GET_ALL_DOMAINS_STATS_PAUSED
        stats = seconds(lambda: conns[0].getAllDomainStats(0, running), count)
        assert len(conns[0].getAllDomainStats(0, running)) == len(domains)
    finally:
        for dom in domains:
            if dom.isActive():
                dom.destroy()
            dom.undefine()
    return {"ten-starts": taken, "stats-running": statistics.median(stats) * 1e3}


@work
def do_define(first: int, count: int) -> Figures:
    conn = libvirt.open()
    texts = [bare_domain(f"bench-many-{index:04d}") for index in range(first, first + count)]
    begin = time.perf_counter()
    for text in texts:
        conn.defineXML(text)
    return {"define": time.perf_counter() - begin}


@work
def do_many(count: int, domains: int) -> Figures:
    conn = libvirt.open()
    assert len(conn.listAllDomains()) >= domains
    listed = seconds(conn.listAllDomains, count, warm=2)
    stats = seconds(conn.getAllDomainStats, count, warm=1)
    return {"list": statistics.median(listed) * 1e3, "stats-inactive": statistics.median(stats) * 1e3}


@work
def do_restart(domains: int) -> Figures:
    """Waits for a line, then asks until all domains are listed; gives the moment on the clock all processes share."""
    libvirt.registerErrorHandler(lambda *_: None, None)
    print("ready", flush=True)
    sys.stdin.readline()
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        try:
            conn = libvirt.open()
            if len(conn.listAllDomains()) >= domains:
                return {"answered": time.monotonic()}
            conn.close()
        except libvirt.libvirtError:
            pass
        time.sleep(0.002)
    raise TimeoutError("the restarted daemon does not list its domains")


@work
def do_saved(managed: bool) -> Figures:
    """A paused guest whose memory is full of data that compresses by half; where the files go, the disk counts."""
    conn = libvirt.open()
    dom = defined(conn, "bench-saved", bare_domain("bench-saved", memory_mib=1024))
    path = str(Path(os.environ.get("HOME", "/")).parent / "bench-saved.img")
    dom.createWithFlags(START_FLAGS)
    figures: Figures = {}
    try:
        fill_memory("bench-saved", 1024)
        steps: list[tuple[str, Callable[[], object]]] = [
            ("save", lambda: dom.save(path)),
            ("restore", lambda: conn.restore(path)),
        ]
        if managed:
            steps += [("managed-save", dom.managedSave), ("managed-start", dom.create)]
        for name, action in steps:
            os.sync()
            figures[name] = seconds(action, 1, warm=0)[0]
    finally:
        if dom.isActive():
            dom.destroy()
        dom.undefineFlags(libvirt.VIR_DOMAIN_UNDEFINE_MANAGED_SAVE)
        Path(path).unlink(missing_ok=True)
    return figures


def fill_memory(name: str, mib: int) -> None:
    """Write into a guest's memory from outside: as root, or as whom its QEMU runs."""
    pattern = f"guest={name},".encode()
    pids = [int(entry) for entry in os.listdir("/proc") if entry.isdigit() and pattern in _command_line(entry)]
    (pid,) = [pid for pid in pids if _memory_of(pid, mib) is not None]
    start = _memory_of(pid, mib)
    assert start is not None
    block = bytearray(1 << 20)
    noise = random.Random(1).randbytes(len(block) // 2)
    for page in range(0, len(block), 4096):
        block[page : page + 2048] = noise[page // 2 : page // 2 + 2048]
    with open(f"/proc/{pid}/mem", "r+b", buffering=0) as memory:
        for number in range(8, mib):
            memory.seek(start + (number << 20))
            block[:8] = number.to_bytes(8, "little")
            memory.write(block)


def _command_line(pid: str) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


def _memory_of(pid: int, mib: int) -> int | None:
    """Where a QEMU of this session's daemon has its guest's memory."""
    try:
        lines = Path(f"/proc/{pid}/maps").read_text().splitlines()
    except OSError:
        return None
    for line in lines:
        first, last = (int(word, 16) for word in line.split()[0].split("-"))
        if last - first == mib << 20:
            return first
    return None


def thirty_devices(name: str) -> str:
    """A domain with thirty devices of the kinds that virtual machines have."""
    disks = "".join(
        f"<disk type='file' device='disk'><driver name='qemu' type='qcow2' cache='none' discard='unmap'/>"
        f"<source file='/var/lib/libvirt/images/bench-{letter}.qcow2'/><target dev='vd{letter}' bus='virtio'/>"
        f"<serial>BENCH{letter.upper()}</serial></disk>"
        for letter in "abcdefgh"
    )
    interfaces = "".join(
        f"<interface type='user'><mac address='52:54:00:00:00:{index:02x}'/><model type='virtio'/></interface>"
        for index in range(8)
    )
    channels = "".join(
        f"<channel type='unix'><target type='virtio' name='org.example.{index}'/></channel>" for index in range(4)
    )
    single = (
        "<disk type='file' device='cdrom'><target dev='sda' bus='sata'/><readonly/></disk>"
        "<serial type='pty'/><console type='pty'/><input type='tablet' bus='usb'/><input type='keyboard' bus='usb'/>"
        "<graphics type='vnc' autoport='yes'/><video><model type='virtio'/></video><sound model='ich9'/>"
        "<rng model='virtio'><backend model='random'>/dev/urandom</backend></rng><memballoon model='virtio'/>"
    )
    return bare_domain(name, devices=disks + interfaces + channels + single)


def main() -> None:
    arguments = json.loads(sys.argv[2]) if len(sys.argv) > 2 else {}
    print(json.dumps(WORK[sys.argv[1]](**arguments)), flush=True)


if __name__ == "__main__":
    main()
