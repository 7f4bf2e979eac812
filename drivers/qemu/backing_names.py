"""Names of backing images in the headers of images: paths, URLs, and JSON objects, as QEMU writes them.

https://www.qemu.org/docs/master/system/images.html (device URL syntax)
"""

import json
import os
import stat
from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from pyvirtd.constants.error import ErrorDomain as From
from pyvirtd.errors import InternalError
from pyvirtd.model.storage import (
    DEFAULT_PORTS,
    AnySource,
    BlockSource,
    FileSource,
    HostTransport,
    NetworkHost,
    NetworkSource,
    StorageProtocol,
)

JSON = "json:"
DEPTH_MAX = 8  # of "file" within "file"
_WEB = {"http", "https", "ftp", "ftps", "tftp"}


def source_of(name: str, beside: str) -> AnySource:
    """The storage that a name stands for; `beside`: the image whose header has it, to which a path is relative.

    Looks whether a path is a device. Raises InternalError for what cannot be understood.
    """
    if name.startswith(JSON):
        try:
            given = json.loads(name.removeprefix(JSON))
        except ValueError:
            raise _internal(f"failed to parse JSON backing volume definition '{name}'") from None
        return _from_json(given, name, beside)
    scheme = name.partition(":")[0]
    if scheme == name or "/" in scheme or scheme.startswith("."):
        return _local(name, beside)
    if scheme == "file":
        return _local(unquote(urlsplit(name).path) if "://" in name else name.removeprefix("file:"), beside)
    if "://" in name:
        return _from_url(name)
    if scheme == "nbd":
        return _from_nbd_words(name)
    if scheme == "rbd":
        return _from_rbd_words(name)
    raise _internal(f"backing store parser is not implemented for protocol {scheme}")


def _internal(text: str) -> InternalError:
    return InternalError(text, domain=From.STORAGE)


def _local(path: str, beside: str) -> AnySource:
    full = path if path.startswith("/") else os.path.join(os.path.dirname(beside), path)
    try:
        device = stat.S_ISBLK(os.stat(full).st_mode)
    except OSError:
        device = False
    return BlockSource(dev=full) if device else FileSource(file=full)


def _from_url(name: str) -> NetworkSource:
    try:
        url = urlsplit(name)
        port = url.port
    except ValueError:
        raise _internal(f"failed to parse backing file location '{name}'") from None
    word, _, transport = url.scheme.partition("+")
    try:
        protocol = StorageProtocol(word)
        host = NetworkHost(name=url.hostname, port=port or DEFAULT_PORTS.get(protocol))
        if transport:
            host.transport = HostTransport(transport)
    except ValueError:
        raise _internal(f"invalid backing protocol '{url.scheme}'") from None
    query = parse_qs(url.query)
    if host.transport is HostTransport.UNIX:
        host = NetworkHost(transport=HostTransport.UNIX, socket=query.get("socket", [""])[0])
    path = unquote(url.path).removeprefix("/")
    source = NetworkSource(protocol=protocol, name=path or None, host=[host])
    if word in _WEB and url.query:
        source.query = url.query
    return source


def _from_nbd_words(name: str) -> NetworkSource:
    """ "nbd:HOST:PORT:exportname=NAME" or "nbd:unix:SOCKET:exportname=NAME" """
    rest, _, export = name.removeprefix("nbd:").partition(":exportname=")
    if rest.startswith("unix:"):
        host = NetworkHost(transport=HostTransport.UNIX, socket=rest.removeprefix("unix:"))
    else:
        address, _, port = rest.rpartition(":")
        if not address or not port.isdecimal():
            raise _internal(f"failed to parse backing file location '{name}'")
        host = NetworkHost(name=address.strip("[]"), port=int(port))
    return NetworkSource(protocol=StorageProtocol.NBD, name=export or None, host=[host])


def _from_rbd_words(name: str) -> NetworkSource:
    """ "rbd:POOL/IMAGE:option=value…" with the monitors among the options, their colons behind backslashes"""
    words = name.removeprefix("rbd:").replace("\\:", "\0").split(":")
    source = NetworkSource(protocol=StorageProtocol.RBD, name=words[0])
    for word in words[1:]:
        key, _, value = word.replace("\0", ":").partition("=")
        if key == "mon_host":
            for one in value.replace(";", ",").split(","):
                address, _, port = one.rpartition(":") if ":" in one else (one, "", "")
                number = int(port) if port.isdecimal() else None
                source.host.append(NetworkHost(name=address.strip("[]"), port=number))
        elif key == "conf":
            source.config = value
    return source


def _from_json(given: Any, name: str, beside: str, depth: int = 0) -> AnySource:
    """QEMU's options of a block node, nested or with dots in their names."""
    if not isinstance(given, Mapping) or depth > DEPTH_MAX:
        raise _internal(f"JSON backing volume definition '{name}' lacks driver name")
    inner = given.get("file")
    driver = given.get("driver")
    if isinstance(inner, Mapping) and driver in (None, "raw"):
        return _from_json(inner, name, beside, depth + 1)
    dotted = {key.removeprefix("file."): value for key, value in given.items() if str(key).startswith("file.")}
    if dotted and driver in (None, "raw"):
        return _from_json(dotted, name, beside, depth + 1)
    if not isinstance(driver, str):
        raise _internal(f"JSON backing volume definition '{name}' lacks driver name")
    if driver in ("file", "host_device", "host_cdrom"):
        path = given.get("filename")
        if not isinstance(path, str):
            raise _internal("missing 'filename' field in JSON backing volume definition")
        return _local(path, beside)
    if driver in _WEB and isinstance(given.get("url"), str):
        return _from_url(str(given["url"]))
    if driver == "nbd":
        return _nbd_json(given)
    raise _internal(f"missing parser implementation for JSON backing volume driver '{driver}'")


def _nbd_json(given: Mapping[str, Any]) -> NetworkSource:
    server = given.get("server")
    if not isinstance(server, Mapping):
        server = {key.removeprefix("server."): value for key, value in given.items() if key.startswith("server.")}
    server = server or given
    export = given.get("export")
    if (path := server.get("path")) is not None:
        host = NetworkHost(transport=HostTransport.UNIX, socket=str(path))
    elif (address := server.get("host")) is not None:
        port = str(server.get("port", DEFAULT_PORTS[StorageProtocol.NBD]))
        host = NetworkHost(name=str(address), port=int(port) if port.isdecimal() else None)
    else:
        raise _internal("missing host specification of NBD server in JSON backing volume definition")
    return NetworkSource(protocol=StorageProtocol.NBD, name=str(export) if export is not None else None, host=[host])
