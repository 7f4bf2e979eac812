"""Per-call access control by polkit's rules. https://libvirt.org/aclpolkit.html"""

import asyncio
import logging
import time
import weakref
from collections.abc import Callable, Sequence

from pyvirtd.core.access.actions import action_of
from pyvirtd.core.access.identity import Identity
from pyvirtd.core.access.polkit import Authority
from pyvirtd.core.access.rules import Access, Question, Rules
from pyvirtd.errors import VirtError

log = logging.getLogger(__name__)

# polkit says when its rules, sessions or authorizations change; what a rule reads beyond that (the time of the day, a
# file) takes effect after this long.
KEEP_S = 5.0
KEPT_MAX = 4096  # answers kept for one connection
AT_ONCE = 32  # questions of one connection that are on their way; another one's wait behind as many at most


class PolkitRules(Rules):
    """Asks as one process."""

    def __init__(self, authority: Authority, identity: Identity, pidfd: Callable[[], int | None]) -> None:
        self._authority = authority
        self._identity = identity
        self._pidfd = pidfd
        self._kept: dict[Question, tuple[float, bool]] = {}
        self._places = asyncio.Semaphore(AT_ONCE)
        self._epoch = 0

    def forget(self) -> None:
        """Answers given so far no longer count, nor do those on their way."""
        self._kept.clear()
        self._epoch += 1

    def known(self, question: Question) -> bool | None:
        kept = self._kept.get(question)
        if kept is None or kept[0] < time.monotonic():
            return None
        return kept[1]

    async def ask(self, questions: Sequence[Question]) -> list[bool]:
        wanted = dict.fromkeys(questions)
        found = {question: answer for question in wanted if (answer := self.known(question)) is not None}
        missing = [question for question in wanted if question not in found]
        answers = await asyncio.gather(*(self._one(question) for question in missing))
        found |= zip(missing, answers, strict=True)
        return [found[question] for question in questions]

    async def _one(self, question: Question) -> bool:
        async with self._places:
            if (answer := self.known(question)) is not None:
                return answer
            details = (("connect_driver", question.driver), *question.details)
            epoch = self._epoch
            try:
                verdict = await self._authority.check(
                    self._identity, action_of(question.permission), details, pidfd=self._pidfd
                )
            except VirtError as exc:
                log.warning("denied %s to pid %s: %s", question.permission, self._identity.pid, exc.message)
                return False
            if verdict.keep and epoch == self._epoch:
                if len(self._kept) >= KEPT_MAX:
                    self._kept.clear()
                self._kept[question] = time.monotonic() + KEEP_S, verdict.authorized
            return verdict.authorized


class PolkitAccess(Access):
    """The access driver "polkit"."""

    def __init__(self, authority: Authority) -> None:
        self._authority = authority
        self._rules: weakref.WeakSet[PolkitRules] = weakref.WeakSet()
        authority.on_change(self._forget)

    def rules_for(self, identity: Identity, pidfd: Callable[[], int | None]) -> Rules | None:
        # polkit has no rules for root: whoever is root may.
        if identity.uid == 0:
            return None
        rules = PolkitRules(self._authority, identity, pidfd)
        self._rules.add(rules)
        return rules

    def _forget(self) -> None:
        for rules in list(self._rules):
            rules.forget()
