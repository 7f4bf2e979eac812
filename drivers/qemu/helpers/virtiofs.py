"""virtiofsd: shares one directory of the host with a guest. https://www.qemu.org/docs/master/tools/virtiofsd.html"""

import os

from pyvirtd.constants.error import ErrorDomain as From
from pyvirtd.drivers.qemu.helpers.base import Helper, Run
from pyvirtd.drivers.qemu.helpers.vhost_user import find_vhost_user
from pyvirtd.drivers.qemu.sockets import listen_socket
from pyvirtd.errors import InternalError, OperationFailed, VirtError
from pyvirtd.model.devices import Filesystem, FilesystemBinary
from pyvirtd.util.files import in_thread
from pyvirtd.util.process import Launch

SOCKET_MODE = 0o775


class Virtiofsd(Helper):
    title = "virtiofsd"
    program = "virtiofsd"

    def __init__(self, run: Run, filesystem: Filesystem) -> None:
        super().__init__(run)
        self.filesystem = filesystem
        alias = filesystem.info.alias or ""
        self.socket = run.paths.virtiofs_socket(run.number, run.name, alias)
        self.pid_file = run.paths.virtiofs_pid(run.number, run.name, alias)
        self.log_path = run.paths.virtiofs_log(run.name, alias)
        binary = filesystem.binary
        if binary is not None and binary.path:
            self.program = os.path.basename(binary.path)

    async def start(self) -> None:
        binary = self.filesystem.binary = self.filesystem.binary or FilesystemBinary()
        if not binary.path:
            binary.path = await in_thread(find_vhost_user, "fs", self.title)
            self.program = os.path.basename(binary.path)
        await in_thread(_check, self.filesystem, binary.path)
        sock = await in_thread(listen_socket, self.socket, self.run.owner, mode=SOCKET_MODE)
        with sock:
            argv = [binary.path, f"--fd={sock.fileno()}", "-o", ",".join(_options(self.filesystem, binary))]
            if binary.thread_pool is not None and binary.thread_pool >= 0:
                argv.append(f"--thread-pool-size={binary.thread_pool}")
            if binary.open_files:
                argv.append(f"--rlimit-nofile={binary.open_files}")
            if self.run.config.virtiofsd_debug:
                argv.append("-d")
            await self.launch(argv, Launch(pass_fds=[sock.fileno()]), log_path=self.log_path)

    def failure(self, words: str) -> VirtError:
        return OperationFailed(f"virtiofsd died unexpectedly: {words}", domain=From.QEMU)


def _check(filesystem: Filesystem, binary: str) -> None:
    """What can be told before the helper does. Raises InternalError."""
    source = (filesystem.source.dir if filesystem.source is not None else None) or ""
    if not os.path.exists(source):
        raise InternalError(f"the virtiofs export directory '{source}' does not exist", domain=From.QEMU)
    if not os.access(binary, os.X_OK):
        raise InternalError(f"virtiofsd binary '{binary}' is not executable", domain=From.QEMU)


def _options(filesystem: Filesystem, binary: FilesystemBinary) -> list[str]:
    """What stands behind -o. A comma within a path is written twice."""
    source = (filesystem.source.dir if filesystem.source is not None else None) or ""
    options = [f"source={source.replace(',', ',,')}"]
    if binary.cache is not None:
        options.append(f"cache={binary.cache}")
    if binary.sandbox is not None:
        options.append(f"sandbox={binary.sandbox}")
    switches = [("xattr", binary.xattr)]
    if binary.lock is not None:
        switches += [("flock", binary.lock.flock), ("posix_lock", binary.lock.posix)]
    options += [word if on else f"no_{word}" for word, on in switches if on is not None]
    return options
