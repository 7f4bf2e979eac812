"""Errors that reach a client: one root class, one table of codes with libvirt's leading words.

A message is built as libvirt builds it: the code's leading words, a colon, what went wrong (clients match on both).
Raise the subclass near the cause and name the object in the text; foreign errors are translated once, at the boundary.
"""

import os
from typing import ClassVar

from pyvirtd.constants.error import ErrorDomain as From
from pyvirtd.constants.error import ErrorLevel
from pyvirtd.constants.error import ErrorNumber as Code

# Leading words of each code, as clients of libvirt 9.0 see them. A code that is not here shows the bare text.
WORDS: dict[Code, str] = {
    Code.INTERNAL_ERROR: "internal error",
    Code.NO_MEMORY: "out of memory",
    Code.NO_SUPPORT: "this function is not supported by the connection driver",
    Code.UNKNOWN_HOST: "unknown host",
    Code.NO_CONNECT: "no connection driver available for",
    Code.INVALID_CONN: "invalid connection pointer in",
    Code.INVALID_DOMAIN: "invalid domain pointer in",
    Code.INVALID_ARG: "invalid argument",
    Code.OPERATION_FAILED: "operation failed",
    Code.XML_ERROR: "XML error",
    Code.DOM_EXIST: "domain already exists",
    Code.OPERATION_DENIED: "operation forbidden",
    Code.XML_DETAIL: "",
    Code.NO_KERNEL: "missing kernel information",
    Code.NO_NAME: "missing name information",
    Code.NO_OS: "missing operating system information",
    Code.NO_DEVICE: "missing devices information",
    Code.OPEN_FAILED: "failed to open file",
    Code.READ_FAILED: "failed to read configuration file",
    Code.CONF_SYNTAX: "configuration file syntax error",
    Code.WRITE_FAILED: "failed to write configuration file",
    Code.SYSTEM_ERROR: "",
    Code.RPC: "",
    Code.AUTH_FAILED: "authentication failed",
    Code.AUTH_CANCELLED: "authentication cancelled",
    Code.AUTH_UNAVAILABLE: "authentication unavailable",
    Code.NO_DOMAIN: "Domain not found",
    Code.NO_NETWORK: "Network not found",
    Code.NETWORK_EXIST: "network already exists",
    Code.INVALID_MAC: "invalid MAC address",
    Code.NO_STORAGE_POOL: "Storage pool not found",
    Code.NO_STORAGE_VOL: "Storage volume not found",
    Code.STORAGE_VOL_EXIST: "storage volume already exists",
    Code.STORAGE_POOL_BUILT: "Storage pool already built",
    Code.INVALID_NODE_DEVICE: "invalid node device pointer in",
    Code.NO_NODE_DEVICE: "Node device not found",
    Code.OPERATION_INVALID: "Requested operation is not valid",
    Code.NO_INTERFACE: "interface not found",
    Code.MULTIPLE_INTERFACES: "multiple matching interfaces found",
    Code.NO_NWFILTER: "Network filter not found",
    Code.BUILD_FIREWALL: "error creating firewall rules",
    Code.NO_SECRET: "Secret not found",
    Code.INVALID_SECRET: "Invalid secret",
    Code.CONFIG_UNSUPPORTED: "unsupported configuration",
    Code.OPERATION_TIMEOUT: "Timed out during operation",
    Code.MIGRATE_PERSIST_FAILED: "Failed to make domain persistent after migration",
    Code.HOOK_SCRIPT_FAILED: "Hook script execution failed",
    Code.INVALID_DOMAIN_SNAPSHOT: "Invalid snapshot",
    Code.NO_DOMAIN_SNAPSHOT: "Domain snapshot not found",
    Code.INVALID_STREAM: "invalid stream pointer",
    Code.ARGUMENT_UNSUPPORTED: "argument unsupported",
    Code.STORAGE_PROBE_FAILED: "Storage pool probe failed",
    Code.SNAPSHOT_REVERT_RISKY: "revert requires force",
    Code.OPERATION_ABORTED: "operation aborted",
    Code.NO_DOMAIN_METADATA: "metadata not found",
    Code.MIGRATE_UNSAFE: "Unsafe migration",
    Code.OVERFLOW: "numerical overflow",
    Code.BLOCK_COPY_ACTIVE: "block copy still active",
    Code.OPERATION_UNSUPPORTED: "Operation not supported",
    Code.SSH: "SSH transport error",
    Code.AGENT_UNRESPONSIVE: "Guest agent is not responding",
    Code.RESOURCE_BUSY: "resource busy",
    Code.ACCESS_DENIED: "access denied",
    Code.DBUS_SERVICE: "error from service",
    Code.CPU_INCOMPATIBLE: "the CPU is incompatible with host CPU",
    Code.XML_INVALID_SCHEMA: "XML document failed to validate against schema",
    Code.MIGRATE_FINISH_OK: "migration successfully aborted",
    Code.NO_SERVER: "Server not found",
    Code.NO_CLIENT: "Client not found",
    Code.AGENT_UNSYNCED: "guest agent replied with wrong id to guest-sync command",
    Code.DEVICE_MISSING: "device not found",
    Code.NO_NWFILTER_BINDING: "Network filter binding not found",
    Code.NO_DOMAIN_CHECKPOINT: "Domain checkpoint not found",
    Code.NO_DOMAIN_BACKUP: "Domain backup job id not found",
    Code.INVALID_NETWORK_PORT: "Invalid network port pointer",
    Code.NO_NETWORK_PORT: "network port not found",
    Code.NO_HOSTNAME: "no hostname found",
    Code.CHECKPOINT_INCONSISTENT: "checkpoint inconsistent",
    Code.MULTIPLE_DOMAINS: "multiple matching domains found",
}


class VirtError(Exception):
    """An error for the client. `detail` says what went wrong and to which object; the class gives code and domain.

    `int1`, `int2` travel in the error's integer fields (int1 is errno for SYSTEM_ERROR).
    """

    code: ClassVar[Code] = Code.INTERNAL_ERROR
    domain: From = From.NONE

    def __init__(self, detail: str = "", *, domain: From | None = None, int1: int = -1, int2: int = -1) -> None:
        super().__init__(detail)
        self.detail = detail
        self.int1 = int1
        self.int2 = int2
        self.level = ErrorLevel.ERROR
        if domain is not None:
            self.domain = domain

    @property
    def words(self) -> str:
        """The leading words of the code."""
        return WORDS.get(self.code, "")

    @property
    def form(self) -> str:
        """The message with %s in place of the detail."""
        words = self.words
        if not words:
            return "%s"
        if not self.detail:
            return words
        return f"{words} %s" if words.endswith((" for", " in", " host")) else f"{words}: %s"

    @property
    def message(self) -> str:
        """What the client shows: leading words and detail."""
        return self.form.replace("%s", self.detail)

    def __str__(self) -> str:
        return self.message


class InternalError(VirtError):
    code = Code.INTERNAL_ERROR


class NoSupport(VirtError):
    code = Code.NO_SUPPORT


class InvalidArg(VirtError):
    code = Code.INVALID_ARG


class BadCall(InvalidArg):
    """A call refused for its arguments alone, before any driver looks at them: its text has no leading words."""

    domain = From.DOMAIN

    @property
    def words(self) -> str:
        return ""


class OperationFailed(VirtError):
    code = Code.OPERATION_FAILED


class OperationInvalid(VirtError):
    code = Code.OPERATION_INVALID


class OperationDenied(VirtError):
    code = Code.OPERATION_DENIED


class OperationTimeout(VirtError):
    code = Code.OPERATION_TIMEOUT


class OperationAborted(VirtError):
    code = Code.OPERATION_ABORTED


class OperationUnsupported(VirtError):
    code = Code.OPERATION_UNSUPPORTED


class ArgumentUnsupported(VirtError):
    code = Code.ARGUMENT_UNSUPPORTED


class ConfigUnsupported(VirtError):
    code = Code.CONFIG_UNSUPPORTED


class ConfSyntax(VirtError):
    code = Code.CONF_SYNTAX


class XmlError(VirtError):
    """A document libvirt would call badly formed or out of range (code 27)."""

    code = Code.XML_ERROR


class XmlDetail(VirtError):
    """A document that is not well-formed XML, or lacks what its root must have (code 35)."""

    code = Code.XML_DETAIL


class XmlInvalidSchema(VirtError):
    code = Code.XML_INVALID_SCHEMA


class NoConnect(VirtError):
    code = Code.NO_CONNECT


class NoName(VirtError):
    """A description without a name."""

    code = Code.NO_NAME


class NoDomain(VirtError):
    code = Code.NO_DOMAIN


class NoServer(VirtError):
    """The admin program knows no server of this name."""

    code = Code.NO_SERVER


class NoClient(VirtError):
    """The admin program knows no client of this number."""

    code = Code.NO_CLIENT


class NoDomainMetadata(VirtError):
    code = Code.NO_DOMAIN_METADATA


class NoNetwork(VirtError):
    code = Code.NO_NETWORK
    domain = From.NETWORK


class NoStoragePool(VirtError):
    code = Code.NO_STORAGE_POOL
    domain = From.STORAGE


class NoSecret(VirtError):
    code = Code.NO_SECRET
    domain = From.SECRET


class Overflow(VirtError):
    code = Code.OVERFLOW


class AccessDenied(VirtError):
    code = Code.ACCESS_DENIED
    domain = From.ACCESS


class AuthFailed(VirtError):
    code = Code.AUTH_FAILED
    domain = From.AUTH


class AuthCancelled(VirtError):
    code = Code.AUTH_CANCELLED
    domain = From.AUTH


class AuthUnavailable(VirtError):
    code = Code.AUTH_UNAVAILABLE
    domain = From.AUTH


class DBusServiceError(VirtError):
    """Another program's error, over D-Bus."""

    code = Code.DBUS_SERVICE
    domain = From.DBUS


class AgentUnresponsive(VirtError):
    code = Code.AGENT_UNRESPONSIVE


class HookFailed(VirtError):
    code = Code.HOOK_SCRIPT_FAILED
    domain = From.HOOK


class CpuIncompatible(VirtError):
    code = Code.CPU_INCOMPATIBLE


class RpcError(VirtError):
    """A call that breaks the protocol's rules (code 39)."""

    code = Code.RPC
    domain = From.RPC


class SystemError_(VirtError):
    """A failed system call: `detail` says what was tried, `int1` is the errno."""

    code = Code.SYSTEM_ERROR


def from_os_error(exc: OSError, what: str, *, domain: From = From.NONE) -> VirtError:
    """The client's error for a failed system call: "WHAT: STRERROR" with errno in int1."""
    number = exc.errno or 0
    reason = os.strerror(number) if number else str(exc)  # Python's own refusals have no number
    return SystemError_(f"{what}: {reason}", domain=domain, int1=number)
