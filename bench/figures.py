"""Every figure of the benchmark, with its unit and its aim as a ratio to libvirtd's."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Figure:
    """One line of the table."""

    name: str
    title: str
    unit: str
    target: float = 1.0
    higher_is_better: bool = False

    def met(self, ratio: float) -> bool:
        """Whether a ratio pyvirtd / libvirtd reaches the aim."""
        return ratio >= self.target if self.higher_is_better else ratio <= self.target


FIGURES = (
    Figure("call-p50", "small call (domain state), p50", "µs", 0.55),
    Figure("call-p99", "small call (domain state), p99", "µs"),
    Figure("rate", "8 clients, calls a second", "1/s", 1.8, higher_is_better=True),
    Figure("connect", "connect and close", "ms"),
    Figure("capabilities", "capabilities", "ms", 0.2),
    Figure("xml", "XML of a 30-device domain", "ms"),
    Figure("redefine", "redefine a 30-device domain", "ms"),
    Figure("define", "define 1,000 domains", "s"),
    Figure("list", "list 1,000 inactive domains", "ms", 0.5),
    Figure("stats-inactive", "bulk statistics of 1,000 inactive", "ms", 0.4),
    Figure("stats-running", "bulk statistics of 10 running", "ms", 0.2),
    Figure("start", "start (paused, TCG)", "s", 0.35),
    Figure("destroy", "destroy", "s", 0.15),
    Figure("ten-starts", "start of 10 at once", "s", 0.6),
    Figure("managed-save", "managed save of 1 GiB in use", "s", 0.9),
    Figure("managed-start", "start from that", "s", 0.9),
    Figure("save", "save of 1 GiB in use", "s", 0.9),
    Figure("restore", "restore of that", "s", 0.9),
    Figure("save-lzop", "save of 1 GiB in use, lzop", "s", 0.9),
    Figure("restore-lzop", "restore of that", "s", 0.9),
    Figure("save-zstd", "save of 1 GiB in use, zstd (libvirtd 9.0 has none)", "s", 0.9),
    Figure("restore-zstd", "restore of that", "s", 0.9),
    Figure("restart", "restart with 1,000 defined, until list answers", "s"),
    Figure("memory-idle", "memory (PSS) after the start", "MiB", 1.2),
    Figure("memory", "memory (PSS) with 1,000 defined, after all this", "MiB", 1.2),
)
BY_NAME = {figure.name: figure for figure in FIGURES}
