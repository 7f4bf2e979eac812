"""Small devices: cryptography, and the store that outlives a guest's crash."""

from pyvirtd.drivers.qemu.command.address import put_address, put_virtio, virtio_driver
from pyvirtd.drivers.qemu.command.context import Builder, NewFile, Props

PSTORE_SIZE_KIB = 64  # QEMU's own


def build_cryptos(build: Builder) -> None:
    """Cards that encrypt for the guest"""
    for crypto in build.definition.devices.crypto:
        alias, backend = crypto.info.alias, crypto.backend
        done_by = Props({"qom-type": f"cryptodev-backend-{backend.model if backend else 'builtin'}"})
        build.object(done_by.put("id", f"obj{alias}").put("queues", (backend.queues if backend else None) or None))
        props = Props(driver=virtio_driver(build, "virtio-crypto", crypto))
        put_virtio(props, crypto.driver.virtio if crypto.driver else None)
        props.put("cryptodev", f"obj{alias}").put("id", alias)
        put_address(build, props, crypto.info)
        build.device(props)


def build_pstore(build: Builder) -> None:
    """Where a guest's kernel leaves its last words"""
    pstore = build.definition.devices.pstore
    if pstore is None:
        return
    alias = pstore.info.alias
    pstore.path = pstore.path or str(build.context.paths.nvram / f"{build.definition.name}_PSTORE.raw")
    build.command.files.append(NewFile(pstore.path, keep=True))
    memory = Props({"qom-type": "memory-backend-file", "id": f"mem{alias}", "mem-path": pstore.path})
    build.object(memory.put("share", True).put("size", (pstore.size_kib or PSTORE_SIZE_KIB) * 1024))
    props = Props(driver=str(pstore.backend), id=alias).put("memdev", f"mem{alias}")
    put_address(build, props, pstore.info)
    build.device(props)
