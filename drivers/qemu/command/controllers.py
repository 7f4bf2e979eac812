"""Controllers and hubs."""

from pyvirtd.constants.error import ErrorDomain
from pyvirtd.drivers.qemu.command.address import on_off, put_address, put_virtio, virtio_driver
from pyvirtd.drivers.qemu.command.boot import BootOrder
from pyvirtd.drivers.qemu.command.context import Builder, Props
from pyvirtd.drivers.qemu.command.disks import build_floppy_controller
from pyvirtd.drivers.qemu.postparse.controllers import VIRTIO_SCSI, find, of_type
from pyvirtd.errors import ConfigUnsupported
from pyvirtd.model.devices import Controller
from pyvirtd.model.devices import ControllerModel as Model
from pyvirtd.model.devices import ControllerType as Type

# What is created first others may sit on.
_ORDER = (Type.PCI, Type.USB, Type.SCSI, Type.IDE, Type.SATA, Type.VIRTIO_SERIAL, Type.CCID)
_USB = {
    Model.PIIX3_UHCI: "piix3-usb-uhci",
    Model.PIIX4_UHCI: "piix4-usb-uhci",
    Model.EHCI: "usb-ehci",
    Model.ICH9_EHCI1: "ich9-usb-ehci1",
    Model.ICH9_UHCI1: "ich9-usb-uhci1",
    Model.ICH9_UHCI2: "ich9-usb-uhci2",
    Model.ICH9_UHCI3: "ich9-usb-uhci3",
    Model.VT82C686B_UHCI: "vt82c686b-usb-uhci",
    Model.PCI_OHCI: "pci-ohci",
    Model.NEC_XHCI: "nec-usb-xhci",
    Model.QEMU_XHCI: "qemu-xhci",
}
_SCSI = {
    Model.LSILOGIC: "lsi",
    Model.IBMVSCSI: "spapr-vscsi",
    Model.LSISAS1068: "mptsas1068",
    Model.LSISAS1078: "megasas",
    Model.VMPVSCSI: "pvscsi",
    Model.AM53C974: "am53c974",
    Model.DC390: "dc-390",
}
_WITHOUT_PORTS = (Model.NEC_XHCI, Model.QEMU_XHCI)


def build_controllers(build: Builder, order: BootOrder) -> None:
    """-device of every controller that is not part of the board"""
    for kind in _ORDER:
        for controller in build.definition.devices.controller:
            if controller.type is not kind or is_builtin(build, controller):
                continue
            props = controller_props(build, controller)
            if props is not None:
                build.device(props)
    build_floppy_controller(build, order)
    board = build.board
    if not (board.pcie or board.s390) and not any(of_type(build.definition.devices, Type.USB)):
        build.command.add("-usb")


def build_pci_hole(build: Builder) -> None:
    """The size of the window for 64-bit PCI memory"""
    for controller in build.definition.devices.controller:
        if controller.type is Type.PCI and controller.pcihole64_kib is not None:
            host = "q35-pcihost" if controller.model is Model.PCIE_ROOT else "i440FX-pcihost"
            build.command.add("-global", f"{host}.pci-hole64-size={controller.pcihole64_kib}K")


def is_builtin(build: Builder, controller: Controller) -> bool:
    """QEMU creates it with the board."""
    board, index = build.board, controller.index or 0
    match controller.type:
        case Type.PCI:
            return controller.model is Model.PCIE_ROOT or (controller.model is Model.PCI_ROOT and index == 0)
        case Type.SATA:
            return index == 0 and board.q35
        case Type.IDE:
            return index == 0 and board.builtin_ide
        case Type.USB:
            return controller.model in (None, Model.NONE)
        case Type.FDC:
            return True
        case _:
            return False


def controller_props(build: Builder, controller: Controller) -> Props | None:
    """The device of one controller."""
    match controller.type:
        case Type.PCI:
            props = _pci(build, controller)
        case Type.USB:
            props = _usb(build, controller)
        case Type.SCSI:
            props = _scsi(build, controller)
        case Type.VIRTIO_SERIAL:
            props = Props(driver=virtio_driver(build, "virtio-serial", controller, _virtio_model(controller)))
            put_virtio(props, controller.driver.virtio if controller.driver else None)
            props.put("id", controller.info.alias)
            props.put("max_ports", controller.ports).put("vectors", controller.vectors)
        case Type.SATA:
            props = Props(driver="ahci", id=controller.info.alias)
        case Type.CCID:
            props = Props(driver="usb-ccid", id=controller.info.alias)
        case Type.IDE:
            raise ConfigUnsupported("Only a single IDE controller is supported for this machine type",
                                    domain=ErrorDomain.QEMU)  # fmt: skip
        case _:
            return None
    put_address(build, props, controller.info)
    return props


def _virtio_model(controller: Controller) -> Model | None:
    return controller.model if controller.model in VIRTIO_SCSI else None


def _pci(build: Builder, controller: Controller) -> Props:
    target, alias = controller.target, controller.info.alias
    props = Props(driver=str(controller.pci_model))
    match controller.model:
        case Model.PCI_ROOT:
            props.put("index", target.index if target else None).put("id", alias)
            if target is not None:
                props.put("numa_node", target.node)
        case Model.PCI_BRIDGE:
            props.put("chassis_nr", target.chassis_nr if target else None).put("id", alias)
        case Model.PCI_EXPANDER_BUS | Model.PCIE_EXPANDER_BUS:
            props.put("bus_nr", target.bus_nr if target else None).put("id", alias)
            props.put("numa_node", target.node if target else None)
        case Model.PCIE_ROOT_PORT | Model.PCIE_SWITCH_DOWNSTREAM_PORT:
            props.put("port", target.port if target else None).put("chassis", target.chassis if target else None)
            props.put("id", alias)
            props.put("hotplug", target.hotplug if target else None)
        case _:
            props.put("id", alias)
    if target is not None and target.mem_reserve_kib:
        props.put("mem-reserve", target.mem_reserve_kib * 1024)
    return props


def _usb(build: Builder, controller: Controller) -> Props:
    assert controller.model is not None
    props = Props(driver=_USB.get(controller.model, str(controller.model)))
    if controller.model in _WITHOUT_PORTS and controller.ports is not None:
        props.put("p2", controller.ports).put("p3", controller.ports)
    if controller.info.master is None:
        return props.put("id", controller.info.alias)
    master = find(build.definition.devices, Type.USB, controller.index or 0)
    alias = master.info.alias if master else "usb"
    return props.put("masterbus", f"{alias}.0").put("firstport", controller.info.master)


def _scsi(build: Builder, controller: Controller) -> Props:
    driver = controller.driver
    if controller.model in VIRTIO_SCSI:
        model = None if controller.model is Model.VIRTIO_SCSI else controller.model
        props = Props(driver=virtio_driver(build, "virtio-scsi", controller, model))
        if driver is not None and driver.iothread:
            props.put("iothread", f"iothread{driver.iothread}")
        put_virtio(props, driver.virtio if driver else None)
    else:
        props = Props(driver=_SCSI.get(controller.model, str(controller.model)) if controller.model else "lsi")
    props.put("id", controller.info.alias)
    if driver is not None:
        props.put("num_queues", driver.queues or None).put("cmd_per_lun", driver.cmd_per_lun or None)
        props.put("max_sectors", driver.max_sectors or None).put("ioeventfd", driver.ioeventfd)
    return props


def build_hubs(build: Builder) -> None:
    """USB hubs"""
    for hub in build.definition.devices.hub:
        props = Props(driver="usb-hub", id=hub.info.alias)
        put_address(build, props, hub.info)
        build.device(props)


__all__ = ["build_controllers", "on_off"]
