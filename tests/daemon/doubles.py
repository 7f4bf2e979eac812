"""Drivers for the tests alone: procedures that wait, stream, pass descriptors or fail, as the test tells them to."""

import asyncio
import os
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, ClassVar

from pyvirtd.api.domain_agent import AgentPart
from pyvirtd.api.domain_device import DevicePart
from pyvirtd.api.domain_save import SavePart
from pyvirtd.api.programs import QemuPart
from pyvirtd.api.rpc import Files, Part, WithFiles, accepts
from pyvirtd.api.storage import StorageVolPart
from pyvirtd.api.types import Consent, StorageVol, StorageVolRef, Stream
from pyvirtd.constants.storage import StorageVolDownloadFlags, StorageVolUploadFlags
from pyvirtd.core.access import Access, Identity, Question, Rules
from pyvirtd.core.driver import Host
from pyvirtd.daemon.server import Server
from pyvirtd.drivers.test.driver import TestDomain, TestDriver
from pyvirtd.errors import OperationFailed

VOL = StorageVolRef("pool", "vol", "/key")
Pump = Callable[[Stream], Coroutine[Any, Any, None]]


class Volume(StorageVol):
    """Whatever volume was named."""

    def __init__(self, ref: StorageVolRef) -> None:
        self.pool, self.name, self.key = ref


class Volumes(StorageVolPart):
    """Streams: `driver.pump` moves the bytes."""

    def __init__(self, driver: "DoubleDriver") -> None:
        self.driver = driver

    def storage_vol_lookup_by_key(self, key: str) -> Volume:
        return Volume(VOL._replace(key=key))

    @accepts(StorageVolUploadFlags.SPARSE_STREAM)
    def storage_vol_upload(self, vol: Volume, offset: int, length: int, flags: int, stream: Stream) -> None:
        stream.serve(self.driver.pump(stream), reads=True)

    @accepts(StorageVolDownloadFlags.SPARSE_STREAM)
    async def storage_vol_download(self, vol: Volume, offset: int, length: int, flags: int, stream: Stream) -> None:
        stream.serve(self.driver.pump(stream), reads=False)
        await self.driver.before_answer()


class Agent(AgentPart[TestDomain]):
    """Calls that wait, and calls that fail."""

    def __init__(self, driver: "DoubleDriver") -> None:
        self.driver = driver

    @accepts(0)
    async def domain_get_hostname(self, dom: TestDomain, flags: int) -> str:
        """Answers once `driver.gate` is open."""
        self.driver.running += 1
        self.driver.most_running = max(self.driver.most_running, self.driver.running)
        try:
            await self.driver.gate.wait()
        finally:
            self.driver.running -= 1
        return dom.name

    @accepts(0)
    def domain_fstrim(self, dom: TestDomain, mount_point: str | None, minimum: int, flags: int) -> None:
        raise self.driver.failures.pop(0)

    @accepts(0)
    async def domain_set_user_password(
        self, dom: TestDomain, user: str | None, password: str | None, flags: int
    ) -> None:
        await self.driver.gate.wait()
        raise self.driver.failures.pop(0)


class Descriptors(DevicePart[TestDomain]):
    """Keeps the files it is given, and returns a pipe's ends."""

    def __init__(self, driver: "DoubleDriver") -> None:
        self.driver = driver

    @accepts(0)
    def domain_open_graphics(self, dom: TestDomain, idx: int, flags: int, files: Files) -> None:
        self.driver.received = files.take()

    @accepts(0)
    def domain_open_graphics_fd(self, dom: TestDomain, idx: int, flags: int) -> WithFiles:
        return WithFiles(None, [os.dup(fd) for fd in self.driver.given])


class Monitor(QemuPart[TestDomain]):
    """Descriptors both ways; does not take what it is given."""

    def __init__(self, driver: "DoubleDriver") -> None:
        self.driver = driver

    @accepts(0)
    async def domain_monitor_command_with_files(self, dom: TestDomain, cmd: str, flags: int, files: Files) -> WithFiles:
        answer = ",".join(os.readlink(f"/proc/self/fd/{fd}") for fd in files)
        await self.driver.gate.wait()
        if self.driver.failures:
            raise self.driver.failures.pop(0)
        return WithFiles(self.driver.result or answer, [os.dup(fd) for fd in self.driver.given])


class Images(SavePart[TestDomain]):
    """Files with documents: `driver.images`."""

    def __init__(self, driver: "DoubleDriver") -> None:
        self.driver = driver

    async def domain_restore(self, from_: str, consent: Consent) -> None:
        if from_ not in self.driver.images:
            raise await consent.unfound(OperationFailed(f"no {from_}"))
        await consent.to_document(self.driver.images[from_])
        raise OperationFailed("so far")

    @accepts(0)
    async def domain_save_image_get_xml_desc(self, file: str, flags: int, consent: Consent) -> str:
        return self.driver.images[file]  # forgets to ask


class Refusing(Access, Rules):
    """Refuses one permission; `asked` is what it was asked, by name of the object. It never answers at once."""

    def __init__(self, refused: str, *, about: str | None = None) -> None:
        self.refused = refused
        self.about = about  # the only name for which it refuses; None: for all
        self.asked: list[tuple[str, str | None]] = []
        self.gate = asyncio.Event()
        self.gate.set()

    def rules_for(self, identity: Identity, pidfd: object) -> Rules:
        return self

    def known(self, question: Question) -> bool | None:
        return None

    async def ask(self, questions: Sequence[Question]) -> list[bool]:
        await self.gate.wait()
        return [self.answer(question) for question in questions]

    def answer(self, question: Question) -> bool:
        names = [value for key, value in question.details if key.endswith("_name")]
        self.asked.append((question.permission, names[0] if names else None))
        return question.permission != self.refused or (self.about is not None and self.about not in names)


class Knowing(Refusing):
    """The same, with every answer at hand."""

    def known(self, question: Question) -> bool | None:
        return self.answer(question)


def rule(server: Server, rules: Access) -> None:
    """From now on all clients are under these rules."""
    server.access = rules
    for client in server.clients:
        client.identify(client.identity)


class DoubleDriver(TestDriver):
    """The in-memory driver with all that."""

    parts: ClassVar[tuple[type[Part], ...]] = (*TestDriver.parts, Volumes, Agent, Descriptors, Monitor, Images)
    objects: ClassVar[tuple[type, ...]] = (*TestDriver.objects, StorageVolRef)

    def __init__(self, host: Host) -> None:
        super().__init__(host)
        self.pump: Pump
        self.gate = asyncio.Event()
        self.gate.set()
        self.running = self.most_running = 0
        self.failures: list[BaseException] = []
        self.received: list[int] = []
        self.given: list[int] = []
        self.result: Any = None
        self.images: dict[str, str] = {}

    async def before_answer(self) -> None:
        """What a call that opens a stream waits for."""

    def resolve(self, ref: Any) -> Any:
        return Volume(ref) if isinstance(ref, StorageVolRef) else super().resolve(ref)
