"""The device and object types whose properties are kept: those where one QEMU has a property that another lacks.

A type that is not listed here answers False to `has_property`; adding one changes the cache's contents, so it also
means a new `cache.FORMAT`.
"""

_VIRTIO = ("balloon", "blk", "crypto", "gpu", "iommu", "mem", "net", "pmem", "rng", "scsi", "serial", "vsock")

DEVICES = frozenset(
    {
        *(f"virtio-{name}-pci" for name in (*_VIRTIO, "9p", "input-host", "keyboard", "mouse", "tablet")),
        *(f"virtio-{name}-ccw" for name in ("balloon", "blk", "gpu", "net", "rng", "scsi", "serial", "9p")),
        *(f"vhost-{name}-pci" for name in ("scsi", "user-blk", "user-fs", "user-gpu", "user-vsock", "vsock")),
        "ICH9-LPC", "PIIX4_PM", "VGA", "am53c974", "bochs-display", "ccid-card-emulated", "ccid-card-passthru",
        "cirrus-vga", "dc390", "e1000", "e1000e", "floppy", "fw_cfg", "hda-duplex", "hda-micro", "hda-output",
        "i8042", "ich9-ahci", "ich9-intel-hda", "ide-cd", "ide-hd", "igb", "intel-iommu", "ioh3420", "isa-fdc",
        "isa-serial", "ivshmem-doorbell", "ivshmem-plain", "kvm-pit", "lsi", "mc146818rtc", "mch", "megasas",
        "mptsas1068", "nec-usb-xhci", "nvdimm", "nvme", "pc-dimm", "pci-bridge", "pci-serial", "pcie-pci-bridge",
        "pcie-root-port", "piix3-usb-uhci", "pvpanic", "pvscsi", "pxb", "pxb-pcie", "q35-pcihost", "qemu-xhci",
        "qxl", "qxl-vga", "ramfb", "rtl8139", "scsi-block", "scsi-cd", "scsi-generic", "scsi-hd", "smmuv3",
        "tpm-crb", "tpm-tis", "usb-audio", "usb-ehci", "usb-host", "usb-net", "usb-redir", "usb-serial",
        "usb-storage", "vfio-ap", "vfio-ccw", "vfio-pci", "vhost-user-vga", "virtio-mmio", "virtio-vga",
        "virtserialport", "vmcoreinfo", "vmgenid", "vmware-svga", "vmxnet3",
    }
)  # fmt: skip

# Types that are no devices; qom-list-properties tells theirs.
OBJECTS = frozenset(
    {"iothread", "memory-backend-file", "memory-backend-memfd", "memory-backend-ram", "sev-guest", "thread-context"}
)
