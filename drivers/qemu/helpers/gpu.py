"""vhost-user-gpu: draws what a guest's virtio card shows, beside QEMU. https://www.qemu.org/docs/master/interop/vhost-user-gpu.html

QEMU and the program share a pair of sockets; the program ends when QEMU's is closed.
"""

import json
import socket
from collections.abc import Iterator
from contextlib import ExitStack

from pyvirtd.constants.error import ErrorDomain as From
from pyvirtd.drivers.qemu.command.context import Context
from pyvirtd.drivers.qemu.helpers.base import Helper, Run
from pyvirtd.drivers.qemu.helpers.vhost_user import programs
from pyvirtd.drivers.qemu.host_devices import render_node
from pyvirtd.errors import InternalError, OperationFailed, VirtError
from pyvirtd.model.domain import DomainDef
from pyvirtd.model.graphics import Acceleration, Video, VideoBackend
from pyvirtd.util.files import in_thread
from pyvirtd.util.process import Launch, run

ASK_S = 10.0  # for the program to say what it can
VIRGL, RENDER_NODE = "virgl", "render-node"  # features, docs/interop/vhost-user.json


class VhostUserGpu(Helper):
    title = "vhost-user-gpu"
    program = "vhost-user-gpu"

    def __init__(self, run: Run, video: Video) -> None:
        super().__init__(run)
        self.video = video
        self.pid_file = run.paths.vhost_user_gpu_pid(run.number, run.name, video.info.alias or "")

    def open(self, context: Context, ours: ExitStack) -> None:
        """The two ends: QEMU's, and the one that `start` gives the program."""
        theirs, self._own = (ours.enter_context(end) for end in socket.socketpair())
        context.vhost_user[self.video.info.alias or ""] = theirs.fileno()

    async def start(self) -> None:
        acceleration = _acceleration(self.video)
        binary, features = await _choose(acceleration)
        if acceleration.accel3d and not acceleration.rendernode and RENDER_NODE in features:
            acceleration.rendernode = await in_thread(render_node)
        argv = [binary, f"--fd={self._own.fileno()}"]
        argv += ["--virgl"] if acceleration.accel3d else []
        argv += [f"--render-node={acceleration.rendernode}"] if acceleration.rendernode else []
        launch = Launch(pass_fds=[self._own.fileno()], identity=self.run.identity)
        await self.launch(argv, launch, log_path=self.run.log_path)
        self._own.close()  # or the program would not see its own end

    def failure(self, words: str) -> VirtError:
        return InternalError(f"vhost-user-gpu of '{self.video.info.alias}' ended: {words}", domain=From.QEMU)


def drawn_apart(live: DomainDef) -> Iterator[Video]:
    """The cards that a program beside QEMU draws."""
    for video in live.devices.video:
        if video.driver is not None and video.driver.name is VideoBackend.VHOSTUSER:
            yield video


def _acceleration(video: Video) -> Acceleration:
    model = video.model
    if model is None or model.acceleration is None:
        return Acceleration()
    return model.acceleration


async def _choose(wanted: Acceleration) -> tuple[str, set[str]]:
    """The first program that can what is wanted, and all that it can. Raises OperationFailed."""
    needs = {VIRGL} if wanted.accel3d else set()
    needs |= {RENDER_NODE} if wanted.rendernode else set()
    for binary in await in_thread(programs, "gpu"):
        features = await _features(binary)
        if features is not None and needs <= features:
            return binary, features
    raise OperationFailed("Unable to find a satisfying vhost-user-gpu", domain=From.QEMU)


async def _features(binary: str) -> set[str] | None:
    """What a program says that it can; None for one that is of no use."""
    try:
        result = await run([binary, "--print-capabilities"], timeout=ASK_S)
        answer = json.loads(result.stdout)
        return set(map(str, answer.get("features", ())))
    except (OSError, ValueError, AttributeError, TypeError, VirtError):
        return None
