"""Calls that Debian's virsh and python3-libvirt do not know yet, in the wire's own terms."""

import asyncio
import socket
from typing import Any
from uuid import UUID

from pyvirtd.api.types import DomainRef
from tests.daemon.harness import RawClient
from tests.support.host import SessionHost


def call_domain(host: SessionHost, name: str, procedure: str, *values: Any) -> Any:
    """Call a procedure of the domain of that name; the reply's first value, or an Answered error."""
    uuid = UUID(host.ok(f"domuuid {name}")).bytes

    async def work() -> Any:
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        sock.setblocking(False)
        await asyncio.get_running_loop().sock_connect(sock, str(host.socket))
        client = RawClient(sock)
        try:
            await client.open(host.uri)
            return await client.call(procedure, DomainRef(name, uuid, -1), *values)
        finally:
            await client.close()

    return asyncio.run(work())
