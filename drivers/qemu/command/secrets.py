"""Secrets that QEMU needs to open images: which ones, and the objects through which it gets them."""

from collections.abc import Iterator
from typing import NamedTuple

from pyvirtd.constants.error import ErrorDomain
from pyvirtd.drivers.qemu.command.context import Builder
from pyvirtd.errors import NoSecret
from pyvirtd.model.domain import DomainDef
from pyvirtd.model.hostdev import ScsiHostdevSource
from pyvirtd.model.storage import (
    AnySource,
    Auth,
    AuthSecret,
    BackingStore,
    Encryption,
    EncryptionFormat,
    EncryptionSecret,
    SourceCommon,
    data_source,
)


class SecretUse(NamedTuple):
    """How a definition names a secret: by uuid, or by the kind and the name of its use."""

    kind: str  # "iscsi", "ceph", "volume"
    uuid: str | None
    usage: str | None


def wanted_secrets(definition: DomainDef) -> list[SecretUse]:
    """Every secret that must be looked up before the guest can start."""
    found: list[SecretUse] = []
    for disk in definition.devices.disk:
        store: BackingStore | None = BackingStore(source=disk.source, backing_store=disk.backing_store)
        found += _of(disk.auth, disk.encryption)
        while store is not None:
            for source in (store.source, data_source(store.source)):
                if source is not None:
                    common: SourceCommon = source.common
                    found += _of(common.auth, common.encryption)
            store = store.backing_store
    for hostdev in definition.devices.hostdev:
        if isinstance(hostdev.source, ScsiHostdevSource):
            found += _of(hostdev.source.auth, None)
    nvram = definition.os.nvram
    if nvram is not None and nvram.source is not None:
        found += _of(nvram.source.common.auth, nvram.source.common.encryption)
    return list(dict.fromkeys(found))


def _of(auth: Auth | None, encryption: Encryption | None) -> Iterator[SecretUse]:
    if auth is not None and auth.secret is not None:
        yield _use(auth.secret)
    for secret in encryption.secret if encryption is not None else ():
        yield _use(secret)


def _use(secret: AuthSecret | EncryptionSecret) -> SecretUse:
    kind = str(secret.type) if isinstance(secret, AuthSecret) and secret.type is not None else "volume"
    return SecretUse(kind, secret.uuid, secret.usage)


def give_auth(build: Builder, auth: Auth | None, name: str) -> str | None:
    """The object with an account's password; its id."""
    if auth is None or auth.secret is None:
        return None
    alias = f"{name}-auth-secret0"
    build.secret(alias, value_of(build, auth.secret))
    return alias


def give_passphrase(build: Builder, encryption: Encryption | None, name: str) -> str | None:
    """The object with an image's passphrase; its id."""
    if encryption is None or encryption.format_ not in (EncryptionFormat.LUKS, EncryptionFormat.LUKS2):
        return None
    if not encryption.secret:
        return None
    alias = f"{name}-encryption-secret0"
    build.secret(alias, value_of(build, encryption.secret[0]))
    return alias


def value_of(build: Builder, secret: AuthSecret | EncryptionSecret) -> bytes:
    """Raises NoSecret where nobody has found it."""
    use = _use(secret)
    value = build.context.secrets.get(use)
    if value is None:
        how = f"uuid '{use.uuid}'" if use.uuid is not None else f"usage '{use.usage}'"
        raise NoSecret(f"no secret with matching {how}", domain=ErrorDomain.SECRET)
    return value


def encryption_of(source: AnySource, own: Encryption | None) -> Encryption | None:
    """What a source is encrypted with: told beside it by older definitions."""
    return source.common.encryption or own
