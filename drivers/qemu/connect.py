"""What a connection to the QEMU driver answers about itself: versions, capabilities, documents turned into argv."""

from typing import TYPE_CHECKING

from pyvirtd.api.connect import ConnectPart
from pyvirtd.api.rpc import accepts
from pyvirtd.core.host import kvm_max_vcpus
from pyvirtd.drivers.qemu.command import standalone, to_native
from pyvirtd.errors import InternalError, InvalidArg
from pyvirtd.model.domain import DomainDef
from pyvirtd.util.files import in_thread

if TYPE_CHECKING:
    from pyvirtd.drivers.qemu.driver import QemuDriver

# libvirt's answer for each hypervisor type that its clients ask about.
MAX_VCPUS = {None: 16, "qemu": 16, "kqemu": 1}


class Connect(ConnectPart):
    """The connection procedures."""

    def __init__(self, driver: "QemuDriver") -> None:
        self.driver = driver

    def connect_get_type(self) -> str:
        return "QEMU"

    async def connect_get_version(self) -> int:
        """The version of the host architecture's QEMU: major * 1,000,000 + minor * 1,000 + release."""
        native = await self.driver.documents.native()
        if native is None:
            raise InternalError("Cannot find suitable emulator for this host")
        return native.version

    async def connect_get_hostname(self) -> str:
        return await self.driver.host.info.hostname()

    def connect_get_max_vcpus(self, type: str | None) -> int:
        word = type.lower() if type is not None else None
        if word == "kvm":
            return kvm_max_vcpus()
        if word not in MAX_VCPUS:
            raise InvalidArg(f"unknown type '{type}'")
        return MAX_VCPUS[word]

    async def connect_get_capabilities(self) -> str:
        return await self.driver.documents.host_xml()

    @accepts(0)
    async def connect_get_domain_capabilities(
        self, emulatorbin: str | None, arch: str | None, machine: str | None, virttype: str | None, flags: int
    ) -> str:
        used = {dom.config.devices.emulator or "" for dom in self.driver.domains}
        return await self.driver.documents.domain_xml(emulatorbin, arch, machine, virttype, used)

    @accepts(0)
    async def connect_get_sysinfo(self, flags: int) -> str:
        return (await self.driver.host.info.sysinfo()).format()

    @accepts(0)
    async def connect_domain_xml_to_native(self, native_format: str, domain_xml: str, flags: int) -> str:
        if native_format != "qemu-argv":
            raise InvalidArg(f"unsupported config type {native_format}")
        driver = self.driver
        definition = DomainDef.parse(domain_xml)
        caps = await driver.complete(definition)
        driver.check(definition, caps)
        paths, privileged = driver.host.paths.qemu, driver.host.privileged
        command = await in_thread(
            standalone,
            definition,
            caps,
            driver.config,
            paths,
            privileged=privileged,
            host_arch=driver.arch,
            sysinfo=await driver.shown_sysinfo(definition),
        )
        return to_native(command)
