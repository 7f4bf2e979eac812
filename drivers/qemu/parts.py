"""The parts of the QEMU driver, one line each."""

from pyvirtd.api.rpc import Part
from pyvirtd.core.node import HostNode
from pyvirtd.drivers.qemu.blocks import Blocks
from pyvirtd.drivers.qemu.blocks_threshold import BlockThreshold
from pyvirtd.drivers.qemu.connect import Connect
from pyvirtd.drivers.qemu.consoles import Consoles
from pyvirtd.drivers.qemu.cpu_calls import CpuCalls
from pyvirtd.drivers.qemu.descriptors import Descriptors
from pyvirtd.drivers.qemu.displays import Displays
from pyvirtd.drivers.qemu.dump_calls import Dumps
from pyvirtd.drivers.qemu.guest_agent import GuestAgent
from pyvirtd.drivers.qemu.keys import Keys
from pyvirtd.drivers.qemu.launch_security import HostSecurity, LaunchSecurity
from pyvirtd.drivers.qemu.lifecycle import Domains
from pyvirtd.drivers.qemu.program import Program
from pyvirtd.drivers.qemu.saving.jobs import RunningJobs
from pyvirtd.drivers.qemu.saving.part import Saved
from pyvirtd.drivers.qemu.stats import Stats
from pyvirtd.drivers.qemu.stats_perf import Perf
from pyvirtd.drivers.qemu.throttle_groups import ThrottleGroups
from pyvirtd.drivers.qemu.tune import TuneReads
from pyvirtd.drivers.qemu.tune_interface import TuneInterface
from pyvirtd.drivers.qemu.tune_iothreads import IoThreads
from pyvirtd.drivers.qemu.tune_limits import TuneLimits
from pyvirtd.drivers.qemu.tune_pins import TunePins
from pyvirtd.drivers.qemu.tune_sets import TuneSets

PARTS: tuple[type[Part], ...] = (
    Domains,
    Connect,
    CpuCalls,
    HostNode,
    Stats,
    Saved,
    RunningJobs,
    Dumps,
    Perf,
    Blocks,
    BlockThreshold,
    ThrottleGroups,
    TuneReads,
    TuneLimits,
    TunePins,
    TuneSets,
    TuneInterface,
    IoThreads,
    HostSecurity,
    LaunchSecurity,
    Consoles,
    Displays,
    Descriptors,
    Keys,
    GuestAgent,
    Program,
)
