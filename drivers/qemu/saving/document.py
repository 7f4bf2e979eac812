"""The domain's document in a save image: what another daemon needs to make the same machine, and none of this run."""

from typing import TYPE_CHECKING

from pyvirtd.constants.error import ErrorDomain as From
from pyvirtd.drivers.qemu.domain import QemuDomain
from pyvirtd.drivers.qemu.saving.image import Image
from pyvirtd.errors import ConfigUnsupported, VirtError
from pyvirtd.model.abi import check_abi
from pyvirtd.model.chardev import ChardevType, UnixSource
from pyvirtd.model.cpu import Cpu
from pyvirtd.model.devices import Controller, ControllerModel, ControllerType
from pyvirtd.model.domain import DomainDef
from pyvirtd.model.graphics import InputBus, InputType
from pyvirtd.model.seclabel import Seclabel, SeclabelType
from pyvirtd.model.sound import AudioType
from pyvirtd.model.storage import StorageFormat
from pyvirtd.xml.element import MIGRATABLE, SECURE, Element, child

if TYPE_CHECKING:
    from pyvirtd.drivers.qemu.driver import QemuDriver

VIEW = SECURE | MIGRATABLE


class Cookie(Element, tag="cookie"):
    """What the document does not say of the guest: its CPU in full."""

    cpu: Cpu | None = child()


def saved_xml(driver: "QemuDriver", dom: QemuDomain, definition: DomainDef | None = None) -> str:
    """The document of a running domain, or of the definition that shall take its place, without what is implied."""
    return portable(driver, dom, definition or dom.live_def, dom.running.own_cpu if definition is None else None)


def portable(driver: "QemuDriver", dom: QemuDomain, definition: DomainDef, own_cpu: Cpu | None = None) -> str:
    """A definition as another host, or an older daemon, can read it: nothing of this run, nothing that is implied."""
    live = definition.copy()
    if own_cpu is not None:
        live.cpu = own_cpu
    channels = str(driver.host.paths.qemu.channel_dir(dom.id, dom.name))
    for channel in live.devices.channel:
        source = channel.source[0] if channel.source else None
        if channel.type is ChardevType.UNIX and isinstance(source, UnixSource) and _below(source.path, channels):
            channel.source = []
    devices = live.devices
    for disk in devices.disk:
        if disk.source is None and disk.driver is not None and disk.driver.type is None:
            disk.driver.type = StorageFormat.RAW  # an empty drive as a definition has it
    devices.controller = [
        one for one in sorted_controllers(devices.controller) if not _built_in(one, devices.controller)
    ]
    devices.input = [
        item for item in devices.input if not (item.type is InputType.KEYBOARD and item.bus is InputBus.PS2)
    ]
    if len(devices.audio) == 1 and devices.audio[0].type is AudioType.NONE:
        devices.audio = []
    live.seclabel = [label for label in live.seclabel if not _implied(label)]
    return live.format(VIEW)


def saved_cookie(dom: QemuDomain) -> str | None:
    """What goes beside the document: the guest's very CPU, where the document has the one that was asked for."""
    live = dom.live_def.cpu
    return Cookie(cpu=live.copy()).format(VIEW) if live is not None and dom.running.own_cpu is not None else None


async def read_document(driver: "QemuDriver", xml: str) -> DomainDef:
    """A document from an image or for one, complete. Raises XmlError and others."""
    definition = DomainDef.parse(xml)
    await driver.complete(definition, new=False)
    return definition


async def replacement(driver: "QemuDriver", before: DomainDef, xml: str) -> DomainDef:
    """A client's document that shall stand for `before`. Raises ConfigUnsupported where the guest would notice."""
    definition = await read_document(driver, xml)
    if definition.name != before.name:
        raise ConfigUnsupported(
            f"Target domain name '{definition.name}' does not match source '{before.name}'", domain=From.DOMAIN
        )
    check_abi(before, definition)
    return definition


def apply_cookie(image: Image, definition: DomainDef) -> None:
    """Give a restored guest the very CPU it had; a cookie that cannot be read says nothing."""
    if image.cookie is None:
        return
    try:
        cookie = Cookie.parse(image.cookie)
    except VirtError:
        return
    if cookie.cpu is not None:
        definition.cpu = cookie.cpu


def _below(path: str | None, folder: str) -> bool:
    return path is not None and path.startswith(f"{folder}/")


def sorted_controllers(controllers: list[Controller]) -> list[Controller]:
    """The kinds in the order in which each is first named, and by number within a kind: as a reader keeps them."""
    kinds = list(dict.fromkeys(one.type for one in controllers))
    return sorted(controllers, key=lambda one: (kinds.index(one.type), one.index or 0))


def _built_in(one: Controller, everyone: list[Controller]) -> bool:
    """Whether every pc machine has it, so that older daemons do not name it: its USB and its PCI bus."""
    if one.index != 0:
        return False
    if one.type is ControllerType.USB:
        alone = sum(other.type is ControllerType.USB for other in everyone) == 1
        return alone and one.model in (None, ControllerModel.PIIX3_UHCI)
    return one.model is ControllerModel.PCI_ROOT and one.target is None and one.pcihole64_kib is None


def _implied(label: Seclabel) -> bool:
    """Whether a start makes this label of itself."""
    return label.type is SeclabelType.DYNAMIC and label.baselabel is None and label.relabel is not False
