"""Limits of what an interface sends and receives, kept by the kernel's traffic control on the host's device.

What the guest receives is shaped by a token bucket; what it sends is dropped beyond its rate, for it is already there.
Rates are in kibibytes a second, bursts in kibibytes, as https://libvirt.org/formatnetwork.html#quality-of-service has
them. tc(8) does it, as it knows the kernel's many tables by heart.
"""

import logging

from pyvirtd.constants.error import ErrorDomain as From
from pyvirtd.errors import InternalError, from_os_error
from pyvirtd.model.net import Bandwidth, BandwidthRate, Interface, InterfaceType
from pyvirtd.util.process import CommandTimeout, Result, run

log = logging.getLogger(__name__)

TC = "tc"
TC_S = 20.0
# Bytes that a class may send in its turn: about a tenth of a second's, as tc would have it, within what it warns of.
QUANTUM_MIN, QUANTUM_MAX = 1514, 200_000
SHAPED = (InterfaceType.NETWORK, InterfaceType.BRIDGE, InterfaceType.ETHERNET, InterfaceType.DIRECT)


def can_limit(net: Interface) -> bool:
    """The interface has a device of the host whose traffic can be controlled."""
    return net.type in SHAPED


async def set_bandwidth(net: Interface, *, fresh: bool = False) -> None:
    """Put an interface's limits in force, or take them away where it has none. Raises InternalError.

    `fresh`: the device was just made and has none yet.
    """
    name = net.target.dev if net.target is not None else None
    if not name or not can_limit(net):
        return
    if not fresh:
        await clear_bandwidth(name)
    bandwidth = net.bandwidth or Bandwidth()
    sent_by_host, sent_by_guest = bandwidth.inbound, bandwidth.outbound
    if net.type is InterfaceType.DIRECT:
        # A macvtap device is the guest's own end of the cable.
        sent_by_host, sent_by_guest = sent_by_guest, sent_by_host
    if sent_by_host is not None and sent_by_host.average:
        await _shape(name, sent_by_host)
    if sent_by_guest is not None and sent_by_guest.average:
        await _police(name, sent_by_guest)


async def clear_bandwidth(name: str) -> None:
    """Take all limits off a device; it need not have any."""
    for place in ("root", "ingress"):
        await _run("qdisc", "del", "dev", name, place)


async def _shape(name: str, rate: BandwidthRate) -> None:
    words = ["htb", "rate", f"{rate.average}kbps"]
    if rate.peak:
        words += ["ceil", f"{rate.peak}kbps"]
    if rate.burst:
        words += ["burst", f"{rate.burst}kb"]
    quantum = min(max((rate.average or 0) * 1024 // 10, QUANTUM_MIN), QUANTUM_MAX)
    await _tc("qdisc", "add", "dev", name, "root", "handle", "1:", "htb", "default", "1")
    await _tc("class", "add", "dev", name, "parent", "1:", "classid", "1:1", *words, "quantum", str(quantum))
    # Within the limit no connection starves another; a kernel without this still keeps the limit.
    fair = await _run("qdisc", "add", "dev", name, "parent", "1:1", "handle", "2:", "sfq", "perturb", "10")
    if fair.returncode:
        log.info("%s: no fair queueing: %s", name, fair.stderr.decode("utf-8", "replace").strip())


async def _police(name: str, rate: BandwidthRate) -> None:
    words = ["rate", f"{rate.average}kbps", "burst", f"{rate.burst or rate.average}kb", "mtu", "64kb", "drop"]
    match = ["protocol", "all", "u32", "match", "u32", "0", "0"]
    await _tc("qdisc", "add", "dev", name, "ingress")
    await _tc("filter", "add", "dev", name, "parent", "ffff:", *match, "police", *words, "flowid", ":1")


async def _tc(*words: str) -> None:
    """A command that must succeed. Raises InternalError."""
    result = await _run(*words)
    if result.returncode:
        said = result.stderr.decode("utf-8", "replace")
        command = " ".join([TC, *words])
        raise InternalError(
            f"Child process ({command}) unexpected exit status {result.returncode}: {said}", domain=From.NONE
        )


async def _run(*words: str) -> Result:
    try:
        return await run([TC, *words], timeout=TC_S)
    except OSError as exc:
        raise from_os_error(exc, f"cannot execute binary {TC}") from exc
    except CommandTimeout as exc:
        raise InternalError(f"Child process ({' '.join([TC, *words])}) {exc.detail}") from exc
