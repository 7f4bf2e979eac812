"""Statistics of many domains in one call.

Running guests are asked side by side, each with a deadline of its own: one that does not answer costs its own figures
only. The rest is in definitions and in /proc.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

from pyvirtd.api.types import DomainStatsRecord
from pyvirtd.constants.domain import DomainStatsTypes as Group
from pyvirtd.drivers.qemu.domain import Guest, QemuDomain
from pyvirtd.drivers.qemu.shares import read_counts
from pyvirtd.drivers.qemu.stats_image import Image, measure_all
from pyvirtd.drivers.qemu.stats_net import read_counters
from pyvirtd.drivers.qemu.stats_off import OffStats, state_params
from pyvirtd.drivers.qemu.stats_running import Known, RunningStats, commands_for, images_of
from pyvirtd.errors import OperationTimeout, VirtError

ALL = Group(sum(Group))
GUEST_S = 5.0  # for one guest's QEMU; a healthy one takes milliseconds
NOWAIT_S = 0.5
IMAGES_S = 5.0


@dataclass(slots=True)
class Wanted:
    """What a call asks for."""

    groups: Group
    backing: bool = False
    nowait: bool = False

    @property
    def seconds(self) -> float:
        """How long one guest may take."""
        return NOWAIT_S if self.nowait else GUEST_S


class BulkStats:
    """The collector of one driver."""

    def __init__(self) -> None:
        self._off = OffStats()
        self._known: WeakKeyDictionary[QemuDomain, Known] = WeakKeyDictionary()

    def known(self, dom: QemuDomain, guest: Guest) -> Known:
        """What is known of this run of a domain."""
        known = self._known.get(dom)
        if known is None or known.guest is not guest:
            known = self._known[dom] = Known(guest)
        return known

    async def collect(self, doms: Sequence[QemuDomain], wanted: Wanted) -> list[DomainStatsRecord]:
        """A record for each domain, in their order. A guest that does not answer lacks what only QEMU knows."""
        running = [(dom, dom.guest) for dom in doms if dom.guest is not None]
        asked = asyncio.gather(*(self._ask(dom, guest, wanted) for dom, guest in running))
        images = await self._images(doms, wanted) if wanted.groups & Group.BLOCK else []
        answers, measured = await asyncio.gather(asked, measure_all(images, IMAGES_S))
        sizes = dict(zip(images, measured, strict=True))
        told = {dom: (guest, answer) for (dom, guest), answer in zip(running, answers, strict=True)}
        counters = read_counters() if running and wanted.groups & Group.INTERFACE else {}
        records = []
        for dom in doms:
            guest, answer = told.get(dom, (None, None))
            if guest is not None and answer is not None and dom.guest is guest and dom.live is not None:
                known = self.known(dom, guest)
                stats = RunningStats(
                    dom, guest, dom.live, known, answer, counters, sizes, wanted.groups, wanted.backing
                )
                params = stats.params()
            elif guest is None and dom.guest is None:
                params = self._off.params(dom, wanted.groups, sizes, backing=wanted.backing)
            else:  # it began or ended while the others were asked
                params = list(state_params(dom)) if wanted.groups & Group.STATE else []
            records.append(DomainStatsRecord(dom, params))
        return records

    async def _images(self, doms: Sequence[QemuDomain], wanted: Wanted) -> list[Image]:
        """What must be measured; lets others run meanwhile, as the first time every definition is looked through."""
        images: set[Image] = set()
        for count, dom in enumerate(doms):
            if dom.live is None:
                images.update(self._off.images(dom, backing=wanted.backing))
            else:
                images.update(images_of(dom.live, backing=wanted.backing))
            if count % 100 == 99:
                await asyncio.sleep(0)
        return list(images)

    # --- asking QEMU -----------------------------------------------------------------------------------------

    async def _ask(self, dom: QemuDomain, guest: Guest, wanted: Wanted) -> dict[str, Any]:
        """The answers that came in time, by what they are for; none of a guest that has just ended."""
        if dom.live is None or dom.guest is not guest:
            return {}
        known = self.known(dom, guest)
        mark = known.renew()
        answers = known.recall()
        commands = commands_for(dom.live, known, wanted.groups)
        seconds = NOWAIT_S if known.silent else wanted.seconds  # one that hangs is waited for in full only once
        results = await asyncio.gather(
            *(guest.monitor.execute(name, arguments, seconds) for name, arguments in commands.values()),
            return_exceptions=True,
        )
        known.silent = any(isinstance(result, OperationTimeout) for result in results)
        for key, result in zip(commands, results, strict=True):
            if not isinstance(result, BaseException):
                answers[key] = result
            elif not isinstance(result, VirtError):
                raise result
        known.learn(answers, mark)
        if dom.live is not None and wanted.groups & (Group.CPU_TOTAL | Group.MEMORY):
            answers["resctrl"] = await read_counts(dom.live)
        return answers
