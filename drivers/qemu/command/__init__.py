"""QEMU's command line from a complete definition: pure functions, no I/O.

    context = Context.for_start(caps, paths, config, privileged, domain_id, live)
    context.host = HostFacts.look_up(live, config)     # in a thread; what follows reads nothing
    context.monitor_fd = listener.fileno()             # a listening socket the child inherits; None: QEMU listens
    context.nets["net0"] = NetBackend(taps=[7], vhosts=[8])
    command = build(live, context)                     # live: complete, with aliases and chosen ports
    command.files                                      # make these first: secrets, firmware variables
    command.argv, command.environment                  # what to run; context.fds are to be inherited

`build` changes `live` where the running guest's XML shows what it chose: paths of channel sockets and the numbers of
block nodes. Interfaces of the types in `net.TAP_TYPES` need a tap in `context.nets`; others none. `standalone` is the
same for virConnectDomainXMLToNative, `to_native` its text.

For a running guest `disk_node(disk)` names all block nodes of a disk, `top_node(disk)` the one its device uses and
`disk_qdev(disk)` that device. Limits of throughput (<iotune>) are not on the command line: set them by
block_set_io_throttle with `disk_qdev` before the guest runs.
"""

from pyvirtd.drivers.qemu.command.block import disk_node, disk_qdev, number_nodes, top_node
from pyvirtd.drivers.qemu.command.build import build, standalone
from pyvirtd.drivers.qemu.command.context import Builder, Command, Context, NetBackend, NewFile, Props
from pyvirtd.drivers.qemu.command.host_facts import HostFacts
from pyvirtd.drivers.qemu.command.native import quote, to_native
from pyvirtd.drivers.qemu.command.net import TAP_TYPES, queue_count, uses_tap

__all__ = [
    "TAP_TYPES",
    "Builder",
    "Command",
    "Context",
    "HostFacts",
    "NetBackend",
    "NewFile",
    "Props",
    "build",
    "disk_node",
    "disk_qdev",
    "number_nodes",
    "queue_count",
    "quote",
    "standalone",
    "to_native",
    "top_node",
    "uses_tap",
]
