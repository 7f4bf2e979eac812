"""passt: carries a guest's packets through sockets of an ordinary user. https://passt.top"""

from collections.abc import Iterable, Iterator
from pathlib import Path

from pyvirtd.constants.error import ErrorDomain as From
from pyvirtd.drivers.qemu.helpers.base import Helper, Run, find_program
from pyvirtd.errors import OperationFailed, VirtError
from pyvirtd.model.net import BackendType, Interface, InterfaceType, PortForward, UserSource
from pyvirtd.util.files import in_thread
from pyvirtd.util.process import Launch


class Passt(Helper):
    title = "passt"
    program = "passt"

    def __init__(self, run: Run, net: Interface) -> None:
        super().__init__(run)
        self.net = net
        alias = net.info.alias or ""
        self.socket = run.paths.passt_file(run.number, run.name, alias, "socket")
        self.pid_file = run.paths.passt_file(run.number, run.name, alias, "pid")

    def leftovers(self) -> Iterable[Path]:
        return (self.socket,)

    async def start(self) -> None:
        binary = await in_thread(find_program, "passt")
        await in_thread(_unlink, self.socket)
        argv = [binary, *arguments(self.net, str(self.socket))]
        launch = Launch(identity=self.run.identity)
        await self.launch(argv, launch, socket=self.socket, log_path=self.run.log_path)

    def failure(self, words: str) -> VirtError:
        return OperationFailed(f"Could not start 'passt': {words}", domain=From.QEMU)


def uses_passt(net: Interface) -> bool:
    """The interface's packets go through passt."""
    return net.type is InterfaceType.USER and net.backend is not None and net.backend.type is BackendType.PASST


def arguments(net: Interface, socket: str) -> list[str]:
    """passt's options for an interface."""
    argv = ["--foreground", "--one-off", "--socket", socket]
    if net.mac is not None and net.mac.address:
        argv += ["--mac-addr", net.mac.address]
    if isinstance(net.source, UserSource) and net.source.dev:
        argv += ["--interface", net.source.dev]
    if net.backend is not None and net.backend.log_file:
        argv += ["--log-file", net.backend.log_file]
    for ip in net.ip:
        if ip.address is None:
            continue
        argv += ["--address", ip.address]
        if ip.prefix and ":" not in ip.address:
            argv += ["--netmask", str(ip.prefix)]
    for forward in net.port_forward:
        argv += [f"--{forward.proto}-ports", _ports(forward)]
    return argv


def _ports(forward: PortForward) -> str:
    """ "ADDRESS%DEVICE/PORTS": which ports of the host lead to the guest, all where none are named."""
    place = (forward.address or "") + (f"%{forward.dev}" if forward.dev else "")
    return (f"{place}/" if place else "") + (",".join(_ranges(forward)) or "all")


def _ranges(forward: PortForward) -> Iterator[str]:
    for one in forward.range:
        first, last = one.start or 0, one.end or 0
        text = ("~" if one.exclude else "") + str(first) + (f"-{last}" if last else "")
        if one.to:
            text += f":{one.to}" + (f"-{one.to + last - first}" if last else "")
        yield text


def _unlink(path: Path) -> None:
    path.unlink(missing_ok=True)
