"""Rules of <os> and <sysinfo>: boot order, firmware, SMBIOS."""

import re
from datetime import datetime

from pyvirtd.drivers.qemu.postparse.refuse import detail, internal, qemu_unsupported, qemu_xml, unsupported, xml
from pyvirtd.drivers.qemu.postparse.scope import Scope
from pyvirtd.model.domain import DomainDef
from pyvirtd.model.os import (
    FirmwareFeatureName,
    FirmwareFormat,
    FwcfgSysinfo,
    Loader,
    LoaderType,
    OsFirmware,
    SmbiosSysinfo,
)
from pyvirtd.xml.types import parse_uuid

TIMEOUT_MAX = 65535  # milliseconds, as SeaBIOS keeps them
LOADPARM_MAX = 8
_LOADPARM = re.compile(r"[a-zA-Z0-9. ]*")
_RESERVED_FW_CFG = ("opt/ovmf/", "opt/org.qemu/")


def check_os(scope: Scope) -> None:
    """Everything about how the guest boots."""
    definition = scope.definition
    if scope.caps.machine(scope.board.machine, definition.type) is None:
        raise qemu_unsupported(
            f"Emulator '{definition.devices.emulator}' does not support machine type '{scope.board.machine}'"
        )
    check_boot(definition)
    check_loader(scope)
    check_sysinfo(definition)
    if definition.bootloader:
        raise qemu_unsupported("bootloader is not supported by QEMU")
    bios = definition.os.bios
    if bios is not None and bios.useserial and not definition.devices.serial:
        raise qemu_xml("need at least one serial port to use BIOS serial output")


def check_boot(definition: DomainDef) -> None:
    """One way to say the order, no place taken twice, times that firmware can keep."""
    orders: set[int] = set()
    for device in definition.devices.all():
        boot = device.info.boot
        if boot is None:
            continue
        if boot.order is not None:
            if definition.os.boot:
                raise unsupported("per-device boot elements cannot be used together with os/boot elements")
            if boot.order in orders:
                raise unsupported(f"boot order '{boot.order}' used for more than one device")
            orders.add(boot.order)
        if boot.loadparm is not None:
            _check_loadparm(boot.loadparm)
    menu, bios = definition.os.bootmenu, definition.os.bios
    if menu is not None and menu.timeout is not None and menu.timeout > TIMEOUT_MAX:
        raise unsupported(f"invalid value for boot menu timeout, must be in range [0,{TIMEOUT_MAX}]")
    if bios is not None and bios.reboot_timeout is not None and not -1 <= bios.reboot_timeout <= TIMEOUT_MAX:
        raise unsupported(f"invalid value for rebootTimeout, must be in range [-1,{TIMEOUT_MAX}]")


def _check_loadparm(value: str) -> None:
    if not 1 <= len(value) <= LOADPARM_MAX:
        raise internal(f"loadparm value '{value}' must be between 1 and {LOADPARM_MAX} characters")
    if not _LOADPARM.fullmatch(value):
        raise internal(f"invalid loadparm value '{value}', expecting chars in set of [a-zA-Z0-9.] and blank spaces")


def check_loader(scope: Scope) -> None:
    """What firmware the definition names, or what it wants of the one that is chosen for it."""
    definition = scope.definition
    os = definition.os
    if os.firmware_type is not None:
        _check_automatic(definition)
    else:
        _check_manual(definition)
    loader = os.loader
    if loader is not None and loader.secure:
        _check_secure(scope)
    acpi = definition.features is not None and definition.features.acpi
    uefi = os.firmware_type is OsFirmware.EFI or (loader is not None and loader.type is LoaderType.PFLASH)
    if acpi and not uefi and scope.board.arch == "aarch64":
        raise qemu_unsupported("ACPI requires UEFI on this architecture")
    if uefi and not acpi and scope.board.x86:
        raise qemu_unsupported("UEFI requires ACPI on this architecture")


def _check_automatic(definition: DomainDef) -> None:
    os = definition.os
    loader = os.loader or Loader()
    given = (("readonly", loader.readonly), ("type", loader.type))
    for name, value in given:
        if value is not None:
            raise detail(f"loader attribute '{name}' cannot be specified when firmware autoselection is enabled")
    if loader.path:
        raise detail("loader path cannot be specified when firmware autoselection is enabled")
    if loader.secure is False:
        raise detail("loader attribute 'secure' cannot be specified when firmware autoselection is enabled")
    if os.nvram is not None and os.nvram.template:
        raise detail("nvram attribute 'template' cannot be specified when firmware autoselection is enabled")
    if os.nvram is not None and os.nvram.template_format is not None:
        raise detail("nvram attribute 'templateFormat' cannot be specified when firmware autoselection is enabled")
    states = {feature.name: feature.enabled for feature in os.firmware}
    keys, secure = FirmwareFeatureName.ENROLLED_KEYS, FirmwareFeatureName.SECURE_BOOT
    if states.get(keys) and states.get(secure) is False:
        raise detail(
            "firmware feature 'enrolled-keys' cannot be enabled when firmware feature 'secure-boot' is disabled"
        )
    if os.firmware_type is not OsFirmware.EFI:
        if loader.stateless is False:
            raise detail("Only EFI firmware permits NVRAM")
        if os.nvram is not None:
            raise detail(f"firmware type '{os.firmware_type}' does not support nvram")


def _check_manual(definition: DomainDef) -> None:
    os, loader = definition.os, definition.os.loader
    if os.firmware:
        raise detail("cannot use feature-based firmware autoselection when firmware autoselection is disabled")
    if (loader is not None or os.nvram is not None) and (loader is None or not loader.path):
        raise detail("no loader path specified and firmware auto selection disabled")
    if loader is None:
        return
    if loader.type is not LoaderType.PFLASH and os.loader_format is not FirmwareFormat.RAW:
        raise detail(f"loader format '{os.loader_format}' is only supported with loader type 'pflash'")
    if loader.stateless:
        if os.nvram is not None and os.nvram.template:
            raise detail("NVRAM template is not permitted when loader is stateless")
        if os.nvram is not None:
            raise detail("NVRAM is not permitted when loader is stateless")
    elif loader.stateless is False and loader.type is not LoaderType.PFLASH:
        raise detail("Only pflash loader type permits NVRAM")


def _check_secure(scope: Scope) -> None:
    smm = scope.definition.features.smm if scope.definition.features else None
    if scope.board.arch != "x86_64":
        if scope.board.x86:
            raise qemu_unsupported("Secure boot is supported for x86_64 architecture only")
    if not scope.board.q35:
        raise qemu_unsupported("Secure boot is supported with q35 machine types only")
    if scope.definition.os.firmware_type is None and (smm is None or smm.state is False):
        raise qemu_unsupported("Secure boot requires SMM feature enabled")


def check_sysinfo(definition: DomainDef) -> None:
    """SMBIOS tables and firmware configuration entries."""
    for info in definition.sysinfo:
        if isinstance(info, SmbiosSysinfo):
            _check_smbios(definition, info)
        else:
            _check_fw_cfg(info)


def _check_smbios(definition: DomainDef, info: SmbiosSysinfo) -> None:
    date = info.bios.get("date") if info.bios else None
    if date is not None and not _is_date(date):
        raise detail("Invalid BIOS 'date' format")
    text = info.system.get("uuid") if info.system else None
    if text is None:
        return
    try:
        same = parse_uuid(text) == definition.uuid
    except ValueError:
        raise detail("malformed <sysinfo> uuid element") from None
    if not same:
        raise detail("UUID mismatch between <uuid> and <sysinfo>")


def _is_date(text: str) -> bool:
    for form in ("%m/%d/%y", "%m/%d/%Y"):
        try:
            datetime.strptime(text, form)  # noqa: DTZ007 - only its form counts
            return True
        except ValueError:
            continue
    return False


def _check_fw_cfg(info: FwcfgSysinfo) -> None:
    for entry in info.entry:
        if not entry.name:
            raise xml("Firmware entry is missing 'name' attribute")
        if not entry.value and not entry.file:
            raise xml("Firmware entry must have either value or 'file' attribute")
        if not entry.name.startswith("opt/"):
            raise qemu_unsupported("Invalid firmware name")
        if entry.name.startswith(_RESERVED_FW_CFG):
            raise qemu_unsupported("That firmware name is reserved")
