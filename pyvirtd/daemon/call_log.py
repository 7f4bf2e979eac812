"""One entry in the log for each call that changes something: who, from where, which call, about what, how it ended.

The journal gets it whatever the log's level is (see pyvirtd.log); its fields are PYVIRTD_CALL, PYVIRTD_OBJECT...
"""

import logging
import pwd
from typing import Any

from pyvirtd.api.rpc import ADMIN, Procedure
from pyvirtd.core.access import Identity
from pyvirtd.errors import VirtError
from pyvirtd.log import ENTRY

log = logging.getLogger(__name__)


class _UserName:
    """A user's name, looked up where it is written down: that thread may wait for a name service."""

    def __init__(self, uid: int) -> None:
        self._uid = uid

    def __str__(self) -> str:
        try:
            return pwd.getpwuid(self._uid).pw_name
        except KeyError:
            return ""


def changes(procedure: Procedure) -> bool:
    """Whether a call leaves an entry: all that a read-only client may not do."""
    return not procedure.read_only and procedure.program is not ADMIN


def log_call(number: int, identity: Identity, call: str, obj: Any, error: VirtError | None, duration_ms: float) -> None:
    """Write down a call of connection `number` about an object (None: no one object), with its error if it failed."""
    fields: dict[str, object] = {"call": call, "object": getattr(obj, "name", ""), "connection": number}
    uuid = getattr(obj, "uuid_text", "")
    known = {
        "object_uuid": uuid,
        "uid": identity.uid,
        "user": None if identity.uid is None else _UserName(identity.uid),
        "pid": identity.pid,
        "sasl_user": identity.sasl_user_name,
        "x509_dname": identity.x509_dname,
        "selinux_context": identity.selinux_context,
        "address": identity.address,
    }
    fields |= {name: value for name, value in known.items() if value not in (None, "")}
    fields["result"] = "success" if error is None else "failed"
    if error is not None:
        fields |= {"error_code": int(error.code), "error": error.message}
    fields["duration_ms"] = f"{duration_ms:.1f}"
    who = identity.address or f"uid {identity.uid} pid {identity.pid}"
    outcome = "done" if error is None else f"failed, {error.message}"
    text = f"conn={number} {who}: {call} {fields['object']}: {outcome} ({duration_ms:.1f} ms)"
    extra = {"fields": fields, ENTRY: True}
    # Made by hand: the logger's level does not count.
    log.handle(log.makeRecord(log.name, logging.INFO, __file__, 0, text, (), None, "log_call", extra))
