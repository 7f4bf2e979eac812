"""Rules that a complete definition must keep before QEMU may run it: `validate` raises libvirt's errors.

What must be said before defaults hide that it was left out is checked by `postparse.given`, as `complete` starts.
"""

from pyvirtd.config.qemu import QemuConfig
from pyvirtd.drivers.qemu.capabilities import QemuCapabilities
from pyvirtd.drivers.qemu.postparse.scope import Scope
from pyvirtd.drivers.qemu.validate.addresses import check_addresses
from pyvirtd.drivers.qemu.validate.audio import check_audio
from pyvirtd.drivers.qemu.validate.chardevs import check_chardevs
from pyvirtd.drivers.qemu.validate.controllers import check_controllers, check_usb_users
from pyvirtd.drivers.qemu.validate.devices import check_devices
from pyvirtd.drivers.qemu.validate.disks import check_disks
from pyvirtd.drivers.qemu.validate.displays import check_graphics, check_inputs, check_videos
from pyvirtd.drivers.qemu.validate.features import check_clock, check_features, check_power
from pyvirtd.drivers.qemu.validate.filesystems import check_filesystems
from pyvirtd.drivers.qemu.validate.hostdevs import check_hostdevs
from pyvirtd.drivers.qemu.validate.memory import check_memory
from pyvirtd.drivers.qemu.validate.nets import check_interfaces
from pyvirtd.drivers.qemu.validate.os import check_os
from pyvirtd.drivers.qemu.validate.processor import check_cpu, check_cputune, check_iothreads, check_numa, check_vcpus
from pyvirtd.drivers.qemu.validate.throttle import check_throttle_groups
from pyvirtd.drivers.qemu.validate.tuning import check_tuning
from pyvirtd.model.domain import DomainDef

__all__ = ["validate"]

_WHOLE = (check_os, check_features, check_clock, check_power, check_vcpus, check_cpu, check_numa, check_memory,
          check_cputune, check_tuning)  # fmt: skip
_DEVICES = (check_addresses, check_disks, check_throttle_groups, check_controllers, check_interfaces, check_chardevs,
            check_inputs, check_graphics, check_videos, check_audio, check_hostdevs, check_devices, check_filesystems,
            check_usb_users)  # fmt: skip


def validate(
    definition: DomainDef, caps: QemuCapabilities, config: QemuConfig, *, privileged: bool = True, host_arch: str = ""
) -> None:
    """Raises ConfigUnsupported or XmlError for the first rule that the definition breaks."""
    scope = Scope(definition, caps, config, privileged, host_arch)
    check_iothreads(definition)
    for check in (*_WHOLE, *_DEVICES):
        check(scope)
