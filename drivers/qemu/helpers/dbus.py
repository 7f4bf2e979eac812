"""A D-Bus daemon of a guest's own, through which its display is reached. https://dbus.freedesktop.org"""

from collections.abc import Iterable
from pathlib import Path

from pyvirtd.constants.error import ErrorDomain as From
from pyvirtd.drivers.qemu.helpers.base import Helper, Run, require_executable
from pyvirtd.errors import OperationFailed, VirtError
from pyvirtd.util.files import in_thread, write_file
from pyvirtd.util.process import Launch
from pyvirtd.xml.printer import escape

CONFIGURATION = """\
<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN"
 "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig>
  <type>org.libvirt.qemu</type>
  <listen>unix:path={socket}</listen>
  <auth>EXTERNAL</auth>
  <policy context="default">
    <allow user="*"/>
    <allow own="*"/>
    <allow send_destination="*"/>
    <allow receive_sender="*"/>
  </policy>
</busconfig>
"""


class DbusDaemon(Helper):
    title = "dbus-daemon"
    program = "dbus-daemon"

    def __init__(self, run: Run) -> None:
        super().__init__(run)
        paths = run.paths
        self.socket = paths.dbus_file(run.number, run.name, "sock")
        self.configuration = paths.dbus_file(run.number, run.name, "conf")
        self.pid_file = paths.dbus_file(run.number, run.name, "pid")
        self.binary = run.config.dbus_daemon
        self.program = Path(self.binary).name

    def leftovers(self) -> Iterable[Path]:
        return (self.socket, self.configuration)

    async def start(self) -> None:
        await in_thread(require_executable, self.binary, f"'{self.binary}' is not a suitable dbus-daemon")
        await in_thread(_unlink, self.socket)
        text = CONFIGURATION.format(socket=escape(str(self.socket)))
        await in_thread(write_file, self.configuration, text, 0o600, owner=self.run.owner)
        argv = [self.binary, f"--config-file={self.configuration}"]
        launch = Launch(identity=self.run.identity)
        await self.launch(argv, launch, socket=self.socket, log_path=self.run.log_path)

    def failure(self, words: str) -> VirtError:
        return OperationFailed(f"dbus-daemon died unexpectedly: {words}", domain=From.QEMU)


def _unlink(path: Path) -> None:
    path.unlink(missing_ok=True)
