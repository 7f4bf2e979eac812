"""Runs the benchmark: the same client work against each daemon in turn, round by round, so that noise hits all."""

import argparse
import contextlib
import os
import platform
import re
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

from bench.figures import BY_NAME, FIGURES
from bench.jobs import JOBS, Job
from bench.report import OURS, THEIRS, as_json, as_markdown, as_text, rows, updated
from tests.support.host import LIBVIRTD, ROOT, Host, HostError, SessionHost, SystemHost

DOCUMENT = ROOT / "docs" / "performance.md"


def main() -> int:
    options = arguments()
    wanted = selected(options.only)
    samples: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    with contextlib.ExitStack() as stack:
        hosts = start_hosts(stack, options.daemon)
        if not hosts:
            return 1
        for job in wanted:
            measure(job, hosts, options.rounds, samples)
    combined = {
        daemon: {
            name: next(job for job in JOBS if name in job.gives).combine(values)
            for name, values in figures.items()
            if not options.only or any(text in name for text in options.only)
        }
        for daemon, figures in samples.items()
    }
    table = rows(combined)
    about = "\n".join(f"- {name}: {value}" for name, value in machine().items())
    if options.json:
        print(as_json(table, machine()))
    elif options.markdown:
        print(as_markdown(table))
    elif options.update:
        DOCUMENT.write_text(updated(DOCUMENT.read_text(), f"{about}\n\n{as_markdown(table)}"))
    else:
        print(f"{about}\n\n{as_text(table)}")
    return 0


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="./dev bench", description=__doc__)
    parser.add_argument("--only", action="append", metavar="NAME", help=f"of: {' '.join(BY_NAME)} (a part will do)")
    parser.add_argument("--rounds", type=int, default=3, help="how often each figure is measured (default: 3)")
    parser.add_argument("--daemon", choices=(OURS, THEIRS), help="measure this one alone")
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="print one JSON object")
    form.add_argument("--markdown", action="store_true", help="print a table in Markdown")
    form.add_argument("--update", action="store_true", help="put the table into docs/performance.md")
    options = parser.parse_args()
    for text in options.only or ():
        if not any(text in figure.name for figure in FIGURES):
            parser.error(f"no figure is named {text}")
    return options


def selected(only: list[str] | None) -> list[Job]:
    """The jobs that give the wanted figures, and those that these need, in their order."""
    chosen = {job for job in JOBS if not only or any(text in name for text in only for name in job.gives)}
    needed = {job.needs for job in chosen}
    return [job for job in JOBS if job in chosen or needed & set(job.gives)]


def start_hosts(stack: contextlib.ExitStack, only: str | None) -> list[Host]:
    """A running daemon of each kind that is here; one that does not start is reported and left out."""
    kind = SystemHost if os.geteuid() == 0 else SessionHost
    hosts: list[Host] = []
    for daemon in (OURS, THEIRS):
        if only not in (None, daemon) or (daemon == THEIRS and not Path(LIBVIRTD).exists()):
            continue
        host = stack.enter_context(kind(daemon))
        try:
            hosts.append(host.start())
        except HostError as error:
            print(f"{daemon} is left out: {error}", file=sys.stderr)
    return hosts


def measure(job: Job, hosts: list[Host], rounds: int, samples: dict[str, dict[str, list[float]]]) -> None:
    """Run a job on every host, each round in the other order; one that fails is reported and has no figure."""
    failed: set[str] = set()
    for number in range(job.rounds or rounds):
        for host in hosts if number % 2 == 0 else reversed(hosts):
            if host.daemon in failed:
                continue
            try:
                figures = job.run(host, number)
            except (RuntimeError, HostError, subprocess.TimeoutExpired) as error:
                print(f"{host.daemon}: {', '.join(job.gives)}: {error}", file=sys.stderr)
                failed.add(host.daemon)
                for name in job.gives:
                    samples[host.daemon].pop(name, None)
                continue
            for name, value in figures.items():
                samples[host.daemon][name].append(value)
                print(f"{host.daemon:9} {name:15} {value:.4g} {BY_NAME[name].unit}", file=sys.stderr)


def machine() -> dict[str, str]:
    """What the figures depend on."""
    info = Path("/proc/cpuinfo").read_text()
    model = re.search(r"^model name\s*: (.*)$", info, re.MULTILINE)
    return {
        "processor": f"{os.cpu_count()} x {model[1] if model else platform.machine()}",
        "Linux": platform.release(),
        "Python": platform.python_version(),
        "libvirtd": _version([LIBVIRTD, "--version"]),
        "QEMU": _version(["qemu-system-x86_64", "--version"]),
        "load average": f"{os.getloadavg()[0]:.2f}",
    }


def _version(argv: list[str]) -> str:
    try:
        said = subprocess.run(argv, capture_output=True, text=True, check=False).stdout
    except FileNotFoundError:
        return "-"
    found = re.search(r"\d+\.\d\S*", said)
    return found[0] if found else "-"


if __name__ == "__main__":
    sys.exit(main())
