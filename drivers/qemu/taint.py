"""What makes a guest "tainted": something was done to it that its administrator answers for, and support asks about."""

import logging
import os
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING

from pyvirtd.drivers.qemu.domain import QemuDomain
from pyvirtd.util.files import in_thread
from pyvirtd.util.values import log_time

if TYPE_CHECKING:
    from pyvirtd.drivers.qemu.driver import QemuDriver

log = logging.getLogger(__name__)


class Taint(StrEnum):
    """The words of status files and logs."""

    CUSTOM_ARGV = "custom-argv"
    CUSTOM_MONITOR = "custom-monitor"
    HIGH_PRIVILEGES = "high-privileges"
    SHELL_SCRIPTS = "shell-scripts"
    DISK_PROBING = "disk-probing"
    EXTERNAL_LAUNCH = "external-launch"
    HOST_CPU = "host-cpu"
    HOOK_SCRIPT = "hook-script"
    CDROM_PASSTHROUGH = "cdrom-passthrough"
    CUSTOM_DTB = "custom-dtb"
    CUSTOM_GA_COMMAND = "custom-ga-command"
    CUSTOM_HYPERVISOR_FEATURE = "custom-hypervisor-feature"
    DEPRECATED_CONFIG = "deprecated-config"
    CUSTOM_DEVICE = "custom-device"


# What DomainGetMessages says of each.
MESSAGES = {
    Taint.CUSTOM_ARGV: "custom configuration parameters specified",
    Taint.CUSTOM_MONITOR: "custom monitor control commands issued",
    Taint.HIGH_PRIVILEGES: "running with undesirable elevated privileges",
    Taint.SHELL_SCRIPTS: "network configuration using opaque shell scripts",
    Taint.DISK_PROBING: "dangerous disk format probing",
    Taint.EXTERNAL_LAUNCH: "managing externally launched configuration",
    Taint.HOST_CPU: "potentially unsafe use of host CPU passthrough",
    Taint.HOOK_SCRIPT: "configuration potentially modified by hook script",
    Taint.CDROM_PASSTHROUGH: "use of host cdrom passthrough",
    Taint.CUSTOM_DTB: "custom device tree blob used",
    Taint.CUSTOM_GA_COMMAND: "custom guest agent control commands issued",
    Taint.CUSTOM_HYPERVISOR_FEATURE: "hypervisor feature autodetection override",
    Taint.DEPRECATED_CONFIG: "use of deprecated configuration settings",
    Taint.CUSTOM_DEVICE: "custom device configuration",
}


async def taint(driver: "QemuDriver", dom: QemuDomain, reason: Taint) -> None:
    """Note the taint of a running guest: in its state, its log and ours, once for each run."""
    guest = dom.running
    if reason in guest.taints:
        return
    guest.taints.append(reason)
    log.warning("Domain id=%d name='%s' uuid=%s is tainted: %s", dom.id, dom.name, dom.uuid_text, reason)
    line = f"{log_time()}: Domain id={dom.id} is tainted: {reason}\n"
    await in_thread(_append, driver.host.paths.qemu.log_file(dom.name), line)
    await driver.save_status(dom)


def messages(taints: list[str]) -> list[str]:
    """The sentences for a guest's taints."""
    known = {str(reason): text for reason, text in MESSAGES.items()}
    return [f"tainted: {known.get(word, word)}" for word in taints]


def _append(path: Path, line: str) -> None:
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except OSError as exc:
        log.warning("cannot open '%s': %s", path, os.strerror(exc.errno or 0))
        return
    try:
        os.write(fd, line.encode())
    finally:
        os.close(fd)
