"""What a call is about, in the words in which rules are written: domain_name, pool_uuid...

https://libvirt.org/aclpolkit.html#object-identity-attributes. Every detail of a kind is always there, empty where it
is not known: rules need not expect anything else. A subject is a live object, a client's reference, or what a document
says of itself; the document is not looked into any further.
"""

import uuid as uuids
from collections.abc import Callable
from typing import Any, NamedTuple

from pyvirtd.constants.secret import SecretUsageType
from pyvirtd.errors import InternalError
from pyvirtd.xml.document import read_top, text_of

Details = tuple[tuple[str, str], ...]


class Described(NamedTuple):
    """What a document or a call's own words say of an object that may not be there; empty where they say nothing."""

    name: str = ""
    uuid: bytes | None = None
    owner: Any = None  # the pool of a volume, the network of a port
    mac: str = ""
    usage_type: int = 0
    usage_id: str = ""


NOTHING = Described()


def details(kind: str, subject: Any) -> Details:
    """The details of an object of a kind ("connect", "domain"...); `subject` is None where nothing is known."""
    return _DETAILS[kind](NOTHING if subject is None else subject)


def described(xml: str, owner: Any = None) -> Described:
    """What a document says of itself: name and uuid at its top. Raises XmlDetail, XmlError and InternalError."""
    root, found = read_top(xml, ("name", "uuid"))
    uuid = found.get("uuid")
    try:
        number = uuids.UUID(text_of(uuid).strip()).bytes if uuid is not None else None
    except ValueError:
        raise InternalError("malformed uuid element") from None
    name = text_of(found["name"]) if "name" in found else root.get("name", "")  # an interface's is an attribute
    return Described(name, number, owner)


def _uuid_text(number: bytes | None) -> str:
    return str(uuids.UUID(bytes=number)) if number else ""


def _named(prefix: str) -> Callable[[Any], Details]:
    def both(obj: Any) -> Details:
        return ((f"{prefix}_name", obj.name), (f"{prefix}_uuid", _uuid_text(obj.uuid)))

    return both


def _domain(obj: Any) -> Details:
    return _named("domain")(getattr(obj, "dom", obj))  # a snapshot's or a checkpoint's domain


def _network_port(obj: Any) -> Details:
    network = obj.owner if isinstance(obj, Described) else obj.net
    return (*_named("network")(network or NOTHING), ("port_uuid", _uuid_text(obj.uuid)))


def _storage_vol(obj: Any) -> Details:
    if isinstance(obj, Described):
        return (*_named("pool")(obj.owner or NOTHING), ("vol_name", obj.name), ("vol_key", ""))
    # A client's reference knows its pool by name only.
    pool_uuid = ("pool_uuid", _uuid_text(getattr(obj, "pool_uuid", None)))
    return (("pool_name", obj.pool), pool_uuid, ("vol_name", obj.name), ("vol_key", obj.key))


def _nwfilter_binding(obj: Any) -> Details:
    if isinstance(obj, Described):
        return (
            ("nwfilter_binding_portdev", obj.name),
            ("nwfilter_binding_linkdev", ""),
            ("nwfilter_binding_filter", ""),
        )
    linkdev = getattr(obj, "linkdev", "")  # not in a client's reference
    return (
        ("nwfilter_binding_portdev", obj.portdev),
        ("nwfilter_binding_linkdev", linkdev),
        ("nwfilter_binding_filter", obj.filtername),
    )


_USAGE_DETAILS = {
    SecretUsageType.VOLUME: "secret_usage_volume",
    SecretUsageType.CEPH: "secret_usage_ceph",
    SecretUsageType.ISCSI: "secret_usage_target",
    SecretUsageType.TLS: "secret_usage_name",
    SecretUsageType.VTPM: "secret_usage_name",
}


def _secret(obj: Any) -> Details:
    usage = dict.fromkeys(_USAGE_DETAILS.values(), "")
    if obj.usage_type in _USAGE_DETAILS:
        usage[_USAGE_DETAILS[SecretUsageType(obj.usage_type)]] = obj.usage_id
    return (("secret_uuid", _uuid_text(obj.uuid)), *usage.items())


_DETAILS: dict[str, Callable[[Any], Details]] = {
    "connect": lambda obj: (),
    "domain": _domain,
    "interface": lambda obj: (("interface_name", obj.name), ("interface_macaddr", obj.mac)),
    "network": _named("network"),
    "network_port": _network_port,
    "node_device": lambda obj: (("node_device_name", obj.name),),
    "nwfilter": _named("nwfilter"),
    "nwfilter_binding": _nwfilter_binding,
    "secret": _secret,
    "storage_pool": _named("pool"),
    "storage_vol": _storage_vol,
}
