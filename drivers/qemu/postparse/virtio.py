"""Rules that all virtio devices share."""

from pyvirtd.drivers.qemu.postparse.refuse import unsupported
from pyvirtd.model.address import VirtioOptions


def check_virtio_options(options: VirtioOptions | None) -> None:
    """For devices that are not virtio: none of its options."""
    if options is None:
        return
    for word, value in (("iommu", options.iommu), ("ats", options.ats), ("packed", options.packed)):
        if value is not None:
            raise unsupported(f"{word} driver option is only supported for virtio devices")
    if options.page_per_vq is not None:
        raise unsupported("page_per_vq option is only supported for virtio devices")
