"""Make a definition complete: `complete` fills in what libvirtd fills in when a domain is defined.

    emulator = choose_emulator(definition, host_arch)     # then get that emulator's capabilities
    complete(definition, caps, config, privileged=True, host_arch=host_arch)
    assign_aliases(definition)                            # for a domain that is about to run

`complete` changes the definition in place: identity, machine, memory, processors, implicit controllers and devices,
defaults of every device, and an address for each device that needs one. What is given stays; what contradicts itself
raises XmlError or ConfigUnsupported. `new=False` is for definitions loaded from our own files and for command lines
shown to a client: there nothing is chosen anew that a guest could notice.
"""

from pyvirtd.config.qemu import QemuConfig
from pyvirtd.drivers.qemu.addresses import assign_addresses
from pyvirtd.drivers.qemu.capabilities import QemuCapabilities
from pyvirtd.drivers.qemu.postparse import basics, chardevs, controllers, devices, disks, displays, implicit, processor
from pyvirtd.drivers.qemu.postparse.aliases import assign_aliases
from pyvirtd.drivers.qemu.postparse.basics import choose_emulator
from pyvirtd.drivers.qemu.postparse.given import check_given
from pyvirtd.drivers.qemu.postparse.scope import Scope
from pyvirtd.model.domain import DomainDef
from pyvirtd.paths import QemuPaths

__all__ = ["Scope", "assign_aliases", "choose_emulator", "complete"]


def complete(
    definition: DomainDef,
    caps: QemuCapabilities,
    config: QemuConfig,
    *,
    privileged: bool,
    host_arch: str,
    new: bool = True,
    paths: QemuPaths | None = None,
) -> None:
    """Fill in the definition, whose emulator `caps` describes. Raises XmlError or ConfigUnsupported."""
    check_given(definition)
    scope = Scope(definition, caps, config, privileged, host_arch, new)
    basics.complete_identity(scope)
    basics.complete_machine(scope)
    basics.complete_boot(scope)
    controllers.number_controllers(scope)
    for device in scope.devices.input:
        displays.complete_input(scope, device)
    implicit.add_default_devices(scope)
    basics.complete_features(scope)
    basics.complete_firmware(scope, paths)
    basics.complete_vcpus(scope)
    basics.complete_iothreads(scope)
    basics.complete_labels(scope)
    processor.complete_cpu(scope)
    basics.align_memory_devices(scope)
    basics.complete_memory(scope)
    basics.complete_limits(scope)
    controllers.complete_controllers(scope)
    disks.complete_disks(scope)
    for disk in scope.devices.disk:
        disks.assign_drive_address(scope.devices, disk)
    chardevs.complete_chardevs(scope, paths)
    devices.complete_devices(scope)
    implicit.add_implicit_controllers(scope)
    for controller in scope.devices.controller:
        controllers.complete_controller(scope, controller)
    assign_addresses(scope)
    chardevs.copy_to_console(scope)
