"""Drivers by entry point: found, started in order, looked up by URI."""

import logging
from collections.abc import Iterable
from importlib.metadata import entry_points

from pyvirtd.core.driver import Driver, Host
from pyvirtd.errors import InternalError, NoConnect, VirtError

log = logging.getLogger(__name__)

GROUP = "pyvirtd.drivers"
# Families that others need come first; hypervisors follow, in name order.
ORDER = ("secret", "storage", "interface", "nodedev", "network", "nwfilter")


def driver_classes() -> list[type[Driver]]:
    """Every driver class whose entry point loads, in start order; one that fails to import is logged and skipped."""
    classes: dict[str, type[Driver]] = {}
    for point in entry_points(group=GROUP):
        if point.name in classes:
            continue
        try:
            classes[point.name] = point.load()
        except Exception:  # a third party's module may fail in any way
            log.exception("driver %s does not load", point.name)
    return sorted(classes.values(), key=_order)


def _order(cls: type[Driver]) -> tuple[int, str]:
    return (ORDER.index(cls.name) if cls.name in ORDER else len(ORDER), cls.name)


async def start_drivers(host: Host, classes: Iterable[type[Driver]]) -> None:
    """Make and start each driver that serves this kind of daemon; one that fails is logged and left out."""
    for cls in classes:
        if not (cls.system if host.privileged else cls.session):
            continue
        try:
            driver = cls(host)
            await driver.start()
        except VirtError as exc:
            log.error("driver %s does not start: %s", cls.name, exc)
        except Exception:  # one driver's fault must not take the others down
            log.exception("driver %s does not start", cls.name)
        else:
            host.drivers.append(driver)


def driver_for_uri(host: Host, uri: str) -> tuple[Driver, str]:
    """The driver that a connection URI names and the URI in full; "" is the first hypervisor driver's own.

    Raises NoConnect, InternalError. A URI with a host or a transport is another daemon's; clients strip theirs.
    """
    hypervisors = [driver for driver in host.drivers if driver.schemes]
    if not uri:
        default = next((d for d in hypervisors if d.name == "qemu"), hypervisors[0] if hypervisors else None)
        if default is None:
            raise NoConnect("no hypervisor driver runs")
        return default, f"{default.schemes[0]}://{default.uri_path}"
    scheme, colon, rest = uri.partition(":")
    if not colon:
        raise NoConnect(f"URI '{uri}' does not include a driver name")
    driver = next((d for d in hypervisors if scheme in d.schemes), None)
    if driver is None:
        raise NoConnect(uri)
    server, slash, path = rest.removeprefix("//").partition("/") if rest.startswith("//") else ("", "", rest)
    if server:
        if not slash and f"/{server}" == driver.uri_path:
            raise InternalError(f"invalid URI {uri} (maybe you want {scheme}:///{server})")
        raise NoConnect(uri)
    path = slash + path.partition("?")[0]
    if not driver.serves_path(path):
        raise InternalError(f"unexpected {driver.name} URI path '{path}', try {scheme}://{driver.uri_path}")
    return driver, uri
