"""What is done to a daemon to get the figures; each job runs in turn against every daemon, several rounds over."""

import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tests.support.host import Host

Figures = dict[str, float]
DOMAINS = 1000
CLIENTS = 8


@dataclass(frozen=True)
class Job:
    """One piece of work: `run(host, round)` returns the figures named in `gives`."""

    gives: tuple[str, ...]
    run: Callable[[Host, int], Figures]
    rounds: int = 0  # 0: as many as asked for
    needs: str = ""  # a figure whose job must have run before
    combine: Callable[[Sequence[float]], float] = statistics.median


def client(host: Host, work: str, **arguments: float) -> Figures:
    """Run one measurement in a client process of its own."""
    done = host.run([sys.executable, "-m", "bench.client", work, json.dumps(arguments)], timeout=300)
    if done.returncode != 0:
        raise RuntimeError(f"{work} on {host.daemon}: {done.stderr.strip().splitlines()[-1:]}")
    figures: Figures = json.loads(done.stdout)
    return figures


def waiting_client(host: Host, work: str, **arguments: float) -> "subprocess.Popen[str]":
    """Start a measurement that begins when it is sent a line."""
    process = host.popen([sys.executable, "-m", "bench.client", work, json.dumps(arguments)])
    assert process.stdout
    if process.stdout.readline() != "ready\n":
        raise RuntimeError(f"{work} on {host.daemon}: {process.communicate(timeout=30)[0]}")
    return process


def result(process: "subprocess.Popen[str]") -> Figures:
    """What a waiting client measured."""
    output = process.communicate(timeout=180)[0]
    if process.returncode != 0:
        raise RuntimeError(output.strip().splitlines()[-1])
    figures: Figures = json.loads(output)
    return figures


def _simple(work: str, **arguments: float) -> Callable[[Host, int], Figures]:
    return lambda host, _round: client(host, work, **arguments)


def _rate(host: Host, _round: int) -> Figures:
    processes = [waiting_client(host, "rate", duration_s=2.0) for _ in range(CLIENTS)]
    for process in processes:
        assert process.stdin
        process.stdin.write("go\n")
        process.stdin.flush()
    return {"rate": sum(result(process)["rate"] for process in processes)}


def _define(host: Host, number: int) -> Figures:
    batch = DOMAINS // DEFINE_ROUNDS
    return client(host, "define", first=number * batch, count=batch)


def _restart(host: Host, _round: int) -> Figures:
    process = waiting_client(host, "restart", domains=DOMAINS)
    assert process.stdin
    begin = time.monotonic()
    host.stop()
    host.spawn()
    process.stdin.write("go\n")
    process.stdin.flush()
    return {"restart": result(process)["answered"] - begin}


def _memory(name: str) -> Callable[[Host, int], Figures]:
    return lambda host, _round: {name: host.pss_kib() / 1024}


def _saved(word: str) -> Callable[[Host, int], Figures]:
    """Saving and restoring in a format. The daemon takes that from qemu.conf, and reads it when it starts."""

    def run(host: Host, _round: int) -> Figures:
        config = host.path("/etc/libvirt/qemu.conf" if host.mode == "system" else "config/libvirt/qemu.conf")
        before = config.read_text() if config.exists() else ""
        suffix = "" if word == "raw" else f"-{word}"
        names = ("managed-save", "managed-start", "save", "restore")
        if word == "zstd" and host.daemon != "pyvirtd":
            return {}
        try:
            config.parent.mkdir(parents=True, exist_ok=True)
            config.write_text(f'{before}\nsave_image_format = "{word}"\n')
            host.restart()
            taken = client(host, "saved", managed=word == "raw")
        finally:
            config.write_text(before)
        return {f"{name}{suffix}": taken[name] for name in names if name in taken}

    return run


DEFINE_ROUNDS = 4

# The order matters: first the empty daemon, last the one that holds a thousand domains.
JOBS = (
    Job(("memory-idle",), _memory("memory-idle"), rounds=1),
    Job(("call-p50", "call-p99"), _simple("calls", count=4000)),
    Job(("rate",), _rate),
    Job(("connect",), _simple("connect", count=40)),
    Job(("capabilities",), _simple("capabilities", count=10)),
    Job(("xml",), _simple("xml", count=200)),
    Job(("redefine",), _simple("redefine", count=40)),
    Job(("start", "destroy"), _simple("start", count=3)),
    Job(("ten-starts", "stats-running"), _simple("ten", count=10)),
    Job(("managed-save", "managed-start", "save", "restore"), _saved("raw")),
    Job(("save-lzop", "restore-lzop"), _saved("lzop"), rounds=1),
    Job(("save-zstd", "restore-zstd"), _saved("zstd"), rounds=1),
    Job(("define",), _define, rounds=DEFINE_ROUNDS, combine=sum),
    Job(("list", "stats-inactive"), _simple("many", count=10, domains=DOMAINS), needs="define"),
    Job(("memory",), _memory("memory"), rounds=1, needs="define"),
    Job(("restart",), _restart, needs="define"),
)
