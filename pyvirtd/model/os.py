"""How the guest boots: <os>, <sysinfo>, <bootloader>.

https://libvirt.org/formatdomain.html#operating-system-booting
"""

from enum import StrEnum

from pyvirtd.constants.error import ErrorDomain
from pyvirtd.errors import InternalError
from pyvirtd.model.refusals import wrong
from pyvirtd.model.storage import NvramSource, StorageType
from pyvirtd.xml.document import Node
from pyvirtd.xml.element import Element, View, attr, child, children, content, says, text, via
from pyvirtd.xml.types import I32, U32, LenientYesNo, YesNo


class OsFirmware(StrEnum):
    BIOS = "bios"
    EFI = "efi"


class FirmwareFeatureName(StrEnum):
    ENROLLED_KEYS = "enrolled-keys"
    SECURE_BOOT = "secure-boot"


class LoaderType(StrEnum):
    ROM = "rom"
    PFLASH = "pflash"


class FirmwareFormat(StrEnum):
    RAW = "raw"
    QCOW2 = "qcow2"


class BootDevice(StrEnum):
    FD = "fd"
    CDROM = "cdrom"
    HD = "hd"
    NETWORK = "network"


class SmbiosMode(StrEnum):
    EMULATE = "emulate"
    HOST = "host"
    SYSINFO = "sysinfo"


class OsType(Element, tag="type"):
    """The kind of guest (hvm, exe, linux, …), its architecture and machine."""

    arch: str | None = attr()
    machine: str | None = attr()
    name: str | None = content()


class FirmwareFeature(Element, tag="feature"):
    enabled: YesNo = attr(False, required=True)
    name: FirmwareFeatureName = attr(FirmwareFeatureName.SECURE_BOOT, required=True)


class Loader(Element, tag="loader"):
    readonly: YesNo | None = attr()
    secure: YesNo | None = attr()
    type: LoaderType | None = attr()
    stateless: YesNo | None = attr()
    format_: FirmwareFormat | None = attr(name="format")
    path: str | None = content()

    def parsed(self, node: Node, view: View) -> None:
        if self.type is None and self.path is not None:
            self.type = LoaderType.ROM


class Nvram(Element, tag="nvram"):
    """Where the variables of UEFI firmware are kept: a path, or a source of the given type."""

    type: StorageType | None = attr()
    template: str | None = attr()
    template_format: FirmwareFormat | None = attr(name="templateFormat")
    format_: FirmwareFormat | None = attr(name="format")
    path: str | None = content()
    source: NvramSource | None = child(switch="^type")

    @property
    def placed(self) -> bool:
        """Somebody said where they are."""
        return bool(self.path) or self.source is not None

    def parsed(self, node: Node, view: View) -> None:
        if self.type is not None and self.source is None:
            raise InternalError(f"<nvram type='{self.type}'> has no source", domain=ErrorDomain.DOMAIN)


class Varstore(Element, tag="varstore"):
    """Where the variables of UEFI firmware are kept when QEMU itself serves them."""

    template: str | None = attr()
    path: str | None = attr()


class InitEnv(Element, tag="initenv"):
    name: str | None = attr(required=True)
    value: str | None = content()


class AcpiTableType(StrEnum):
    SLIC = "slic"


class AcpiTable(Element, tag="table"):
    type: AcpiTableType | None = attr(
        required=wrong("Missing acpi table type"), bad=wrong("Unknown acpi table type: {}")
    )
    path: str | None = content()


class BootMenu(Element, tag="bootmenu"):
    enable: YesNo | None = attr()
    timeout: U32 | None = attr(when=says("enable", "yes"))

    def parsed(self, node: Node, view: View) -> None:
        if not self.enable:
            self.timeout = None


class Bios(Element, tag="bios"):
    useserial: LenientYesNo | None = attr()
    reboot_timeout: I32 | None = attr(name="rebootTimeout")


class Os(Element, tag="os"):
    firmware_type: OsFirmware | None = attr(name="firmware", bad=wrong("unknown firmware value {}"))
    type: OsType = child()
    init: str | None = text()
    initarg: list[str] = children()
    initenv: list[InitEnv] = children()
    initdir: str | None = text()
    inituser: str | None = text()
    initgroup: str | None = text()
    firmware: list[FirmwareFeature] = children(wrap="firmware")
    loader: Loader | None = child()
    nvram: Nvram | None = child()
    varstore: Varstore | None = child()
    kernel: str | None = text()
    initrd: str | None = text()
    cmdline: str | None = text()
    dtb: str | None = text()
    shim: str | None = text()
    root: str | None = text()
    acpi: list[AcpiTable] = children(wrap="acpi")
    boot: list["OsBoot"] = children()
    bootmenu: BootMenu | None = child()
    bios: Bios | None = child()
    smbios: SmbiosMode | None = via("smbios", "mode", ignore=("none",), bad="unknown smbios mode '{}'")

    @property
    def loader_format(self) -> FirmwareFormat:
        """The format of the firmware's image."""
        return (self.loader.format_ if self.loader is not None else None) or FirmwareFormat.RAW

    @property
    def nvram_format(self) -> FirmwareFormat:
        """The format of the firmware's variables: unless stated the firmware's own, and raw where they have a place."""
        nvram = self.nvram
        if nvram is not None and nvram.format_ is not None:
            return nvram.format_
        return FirmwareFormat.RAW if nvram is not None and nvram.placed else self.loader_format

    @property
    def template_format(self) -> FirmwareFormat:
        """The format of what new variables are made of: theirs unless stated."""
        return (self.nvram.template_format if self.nvram is not None else None) or self.nvram_format


class OsBoot(Element, tag="boot"):
    dev: BootDevice = attr(BootDevice.HD, required=True)


class SysinfoEntry(Element, tag="entry"):
    name: str | None = attr()
    file: str | None = attr()
    value: str | None = content()


class SysinfoBlock(Element):
    """One SMBIOS structure: its named values."""

    entry: list[SysinfoEntry] = children()

    def get(self, name: str) -> str | None:
        """The value of a named entry."""
        return next((entry.value for entry in self.entry if entry.name == name), None)


class Sysinfo(Element, tag="sysinfo", by="type"):
    """Base of both kinds of system information."""


# libvirt's own order of the values it knows; others are dropped
_BIOS = ("vendor", "version", "date", "release")
_SYSTEM = ("manufacturer", "product", "version", "serial", "uuid", "sku", "family")
_BASE_BOARD = ("manufacturer", "product", "version", "serial", "asset", "location")
_CHASSIS = ("manufacturer", "version", "serial", "asset", "sku")


def _sort(block: SysinfoBlock | None, names: tuple[str, ...]) -> None:
    if block is not None:
        found = {entry.name: entry for entry in reversed(block.entry) if entry.value is not None}
        block.entry = [found[name] for name in names if name in found]


class SmbiosSysinfo(Sysinfo, case="smbios"):
    bios: SysinfoBlock | None = child(name="bios")
    system: SysinfoBlock | None = child(name="system")
    base_board: list[SysinfoBlock] = children(name="baseBoard")
    chassis: SysinfoBlock | None = child(name="chassis")
    oem_strings: list[str] = children(name="entry", wrap="oemStrings")

    def parsed(self, node: Node, view: View) -> None:
        _sort(self.bios, _BIOS)
        _sort(self.system, _SYSTEM)
        for board in self.base_board:
            _sort(board, _BASE_BOARD)
        _sort(self.chassis, _CHASSIS)


class FwcfgSysinfo(Sysinfo, case="fwcfg"):
    entry: list[SysinfoEntry] = children()
