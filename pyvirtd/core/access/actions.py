"""polkit's actions: their names, and the policy files that make them known, both from the declared permissions.

python -m pyvirtd.core.access.actions DIRECTORY writes the files; a test fails when the committed ones are stale.
"""

import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import NamedTuple

import pyvirtd.api  # noqa: F401 - importing declares
from pyvirtd.api.rpc import PROCEDURES
from pyvirtd.xml.printer import escape

MONITOR = "org.libvirt.unix.monitor"  # the read-only socket
MANAGE = "org.libvirt.unix.manage"  # the read-write socket
API = "org.libvirt.api"

HEAD = """\
<?xml version="1.0" encoding="UTF-8"?>
<!DOCTYPE policyconfig PUBLIC "-//freedesktop//DTD polkit Policy Configuration 1.0//EN"
  "http://www.freedesktop.org/software/polkit/policyconfig-1.dtd">
<!-- Made from the code by `python -m pyvirtd.core.access.actions conf`; your own rules go to /etc/polkit-1/rules.d. -->
<policyconfig>
"""


class Action(NamedTuple):
    """One action; `default` is who may without a rule that says more, in polkit's word."""

    name: str
    description: str
    message: str
    default: str


@cache
def action_of(permission: str) -> str:
    """polkit's name of a permission: "storage_vol:data_read" is org.libvirt.api.storage-vol.data-read."""
    kind, _, word = permission.partition(":")
    return f"{API}.{kind}.{word}".replace("_", "-")


def permissions() -> list[str]:
    """Every permission that some procedure asks for, in order."""
    found = {need.permission for procedure in PROCEDURES.values() for need in procedure.needs}
    found |= {procedure.list_filter for procedure in PROCEDURES.values() if procedure.list_filter}
    return sorted(found)


def is_open(permission: str) -> bool:
    """Whether everybody has it unless a rule says otherwise: to know that something is there, and to look at it."""
    kind, _, word = permission.partition(":")
    if permission == "node_device:read":  # libvirt's policy leaves it out
        return False
    return word in ("getattr", "read") or (kind == "connect" and word.startswith("search_"))


_NOUNS = {
    "connect": "the host",
    "domain": "a domain",
    "interface": "a host interface",
    "network": "a virtual network",
    "network_port": "a port of a network",
    "node_device": "a host device",
    "nwfilter": "a network filter",
    "nwfilter_binding": "a binding of a network filter",
    "secret": "a secret",
    "storage_pool": "a storage pool",
    "storage_vol": "a storage volume",
}
# What one does who has the permission; {} is the object.
_DEEDS = {
    "block_read": "Reading the disks of {}",
    "block_write": "Writing to the disks of {}",
    "checkpoint": "Making and deleting checkpoints of {}",
    "core_dump": "Dumping the memory of {} into a file",
    "create": "Creating {}",
    "data_read": "Reading the contents of {}",
    "data_write": "Writing the contents of {}",
    "delete": "Deleting {}",
    "detach": "Taking {} from its driver, or giving it back",
    "detect_storage_pools": "Looking for storage pools on {}",
    "format": "Formatting {}",
    "fs_freeze": "Freezing the file systems of {}",
    "fs_trim": "Trimming the file systems of {}",
    "getattr": "Seeing that {} is there",
    "hibernate": "Saving the state of {} into a file",
    "init_control": "Talking to the init program of {}",
    "inject_nmi": "Sending an NMI to {}",
    "interface_transaction": "Changing the interfaces of {} as one transaction",
    "mem_read": "Reading the memory of {}",
    "migrate": "Migrating {}",
    "open_device": "Opening the consoles and channels of {}",
    "open_graphics": "Opening the displays of {}",
    "open_namespace": "Entering the namespaces of {}",
    "pm_control": "Putting {} to sleep or waking it",
    "read": "Looking at {}",
    "read_secure": "Looking at the passwords and keys of {}",
    "refresh": "Refreshing {}",
    "reset": "Resetting {}",
    "resize": "Resizing {}",
    "save": "Keeping the definition of {}",
    "screenshot": "Taking pictures of the screen of {}",
    "search_domains": "Listing the domains of {}",
    "search_interfaces": "Listing the interfaces of {}",
    "search_networks": "Listing the virtual networks of {}",
    "search_node_devices": "Listing the devices of {}",
    "search_nwfilter_bindings": "Listing the bindings of network filters of {}",
    "search_nwfilters": "Listing the network filters of {}",
    "search_ports": "Listing the ports of {}",
    "search_secrets": "Listing the secrets of {}",
    "search_storage_pools": "Listing the storage pools of {}",
    "search_storage_vols": "Listing the volumes of {}",
    "send_input": "Pressing keys in {}",
    "send_signal": "Sending signals to processes of {}",
    "set_password": "Setting passwords of users in {}",
    "set_time": "Setting the clock of {}",
    "snapshot": "Making, deleting and going back to snapshots of {}",
    "start": "Starting {}",
    "stop": "Stopping {}",
    "suspend": "Pausing and resuming {}",
    "write": "Changing {}",
}


def connection_actions() -> list[Action]:
    """Those asked for when a client of a unix socket authenticates."""
    return [
        Action(MANAGE, "Managing virtual machines", "Managing virtual machines requires a password", "auth_admin_keep"),
        Action(MONITOR, "Watching virtual machines", "Watching virtual machines requires permission", "yes"),
    ]


def call_actions() -> list[Action]:
    """Those asked for with each call, where access_drivers says so."""
    actions = []
    for permission in permissions():
        kind, _, word = permission.partition(":")
        deed = _DEEDS[word].format(_NOUNS[kind])
        default = "yes" if is_open(permission) else "no"
        actions.append(Action(action_of(permission), deed, f"{deed} requires permission", default))
    return actions


def policy(actions: list[Action]) -> str:
    """A policy file. https://polkit.pages.freedesktop.org/polkit/polkit.8.html#polkit-declaring-actions"""
    return HEAD + "".join(_element(action) for action in actions) + "</policyconfig>\n"


def _element(action: Action) -> str:
    who = "".join(f"      <{tag}>{action.default}</{tag}>\n" for tag in ("allow_any", "allow_inactive", "allow_active"))
    return (
        f'  <action id="{action.name}">\n'
        f"    <description>{escape(action.description)}</description>\n"
        f"    <message>{escape(action.message)}</message>\n"
        f"    <defaults>\n{who}    </defaults>\n"
        f"  </action>\n"
    )


# File under conf/ -> what is in it. The names are libvirt's, so that no host ever has both.
SHIPPED: dict[str, Callable[[], list[Action]]] = {
    "org.libvirt.unix.policy": connection_actions,
    "org.libvirt.api.policy": call_actions,
}


def main(directory: Path) -> None:
    for name, actions in SHIPPED.items():
        (directory / name).write_text(policy(actions()))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
