"""nbdkit: reaches an image over ssh as QEMU itself cannot, with keys, an agent or known hosts that a definition names.

It runs as QEMU's user, who must be able to read these files, and serves the image at a socket in the guest's directory.
QEMU waits a while for one that comes back, so one that dies is started again.
https://libguestfs.org/nbdkit-ssh-plugin.1.html
"""

import asyncio
import struct
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

from pyvirtd.constants.error import ErrorDomain as From
from pyvirtd.drivers.qemu.command.block import is_readonly, layers_of
from pyvirtd.drivers.qemu.command.context import Context
from pyvirtd.drivers.qemu.command.firmware import PFLASH1
from pyvirtd.drivers.qemu.command.secrets import value_of
from pyvirtd.drivers.qemu.command.storage import by_nbdkit
from pyvirtd.drivers.qemu.helpers.base import Helper, Run, find_program
from pyvirtd.errors import InternalError, VirtError, from_os_error
from pyvirtd.model.domain import DomainDef
from pyvirtd.model.storage import AnySource, Auth, NetworkSource, SshIdentity
from pyvirtd.util.files import atomic_write, in_thread
from pyvirtd.util.process import Launch

OPEN_S = 30.0  # for the server to be reached and the image to be opened there
# The NBD protocol, doc/proto.md: fixed newstyle negotiation, of which only "is there an export?" is asked.
GREETING = struct.Struct(">8s8sH")
FLAGS, OPTION, REPLY = struct.Struct(">I"), struct.Struct(">8sII"), struct.Struct(">QIII")
MAGIC, HAVE_OPTIONS = b"NBDMAGIC", b"IHAVEOPT"
FIXED_NEWSTYLE, NO_ZEROES = 1, 2
OPT_ABORT, OPT_INFO = 2, 6
REP_ACK, REP_ERROR = 1, 1 << 31
DEFAULT_EXPORT = struct.pack(">IH", 0, 0)  # its name, and that nothing more is asked about it
REPLY_MAX = 1 << 16


class Served(NamedTuple):
    """An image that nbdkit serves to a guest; `node`: as QEMU's block nodes begin."""

    node: str
    source: NetworkSource
    auth: Auth | None
    readonly: bool


def served(live: DomainDef) -> Iterator[Served]:
    """Those of a guest whose block nodes have numbers."""
    for disk in live.devices.disk:
        for place, layer in enumerate(layers_of(disk)):
            readonly = place > 0 or is_readonly(disk)
            for one in (layer, layer.data):
                if one is not None and (source := _apart(one.source)) is not None:
                    yield Served(one.name, source, one.auth, readonly)
    nvram = live.os.nvram
    if nvram is not None and (source := _apart(nvram.source)) is not None:
        yield Served(PFLASH1, source, source.common.auth, readonly=False)


def _apart(source: AnySource | None) -> NetworkSource | None:
    return source if isinstance(source, NetworkSource) and by_nbdkit(source) else None


class Nbdkit(Helper):
    title = "nbdkit"
    program = "nbdkit"
    restarts = True

    def __init__(self, run: Run, served: Served) -> None:
        super().__init__(run)
        self.served = served
        self.socket = run.paths.nbdkit_file(run.number, run.name, served.node, "socket")
        self.password_file = run.paths.nbdkit_file(run.number, run.name, served.node, "password")
        self.pid_file = run.paths.nbdkit_pid(run.number, run.name, served.node)
        self.password: bytes | None = None

    def open(self, context: Context, ours: ExitStack) -> None:
        auth = self.served.auth
        if auth is not None and auth.secret is not None:
            self.password = value_of(context, auth.secret)

    def leftovers(self) -> Iterable[Path]:
        return (self.socket, self.password_file)

    async def start(self) -> None:
        binary = await in_thread(find_program, "nbdkit")
        try:
            await in_thread(self.socket.unlink, missing_ok=True)
            if self.password is not None:
                await atomic_write(self.password_file, self.password, owner=self.run.owner)
        except OSError as exc:
            raise from_os_error(exc, f"cannot make the files of nbdkit for '{self.served.source.name}'") from exc
        password = str(self.password_file) if await in_thread(self.password_file.exists) else None
        argv = [binary, *arguments(self.served, str(self.socket), password)]
        identity = self.served.source.ssh_identity
        agent = identity.agentsock if identity is not None else None
        launch = Launch(identity=self.run.identity, umask=0o077, env={"SSH_AUTH_SOCK": agent} if agent else None)
        await self.launch(argv, launch, socket=self.socket, log_path=self.run.log_path)
        await self._try()

    async def _try(self) -> None:
        """Have the image opened, which nbdkit does for a client only. Raises VirtError with its last words."""
        try:
            async with asyncio.timeout(OPEN_S):
                opened = await _opens(str(self.socket))
        except (OSError, EOFError, TimeoutError):
            opened = False
        if not opened:
            raise await self.obituary()

    def failure(self, words: str) -> VirtError:
        return InternalError(f"Failed to connect to nbdkit for '{self.served.source.name}': {words}", domain=From.QEMU)


def arguments(served: Served, socket: str, password: str | None = None) -> list[str]:
    """nbdkit's options for an image; `password`: the file that holds it."""
    source, identity = served.source, served.source.ssh_identity or SshIdentity()
    host = source.host[0]
    argv = ["--foreground", "--unix", socket, *(["--readonly"] if served.readonly else [])]
    argv += ["ssh", f"host={host.name or ''}", f"port={host.port or 22}", f"path={source.name or ''}"]
    user = (served.auth.username if served.auth is not None else None) or identity.username
    given = {
        "user": user,
        "password": f"+{password}" if password is not None else None,
        "identity": _literal(identity.keyfile),
        "known-hosts": _literal(source.known_hosts),
    }
    return argv + [f"{name}={value}" for name, value in given.items() if value]


def _literal(path: str | None) -> str | None:
    """A path in which libssh finds nothing to expand."""
    return path.replace("%", "%%") if path is not None else None


async def _opens(socket: str) -> bool:
    """An NBD server opens its default export. Raises OSError, EOFError."""
    reader, writer = await asyncio.open_unix_connection(socket)
    try:
        magic, options, _ = GREETING.unpack(await reader.readexactly(GREETING.size))
        if (magic, options) != (MAGIC, HAVE_OPTIONS):
            return False
        writer.write(FLAGS.pack(FIXED_NEWSTYLE | NO_ZEROES))
        writer.write(OPTION.pack(HAVE_OPTIONS, OPT_INFO, len(DEFAULT_EXPORT)) + DEFAULT_EXPORT)
        while True:
            _, _, kind, size = REPLY.unpack(await reader.readexactly(REPLY.size))
            if kind & REP_ERROR or size > REPLY_MAX:
                return False
            await reader.readexactly(size)
            if kind == REP_ACK:
                writer.write(OPTION.pack(HAVE_OPTIONS, OPT_ABORT, 0))
                return True
    finally:
        writer.close()
