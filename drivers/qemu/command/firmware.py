"""Firmware images: flash with its variables as block nodes, or a plain BIOS file."""

from pyvirtd.drivers.qemu.capabilities.firmware import DEFAULT_LOADERS
from pyvirtd.drivers.qemu.command.block import format_props, storage_props
from pyvirtd.drivers.qemu.command.context import Builder, NewFile
from pyvirtd.drivers.qemu.command.firmware_select import template_of
from pyvirtd.model.os import FirmwareFormat, LoaderType
from pyvirtd.model.storage import AnySource, FileSource, StorageFormat

PFLASH0, PFLASH1 = "libvirt-pflash0", "libvirt-pflash1"
DEFAULT_PAIRS = tuple(f"{code}:{variables}" for code, variables in DEFAULT_LOADERS)


def firmware_nodes(build: Builder) -> list[str]:
    """The nodes that the board's flash is made of."""
    loader, nvram = build.definition.os.loader, build.definition.os.nvram
    if loader is None or loader.type is not LoaderType.PFLASH or not loader.path:
        return []
    nodes = [f"{PFLASH0}-format"]
    if nvram is not None and nvram.placed:
        nodes.append(f"{PFLASH1}-format")
    return nodes


def build_firmware_nodes(build: Builder) -> None:
    """-blockdev of the firmware and of its variables"""
    os = build.definition.os
    nodes = firmware_nodes(build)
    if not nodes or os.loader is None:
        return
    _flash(build, FileSource(file=os.loader.path), PFLASH0, os.loader_format, readonly=bool(os.loader.readonly))
    if len(nodes) > 1 and os.nvram is not None:
        source = os.nvram.source or FileSource(file=os.nvram.path)
        if isinstance(source, FileSource) and source.file and not source.fdgroup:
            template = template_of(build.definition, build.config.nvram or DEFAULT_PAIRS)
            keep = not build.context.reset_nvram
            made = NewFile(source.file, template=template, keep=keep, variables_of=os.loader.path)
            if os.template_format is not os.nvram_format:
                made = made._replace(convert=(os.template_format, os.nvram_format))
            build.command.files.append(made)
        _flash(build, source, PFLASH1, os.nvram_format, readonly=False)


def _flash(build: Builder, source: AnySource, name: str, kind: FirmwareFormat, *, readonly: bool) -> None:
    build.command.add("-blockdev", storage_props(build, source, name, readonly=readonly).text())
    props = format_props(StorageFormat(kind), name, readonly=readonly)
    if kind is not FirmwareFormat.RAW:
        props["backing"] = None  # whatever its header says
    build.command.add("-blockdev", props.text())


def build_firmware(build: Builder) -> None:
    """-bios, and that only system management mode may write the flash"""
    loader = build.definition.os.loader
    if loader is None:
        return
    if loader.secure:
        build.command.add("-global", "driver=cfi.pflash01,property=secure,value=on")
    if loader.path and loader.type is not LoaderType.PFLASH:
        build.command.add("-bios", loader.path)
