"""The list of controllers: finding, adding, numbering, and each type's default model."""

from collections.abc import Callable, Hashable, Iterable, Iterator
from typing import TypeVar

from pyvirtd.constants.error import ErrorDomain
from pyvirtd.drivers.qemu.postparse.scope import Scope
from pyvirtd.errors import ConfigUnsupported, XmlError
from pyvirtd.model.address import DriveAddress
from pyvirtd.model.devices import Controller, ControllerModel, ControllerType, Devices
from pyvirtd.model.devices import ControllerModel as Model
from pyvirtd.model.devices import ControllerType as Type
from pyvirtd.model.hostdev import HostdevType

T = TypeVar("T")

MAX_IMPLICIT = 255  # a drive's address makes no more controllers than that
VIRTIO_SCSI = (Model.VIRTIO_SCSI, Model.VIRTIO, Model.VIRTIO_TRANSITIONAL, Model.VIRTIO_NON_TRANSITIONAL)
ICH9_COMPANIONS = (Model.ICH9_UHCI1, Model.ICH9_UHCI2, Model.ICH9_UHCI3)


def of_type(devices: Devices, kind: ControllerType) -> Iterator[Controller]:
    return (controller for controller in devices.controller if controller.type is kind)


def find(devices: Devices, kind: ControllerType, index: int) -> Controller | None:
    """The controller with that number; of several (USB companions) the first."""
    return next((c for c in of_type(devices, kind) if c.index == index), None)


def ensure(devices: Devices, kind: ControllerType, index: int, model: ControllerModel | None = None) -> Controller:
    """The controller with that number, added at the end of the list where there is none."""
    found = find(devices, kind, index)
    if found is None:
        found = Controller(type=kind, index=index, model=model)
        devices.controller.append(found)
    return found


def fill(devices: Devices, kind: ControllerType, numbers: Iterable[int]) -> None:
    """Every controller up to the highest of `numbers`; what lies beyond MAX_IMPLICIT is for validation to refuse."""
    for index in range(min(max(numbers, default=-1), MAX_IMPLICIT) + 1):
        ensure(devices, kind, index)


def highest(devices: Devices, kind: ControllerType) -> int:
    """The highest number of that type; -1 where there is none."""
    return max((c.index or 0 for c in of_type(devices, kind)), default=-1)


def grouped(items: Iterable[T], group_of: Callable[[T], Hashable]) -> list[list[T]]:
    """The items by group, the groups in the order of their first items."""
    groups: dict[Hashable, list[T]] = {}
    for item in items:
        groups.setdefault(group_of(item), []).append(item)
    return list(groups.values())


def number_controllers(scope: Scope) -> None:
    """Numbers and the order of the controllers that the definition names; those added later stand behind."""
    devices = scope.devices
    _add_scsi_of_hostdevs(devices)
    groups = grouped(devices.controller, lambda controller: controller.type)
    devices.controller = [controller for group in groups for controller in _in_order(group)]
    for controller in devices.controller:
        if controller.index is None:
            controller.index = _free_index(devices, controller)


def _add_scsi_of_hostdevs(devices: Devices) -> None:
    """Controllers of SCSI host devices stand before those that are added later."""
    numbers = [
        hostdev.info.address.controller if isinstance(hostdev.info.address, DriveAddress) else 0
        for hostdev in devices.hostdev
        if hostdev.type is HostdevType.SCSI
    ]
    fill(devices, Type.SCSI, numbers)


def complete_controllers(scope: Scope) -> None:
    """The models that the definition left open."""
    for controller in scope.devices.controller:
        complete_controller(scope, controller)


def _in_order(group: list[Controller]) -> list[Controller]:
    """Controllers of one type in libvirt's order: each stands before the first that comes after it, else at the end."""
    ordered: list[Controller] = []
    highest_yet = -1
    for controller in group:
        place = len(ordered)
        if controller.index is not None and controller.index <= highest_yet:
            place = next((place for place, other in enumerate(ordered) if _goes_after(other, controller)), place)
        ordered.insert(place, controller)
        highest_yet = max(highest_yet, controller.index or 0)
    return ordered


def _goes_after(present: Controller, new: Controller) -> bool:
    """A USB master is listed before its companions; one without a number goes to the end of its type."""
    if new.index is None:
        return False
    if present.index == new.index:
        return present.info.master is not None and new.info.master is None
    return (present.index or 0) > new.index


def _free_index(devices: Devices, new: Controller) -> int:
    """A companion takes the number of its EHCI controller, others the lowest free one of their type."""
    if new.type is Type.USB and new.model in ICH9_COMPANIONS:
        for other in of_type(devices, Type.USB):
            if other.model is Model.ICH9_EHCI1 and other.index is not None:
                if not any(c.model is new.model and c.index == other.index for c in of_type(devices, Type.USB)):
                    return other.index
    used = {c.index for c in of_type(devices, new.type)}
    return next(number for number in range(len(used) + 1) if number not in used)


def complete_controller(scope: Scope, controller: Controller) -> None:
    """The model, and what follows from it."""
    match controller.type:
        case Type.USB:
            if controller.model is None and not (scope.board.s390 and controller.info.address is not None):
                controller.model = default_usb_model(scope)
            if controller.model in ICH9_COMPANIONS and controller.info.master is None:
                controller.info.master = ICH9_COMPANIONS.index(controller.model) * 2
        case Type.SCSI:
            if controller.model in (None, Model.AUTO):
                controller.model = default_scsi_model(scope)
        case Type.PCI:
            _check_pci(scope, controller)
        case _:
            pass


def _check_pci(scope: Scope, controller: Controller) -> None:
    """What would leave a bus without a place, or two places."""
    board, model = scope.board, controller.model
    if model is Model.PCI_EXPANDER_BUS and not board.i440fx:
        raise ConfigUnsupported(
            "pci-expander-bus controllers are only supported on 440fx-based machinetypes", domain=ErrorDomain.QEMU
        )
    if model is Model.PCIE_EXPANDER_BUS and not (board.q35 or board.arm_virt):
        raise ConfigUnsupported(
            "pcie-expander-bus controllers are not supported with this machine type", domain=ErrorDomain.QEMU
        )
    if controller.index and model in (Model.PCI_ROOT, Model.PCIE_ROOT) and not board.pseries:
        raise XmlError("pci-root and pcie-root controllers should have index 0", domain=ErrorDomain.QEMU)
    if model not in (Model.PCI_ROOT, Model.PCIE_ROOT):
        controller.pcihole64_kib = None
    elif controller.info.address is not None:
        raise ConfigUnsupported(
            "pci-root and pcie-root controllers should not have an address", domain=ErrorDomain.DOMAIN
        )
    if controller.index is not None and controller.index > 255:
        raise ConfigUnsupported(
            f"PCI controller index {controller.index} too high, maximum is 255", domain=ErrorDomain.DOMAIN
        )


def default_usb_model(scope: Scope) -> ControllerModel | None:
    """A model every guest of the architecture knows; a new definition may get a better one."""
    board, caps = scope.board, scope.caps
    if board.s390:
        return Model.NONE
    if board.ppc64:
        if scope.new and caps.has_device("qemu-xhci"):
            return Model.QEMU_XHCI
        return Model.PCI_OHCI if caps.has_device("pci-ohci") else None
    if board.arch == "aarch64":
        return next((m for m in (Model.QEMU_XHCI, Model.NEC_XHCI) if caps.has_device(_XHCI[m])), None)
    return Model.PIIX3_UHCI if caps.has_device("piix3-usb-uhci") else None


_XHCI = {Model.QEMU_XHCI: "qemu-xhci", Model.NEC_XHCI: "nec-usb-xhci"}


def default_scsi_model(scope: Scope) -> ControllerModel:
    """The controller that the board's firmware can boot from."""
    if scope.board.pseries:
        return Model.IBMVSCSI
    if scope.board.s390:
        return Model.VIRTIO_SCSI
    if scope.caps.has_device("lsi") or scope.caps.has_device("lsi53c895a"):
        return Model.LSILOGIC
    return Model.VIRTIO_SCSI
