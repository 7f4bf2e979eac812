"""What is asked about a call, and the interface of whoever decides."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

from pyvirtd.core.access.identity import Identity
from pyvirtd.core.access.subjects import Details


class Question(NamedTuple):
    """Whether the caller has a permission such as "domain:start", on a connection to a driver, about an object."""

    permission: str
    driver: str  # libvirt's name of the connection's driver
    details: Details


class Rules:
    """Decides for one connection. Answers are only as old as whoever takes the decisions allows."""

    def known(self, question: Question) -> bool | None:
        """The answer, if it needs no asking."""
        raise NotImplementedError

    async def ask(self, questions: Sequence[Question]) -> list[bool]:
        """The answers, in the order of the questions; what cannot be answered is denied. Bounded in time."""
        raise NotImplementedError


class Access:
    """No rules: whom the socket's mode and the authentication let in may do everything."""

    def rules_for(self, identity: Identity, pidfd: Callable[[], int | None]) -> Rules | None:
        """What decides for a caller; None where it may do everything. `pidfd` opens a descriptor of its process."""
        return None
