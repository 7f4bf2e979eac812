"""What the stages of a definition's completion share: the definition, the emulator, the configuration."""

from dataclasses import dataclass, field

from pyvirtd.config.qemu import QemuConfig
from pyvirtd.drivers.qemu.capabilities import QemuCapabilities
from pyvirtd.drivers.qemu.postparse.board import Board
from pyvirtd.model.devices import Devices
from pyvirtd.model.domain import DomainDef, DomainType


@dataclass(slots=True)
class Scope:
    """One definition on its way to being complete. `new`: it comes from a client, so the guest's ABI may be chosen
    freely; one that was loaded keeps what older versions chose."""

    definition: DomainDef
    caps: QemuCapabilities
    config: QemuConfig
    privileged: bool
    host_arch: str
    new: bool = True
    board: Board = field(init=False)

    def __post_init__(self) -> None:
        self.refresh()

    def refresh(self) -> None:
        """Look at the board again: the machine's name has changed."""
        self.board = Board.of(self.definition)

    @property
    def devices(self) -> Devices:
        return self.definition.devices

    @property
    def kvm(self) -> bool:
        return self.definition.type == DomainType.KVM
