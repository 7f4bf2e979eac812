"""Rules of controllers: which a board can have, and what each may be told."""

from pyvirtd.drivers.qemu.addresses.usb import usb_devices
from pyvirtd.drivers.qemu.postparse.controllers import ICH9_COMPANIONS, VIRTIO_SCSI
from pyvirtd.drivers.qemu.postparse.processor import numa_cells
from pyvirtd.drivers.qemu.postparse.refuse import detail, qemu_unsupported, qemu_xml, unsupported, xml
from pyvirtd.drivers.qemu.postparse.scope import Scope
from pyvirtd.drivers.qemu.validate.processor import thread_ids
from pyvirtd.model.address import PciAddress
from pyvirtd.model.devices import Controller, ControllerDriver, PciControllerName
from pyvirtd.model.devices import ControllerModel as Model
from pyvirtd.model.devices import ControllerType as Type
from pyvirtd.model.graphics import InputBus
from pyvirtd.model.hostdev import HostdevType

_ROOTS = (Model.PCI_ROOT, Model.PCIE_ROOT)
XHCI_PORTS_MAX = 15
MEM_RESERVE_MAX_KIB = (2**64 - 1) // 1024  # QEMU counts bytes in 64 bits
_SCSI_DEVICES = {
    Model.LSILOGIC: ("lsi53c895a", "LSI 53C895A SCSI controller"),
    Model.LSISAS1068: ("mptsas1068", "LSI SAS1068 (MPT Fusion) controller"),
    Model.LSISAS1078: ("megasas", "LSI SAS1078 controller"),
}
# Which device QEMU has for each model.
_PCI_NAMES: dict[Model, tuple[PciControllerName, ...]] = {
    Model.PCI_BRIDGE: (PciControllerName.PCI_BRIDGE,),
    Model.DMI_TO_PCI_BRIDGE: (PciControllerName.I82801B11_BRIDGE,),
    Model.PCIE_TO_PCI_BRIDGE: (PciControllerName.PCIE_PCI_BRIDGE,),
    Model.PCIE_ROOT_PORT: (PciControllerName.IOH3420, PciControllerName.PCIE_ROOT_PORT),
    Model.PCIE_SWITCH_UPSTREAM_PORT: (PciControllerName.X3130_UPSTREAM,),
    Model.PCIE_SWITCH_DOWNSTREAM_PORT: (PciControllerName.XIO3130_DOWNSTREAM,),
    Model.PCI_EXPANDER_BUS: (PciControllerName.PXB,),
    Model.PCIE_EXPANDER_BUS: (PciControllerName.PXB_PCIE,),
    Model.PCI_ROOT: (PciControllerName.SPAPR_PCI_HOST_BRIDGE, PciControllerName.PCI_HOST),
    Model.PCIE_ROOT: (PciControllerName.PCI_HOST,),
}
_PORTS = (Model.PCIE_ROOT_PORT, Model.PCIE_SWITCH_DOWNSTREAM_PORT)
_EXPANDERS = (Model.PCI_EXPANDER_BUS, Model.PCIE_EXPANDER_BUS)
# Which models each part of <target> is for, besides host bridges of pseries.
_OPTIONS: tuple[tuple[str, str, tuple[Model, ...]], ...] = (
    ("chassis_nr", "chassisNr", (Model.PCI_BRIDGE,)),
    ("chassis", "chassis", _PORTS),
    ("port", "port", _PORTS),
    ("bus_nr", "busNr", _EXPANDERS),
    ("mem_reserve_kib", "memReserve", (Model.PCI_BRIDGE, Model.PCIE_ROOT_PORT)),
    ("hotplug", "hotplug", (*_PORTS, Model.PCIE_SWITCH_UPSTREAM_PORT)),
)


def check_controllers(scope: Scope) -> None:
    """Every controller, and that no two are the same."""
    seen: set[tuple[Type, int]] = set()
    for controller in scope.devices.controller:
        key = (controller.type, controller.index or 0)
        if key in seen and controller.type is not Type.USB:
            raise xml(f"Multiple '{controller.type}' controllers with index '{controller.index}'")
        seen.add(key)
    _check_usb_masters(scope)
    for controller in scope.devices.controller:
        _check_common(scope, controller)
        match controller.type:
            case Type.PCI:
                _check_pci(scope, controller)
            case Type.USB:
                _check_usb(controller)
            case Type.IDE:
                _check_ide(scope, controller)
            case Type.SATA if not scope.caps.has_device("ich9-ahci") and not scope.caps.has_device("ahci"):
                raise qemu_unsupported("SATA is not supported with this QEMU binary")
            case Type.SCSI:
                _check_scsi(scope, controller)
            case _:
                pass


def _check_common(scope: Scope, controller: Controller) -> None:
    driver = controller.driver or ControllerDriver()
    scsi = controller.type is Type.SCSI and controller.model in VIRTIO_SCSI
    if driver.iothread is not None:
        if not scsi:
            raise xml("'iothread' attribute only supported for virtio scsi controllers")
        if driver.iothread not in thread_ids(scope.definition):
            raise qemu_unsupported(f"controller iothread '{driver.iothread}' not defined in iothreadid")
    if not scsi:
        for name in ("queues", "cmd_per_lun", "max_sectors", "ioeventfd"):
            value = getattr(driver, name)
            if value is not None and (value or name == "ioeventfd"):
                raise qemu_unsupported(f"'{name}' is only supported by virtio-scsi controller")


def _check_ide(scope: Scope, controller: Controller) -> None:
    if not scope.board.builtin_ide:
        raise qemu_unsupported("IDE controllers are unsupported for this QEMU binary or machine type")
    if controller.index:
        raise qemu_unsupported("Only a single IDE controller is supported for this machine type")


# USB


def _check_usb_masters(scope: Scope) -> None:
    """Companions need their EHCI controller; a guest without USB has no USB devices."""
    usb = [controller for controller in scope.devices.controller if controller.type is Type.USB]
    off = any(controller.model is Model.NONE and not controller.index for controller in usb)
    if off and len(usb) > 1:
        raise detail("Can't add another USB controller: USB is disabled for this domain")
    if off:
        _check_no_usb(scope)
    firsts = [controller.index for controller in usb if controller.model not in ICH9_COMPANIONS]
    if len(firsts) != len(set(firsts)):
        doubled = next(index for index in firsts if firsts.count(index) > 1)
        raise xml(f"Duplicate USB controllers with index {doubled}")
    first = [controller for controller in usb if controller.index == 0]
    if first and all(controller.info.master is not None for controller in first):
        raise detail("No master USB controller specified")


def _check_no_usb(scope: Scope) -> None:
    devices = scope.devices
    if any(hostdev.type is HostdevType.USB for hostdev in devices.hostdev):
        raise unsupported("Can't add host USB device: USB is disabled in this host")
    if devices.hub:
        raise unsupported("Can't add USB hub: USB is disabled for this domain")
    if any(one.bus is InputBus.USB for one in devices.input):
        raise unsupported("Can't add USB input device. USB bus is disabled")


def check_usb_users(scope: Scope) -> None:
    """USB devices need a bus."""
    if any(controller.type is Type.USB for controller in scope.devices.controller):
        usable = any(c.model not in (None, Model.NONE) for c in scope.devices.controller if c.type is Type.USB)
    else:
        usable = not (scope.board.pcie or scope.board.s390)
    if not usable and (scope.devices.hub or any(True for _ in usb_devices(scope.devices))):
        raise qemu_unsupported("USB is disabled for this domain, but USB devices are present in the domain XML")


def _check_usb(controller: Controller) -> None:
    if controller.model in (Model.QUSB1, Model.QUSB2):
        raise qemu_unsupported("USB controller model type 'qusb1' or 'qusb2' is not supported in qemu")
    if controller.ports is not None and controller.model in (Model.NEC_XHCI, Model.QEMU_XHCI):
        if controller.ports > XHCI_PORTS_MAX:
            raise qemu_unsupported(f"'{controller.model}' controller only supports up to '{XHCI_PORTS_MAX}' ports")


# SCSI


def _check_scsi(scope: Scope, controller: Controller) -> None:
    device, words = _SCSI_DEVICES.get(controller.model or Model.AUTO, ("", ""))
    if device and not scope.caps.has_device(device):
        raise qemu_unsupported(f"This QEMU doesn't support the {words}")
    match controller.model:
        case Model.BUSLOGIC:
            raise qemu_unsupported(f"Unsupported controller model: {controller.model}")
        case Model.NCR53C90:
            raise qemu_unsupported("ncr53c90 SCSI controller is not a built-in for this machine")
        case _:
            pass


# PCI


def _check_pci(scope: Scope, controller: Controller) -> None:
    model, index = controller.model, controller.index or 0
    assert model is not None
    if model is Model.PCIE_ROOT and index:
        raise qemu_unsupported("Index for 'pcie-root' controllers must be 0")
    address = controller.info.address
    if model is Model.PCI_BRIDGE and isinstance(address, PciAddress) and address.bus >= index:
        raise qemu_unsupported(
            f"PCI controller at index {index} (0x{index:02x}) has bus='0x{address.bus:02x}', but index must be larger "
            "than bus"
        )
    _check_target_range(controller)
    _check_name(scope, controller, model)
    _check_options(scope, controller, model)
    _check_node(scope, controller, model)


def _check_target_range(controller: Controller) -> None:
    target = controller.target
    if target is None:
        return
    limits = (("chassis_nr", "chassisNr", 1, 255), ("chassis", "chassis", 0, 255), ("port", "port", 0, 255),
              ("bus_nr", "busNr", 1, 254), ("index", "target index", 0, 30),
              ("mem_reserve_kib", "memReserve", 0, MEM_RESERVE_MAX_KIB))  # fmt: skip
    for name, word, low, high in limits:
        value = getattr(target, name)
        if value is not None and not low <= value <= high:
            raise unsupported(f"PCI controller {word} '{value}' out of range - must be {low}-{high}")
    if target.index is not None and (target.index == 0) != (controller.index == 0):
        raise unsupported("Only the PCI controller with index 0 can have target index 0, and vice versa")


def _place(controller: Controller) -> str:
    name = controller.pci_model or "none"
    return f"PCI controller with index '{controller.index}', model '{controller.model}' and modelName '{name}'"


def _check_name(scope: Scope, controller: Controller, model: Model) -> None:
    if controller.pci_model is not None and controller.pci_model not in _PCI_NAMES[model]:
        raise qemu_unsupported(f"Option 'modelName' has invalid value for {_place(controller)}")


def _check_options(scope: Scope, controller: Controller, model: Model) -> None:
    target = controller.target
    for name, word, models in _OPTIONS:
        if target is not None and getattr(target, name) is not None and model not in models:
            raise qemu_unsupported(f"Option '{word}' is not valid for {_place(controller)}")
    if target is not None and target.mem_reserve_kib and controller.pci_model is PciControllerName.IOH3420:
        raise qemu_unsupported(f"Option 'memReserve' is not valid for {_place(controller)}")
    if target is not None and target.index is not None and not (scope.board.pseries and model is Model.PCI_ROOT):
        raise qemu_unsupported(f"Option 'targetIndex' is not valid for {_place(controller)}")


def _check_node(scope: Scope, controller: Controller, model: Model) -> None:
    node = controller.target.node if controller.target is not None else None
    if node is None:
        return
    cells = numa_cells(scope.definition)
    if node >= cells:
        raise qemu_xml(
            f"{model} with index {controller.index} is configured for a NUMA node ({node}) not present in the domain's "
            f"<cpu><numa> array ({cells})"
        )
    if model not in (*_EXPANDERS, Model.PCI_ROOT):
        raise qemu_unsupported(f"Option 'numaNode' is not valid for {_place(controller)}")
