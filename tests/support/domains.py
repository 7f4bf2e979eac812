"""Domain XML for tests, written as a user would write it."""

from tests.guest import Guest

# For the tiny guest's shell: the address of its first interface, as soon as it has one.
ADDRESS = "for i in 1 2 3 4 5 6 7 8 9; do ip -4 addr show dev eth0 | grep inet && break; sleep 1; done"


def tiny_domain(
    guest: Guest, name: str = "tiny", *, memory_mib: int = 128, machine: str = "q35", devices: str = "", extra: str = ""
) -> str:
    """The tiny guest under TCG: serial console, agent channel, ACPI; `devices` and `extra` go in as they are."""
    return f"""\
<domain type='qemu'>
  <name>{name}</name>
  <memory unit='MiB'>{memory_mib}</memory>
  <vcpu>1</vcpu>
  <os>
    <type arch='x86_64' machine='{machine}'>hvm</type>
    <kernel>{guest.kernel}</kernel>
    <initrd>{guest.initrd}</initrd>
    <cmdline>{guest.cmdline}</cmdline>
  </os>
  <features><acpi/></features>
  <devices>
    <serial type='pty'/>
    <console type='pty'/>
    <channel type='unix'><target type='virtio' name='org.qemu.guest_agent.0'/></channel>
    {devices}
  </devices>
  {extra}
</domain>
"""


def bare_domain(name: str, *, memory_mib: int = 64, machine: str = "q35", devices: str = "", extra: str = "") -> str:
    """A machine with nothing to boot: what a test of the life cycle needs that never looks inside the guest."""
    return f"""\
<domain type='qemu'>
  <name>{name}</name>
  <memory unit='MiB'>{memory_mib}</memory>
  <vcpu>1</vcpu>
  <os><type arch='x86_64' machine='{machine}'>hvm</type></os>
  <features><acpi/></features>
  <devices>{devices}</devices>
  {extra}
</domain>
"""
