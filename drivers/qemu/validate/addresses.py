"""Rules of addresses and aliases that hold for every device."""

from pyvirtd.drivers.qemu.postparse.refuse import qemu_unsupported, unsupported
from pyvirtd.drivers.qemu.postparse.scope import Scope
from pyvirtd.model.address import CcwAddress, UnassignedAddress, is_user_alias
from pyvirtd.model.chardev import Console
from pyvirtd.model.hostdev import Hostdev


def check_addresses(scope: Scope) -> None:
    """Which kinds of address the board and the device have."""
    seen: set[str] = set()
    for device in scope.devices.all():
        address, alias = device.info.address, device.info.alias
        if isinstance(address, UnassignedAddress) and not isinstance(device, Hostdev):
            raise unsupported("address of type 'unassigned' is supported only for hostdevs")
        if isinstance(address, CcwAddress) and not scope.board.s390_ccw:
            raise qemu_unsupported(
                f"cannot use CCW address type for device '{alias or '<null>'}' using machine type "
                f"'{scope.board.machine}'"
            )
        if alias is not None and is_user_alias(alias):
            if alias in seen and not isinstance(device, Console):
                raise unsupported(f"non unique alias detected: {alias}")
            seen.add(alias)
        rom = device.info.rom
        if rom is not None and rom.enabled is False and (rom.bar is not None or rom.file is not None):
            raise unsupported("ROM tuning is not supported when ROM is disabled")
