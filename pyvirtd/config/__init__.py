"""The daemon's configuration files: declared keys, typed settings, and the commented files that are shipped."""

from pyvirtd.config.daemon import DaemonConfig
from pyvirtd.config.keys import UNLIMITED, Key, Settings
from pyvirtd.config.qemu import QemuConfig
from pyvirtd.config.syntax import Entry, Value, format_value, parse

# File under conf/ -> the class that it is made from; libvirtd.conf's counterpart carries our daemon's name there.
SHIPPED: dict[str, type[Settings]] = {"pyvirtd.conf": DaemonConfig, "qemu.conf": QemuConfig}

__all__ = [
    "SHIPPED",
    "UNLIMITED",
    "DaemonConfig",
    "Entry",
    "Key",
    "QemuConfig",
    "Settings",
    "Value",
    "format_value",
    "parse",
]
