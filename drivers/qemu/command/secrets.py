"""Secrets that QEMU needs to open images: which ones, and the objects through which it gets them."""

from typing import NamedTuple

from pyvirtd.constants.error import ErrorDomain
from pyvirtd.drivers.qemu.command.context import Builder, Context
from pyvirtd.errors import NoSecret
from pyvirtd.model.storage import (
    Auth,
    AuthSecret,
    Encryption,
    EncryptionFormat,
    EncryptionSecret,
)


class SecretUse(NamedTuple):
    """How a definition names a secret: by uuid, or by the kind and the name of its use."""

    kind: str  # "iscsi", "ceph", "volume"
    uuid: str | None
    usage: str | None


def _use(secret: AuthSecret | EncryptionSecret) -> SecretUse:
    kind = str(secret.type) if isinstance(secret, AuthSecret) and secret.type is not None else "volume"
    return SecretUse(kind, secret.uuid, secret.usage)


def give_auth(build: Builder, auth: Auth | None, name: str) -> str | None:
    """The object with an account's password; its id."""
    if auth is None or auth.secret is None:
        return None
    alias = f"{name}-auth-secret0"
    build.secret(alias, value_of(build.context, auth.secret))
    return alias


def give_passphrase(build: Builder, encryption: Encryption | None, name: str) -> str | None:
    """The object with an image's passphrase; its id."""
    if encryption is None or encryption.format_ not in (EncryptionFormat.LUKS, EncryptionFormat.LUKS2):
        return None
    if not encryption.secret:
        return None
    alias = f"{name}-encryption-secret0"
    build.secret(alias, value_of(build.context, encryption.secret[0]))
    return alias


def value_of(context: Context, secret: AuthSecret | EncryptionSecret) -> bytes:
    """Raises NoSecret where nobody has found it."""
    use = _use(secret)
    value = context.secrets.get(use)
    if value is None:
        how = f"uuid '{use.uuid}'" if use.uuid is not None else f"usage '{use.usage}'"
        raise NoSecret(f"no secret with matching {how}", domain=ErrorDomain.SECRET)
    return value
