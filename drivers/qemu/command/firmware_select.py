"""Choosing firmware for a definition that asks for a kind of it (<os firmware='efi'>), by the host's descriptors."""

from collections.abc import Iterable
from pathlib import PurePath

from pyvirtd.constants.error import ErrorDomain
from pyvirtd.drivers.qemu.capabilities.descriptors import directories_key
from pyvirtd.drivers.qemu.capabilities.firmware import DIRECTORIES, Firmware, read
from pyvirtd.errors import OperationFailed
from pyvirtd.model.domain import DomainDef
from pyvirtd.model.features import Features, Smm
from pyvirtd.model.os import FirmwareFeatureName, FirmwareFormat, Loader, LoaderType, Nvram
from pyvirtd.paths import QemuPaths

_cache: tuple[tuple[int, ...], tuple[Firmware, ...]] | None = None


def installed() -> tuple[Firmware, ...]:
    """The host's descriptors; read again only when their directories change."""
    global _cache
    key = directories_key(DIRECTORIES)
    if _cache is None or _cache[0] != key:
        _cache = (key, read())
    return _cache[1]


def select_firmware(live: DomainDef, firmware: Iterable[Firmware], paths: QemuPaths) -> None:
    """Write the first firmware that fits into the live definition: loader, variables, what it needs of the machine. It
    then names its firmware and asks for none any more.

    Raises OperationFailed where none fits.
    """
    os = live.os
    if os.firmware_type is None or (os.loader is not None and os.loader.path):
        return
    found = next((one for one in firmware if fits(live, one)), None)
    if found is None:
        raise OperationFailed(f"Unable to find any firmware to satisfy '{os.firmware_type}'", domain=ErrorDomain.QEMU)
    loader = os.loader = os.loader or Loader()
    loader.path = found.executable
    os.firmware_type = None
    if found.format != FirmwareFormat.RAW:
        loader.format_ = FirmwareFormat(found.format)
    if found.device != "flash":
        loader.type = LoaderType.ROM
        return
    loader.type, loader.readonly = LoaderType.PFLASH, True
    if found.mode != "stateless" and not loader.stateless:
        nvram = os.nvram = os.nvram or Nvram()
        nvram.template = nvram.template or found.nvram_template
        if not nvram.placed:
            nvram.format_ = nvram.format_ or loader.format_
        if (template := found.nvram_format or found.format) != os.nvram_format:
            nvram.template_format = FirmwareFormat(template)
        if not nvram.placed:
            nvram.path = str(paths.nvram_file(live.name, os.nvram_format))
    if found.secure:
        features = live.features = live.features or Features()
        features.smm = features.smm or Smm()
        features.smm.state = True
        loader.secure = True


def fits(live: DomainDef, firmware: Firmware) -> bool:
    """Whether a firmware does all that the definition asks for, and needs nothing that it forbids."""
    os = live.os
    if str(os.firmware_type) not in firmware.kinds or not firmware.fits(os.type.arch or "", os.type.machine or ""):
        return False
    return _loader_fits(live, firmware) and _features_fit(live, firmware)


def _loader_fits(live: DomainDef, firmware: Firmware) -> bool:
    loader = live.os.loader
    wanted = {LoaderType.PFLASH: "flash", LoaderType.ROM: "memory"}
    if loader is not None and loader.type is not None and wanted[loader.type] != firmware.device:
        return False
    if firmware.device == "flash":
        stateless = loader is not None and bool(loader.stateless)
        if stateless != (firmware.mode == "stateless") or firmware.mode == "combined":
            return False
        if not {firmware.format, firmware.nvram_format or firmware.format} <= set(FirmwareFormat):
            return False
    if loader is not None and loader.format_ not in (None, firmware.format):
        return False
    return not (loader is not None and loader.secure and not firmware.secure)


def _features_fit(live: DomainDef, firmware: Firmware) -> bool:
    words = {FirmwareFeatureName.ENROLLED_KEYS: "enrolled-keys", FirmwareFeatureName.SECURE_BOOT: "secure-boot"}
    for feature in live.os.firmware:
        if feature.enabled != (words[feature.name] in firmware.features):
            return False
    pm, smm = live.pm, live.features.smm if live.features else None
    if pm is not None and pm.suspend_to_mem and "acpi-s3" not in firmware.features:
        return False
    if pm is not None and pm.suspend_to_disk and "acpi-s4" not in firmware.features:
        return False
    return not (firmware.secure and smm is not None and smm.state is False)


def template_of(live: DomainDef, defaults: Iterable[str]) -> str | None:
    """The file that new variables are copied from: the definition's, else the one that qemu.conf pairs with the
    firmware ("CODE:VARIABLES")."""
    loader, nvram = live.os.loader, live.os.nvram
    if nvram is not None and nvram.template:
        return nvram.template
    for pair in defaults:
        code, _, variables = pair.partition(":")
        if loader is not None and loader.path is not None and PurePath(code) == PurePath(loader.path):
            return variables
    return None
