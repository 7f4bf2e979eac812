"""Rules of limits and labels: block I/O, resources, key wrapping, id maps, security labels, SEV."""

from pyvirtd.constants.error import ErrorDomain
from pyvirtd.drivers.qemu.postparse.refuse import internal, unsupported
from pyvirtd.drivers.qemu.postparse.scope import Scope
from pyvirtd.errors import InvalidArg

FC_APPID_MAX = 128


def check_tuning(scope: Scope) -> None:
    """All of them."""
    definition = scope.definition
    maps = definition.idmap
    if maps is not None and bool(maps.uid) != bool(maps.gid):
        raise unsupported("uid and gid should be mapped both")
    ciphers = [cipher.name for cipher in definition.keywrap]
    for name in ciphers:
        if ciphers.count(name) > 1:
            raise internal(f"A domain definition can have no more than one cipher node with name {name}")
    resource = definition.resource
    if (
        resource is not None
        and resource.fibrechannel is not None
        and not 1 <= len(resource.fibrechannel) <= FC_APPID_MAX
    ):
        raise InvalidArg(
            f"Fibre Channel 'appid' string length must be between [1, {FC_APPID_MAX}]", domain=ErrorDomain.DOMAIN
        )
