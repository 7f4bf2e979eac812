"""qemu-pr-helper: makes SCSI persistent reservations for QEMU, which may not. docs/interop/pr-helper of QEMU"""

import os
from collections.abc import Iterable
from pathlib import Path

from pyvirtd.constants.error import ErrorDomain as From
from pyvirtd.drivers.qemu.command.block import every_layer
from pyvirtd.drivers.qemu.helpers.base import Helper, Run, require_executable
from pyvirtd.errors import OperationFailed, VirtError
from pyvirtd.model.domain import DomainDef
from pyvirtd.util.files import in_thread
from pyvirtd.util.process import Launch


class ReservationHelper(Helper):
    title = "qemu-pr-helper"
    program = "qemu-pr-helper"

    def __init__(self, run: Run) -> None:
        super().__init__(run)
        self.binary = run.config.pr_helper
        self.program = Path(self.binary).name
        self.socket = run.paths.pr_helper_socket(run.number, run.name)
        self.pid_file = run.paths.pr_helper_pid(run.number, run.name)

    def leftovers(self) -> Iterable[Path]:
        return (self.socket,)

    async def start(self) -> None:
        await in_thread(require_executable, self.binary, f"'{self.binary}' is not a suitable pr helper")
        argv = [self.binary, "-k", str(self.socket)]
        await self.launch(argv, Launch(), socket=self.socket, log_path=self.run.log_path)
        await in_thread(self._hand_over)

    def failure(self, words: str) -> VirtError:
        return OperationFailed(f"pr helper died unexpectedly: {words}", domain=From.QEMU)

    def _hand_over(self) -> None:
        owner = self.run.owner
        if owner is not None:
            os.chown(self.socket, owner.uid, owner.gid, follow_symlinks=False)


def wants_reservations(live: DomainDef) -> bool:
    """Some disk has reservations that we are to look after."""
    reservations = [layer.source.common.reservations for disk in live.devices.disk for layer in every_layer(disk)]
    return any(one is not None and bool(one.managed) for one in reservations)
