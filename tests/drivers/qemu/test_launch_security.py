"""Encrypted guests, on a host that has none: QEMU's answers are made up."""

import asyncio
from types import SimpleNamespace
from typing import Any, cast

import pytest

from pyvirtd.api.types import TypedParam, param_string, param_ullong
from pyvirtd.constants.domain import DomainPausedReason, DomainState
from pyvirtd.drivers.qemu.capabilities.model import SevCapability
from pyvirtd.drivers.qemu.launch_security import ADDRESS, HEADER, SECRET, HostSecurity, LaunchSecurity
from pyvirtd.errors import InvalidArg, OperationInvalid, OperationUnsupported
from tests.drivers.qemu.stats_support import off, running
from tests.drivers.qemu.tune_support import FakeDriver

SEV = "<launchSecurity type='sev'><policy>0x0001</policy></launchSecurity>"
GIVEN = [param_string(HEADER, "aGVhZA=="), param_string(SECRET, "c2VjcmV0")]


def part() -> LaunchSecurity:
    return LaunchSecurity(FakeDriver().as_driver)


def values(params: list[TypedParam]) -> dict[str, Any]:
    return {name: value for name, (_, value) in params}


def host(sev: SevCapability | None) -> HostSecurity:
    async def native() -> Any:
        return SimpleNamespace(sev=sev)

    return HostSecurity(cast("Any", SimpleNamespace(documents=SimpleNamespace(native=native))))


def test_a_host_without_sev_says_so() -> None:
    with pytest.raises(OperationUnsupported, match="QEMU does not support SEV guest"):
        asyncio.run(host(None).node_get_sev_info(0, 0))


def test_a_host_with_sev_tells_its_certificates_to_who_asks_for_them() -> None:
    part = host(SevCapability("cGRo", "Y2VydA==", "aWQ=", 51, 1))
    reply = asyncio.run(part.node_get_sev_info(0, 0))
    assert (reply.params, reply.nparams) == ([], 7)
    found = values(asyncio.run(part.node_get_sev_info(7, 0)).params)
    assert list(found) == [
        "pdh",
        "cert-chain",
        "cbitpos",
        "reduced-phys-bits",
        "max-guests",
        "max-es-guests",
        "cpu0-id",
    ]
    assert (found["pdh"], found["cbitpos"], found["cpu0-id"]) == ("cGRo", 51, "aWQ=")


def test_a_plain_guest_has_no_security_and_takes_no_secret() -> None:
    dom = off()
    assert asyncio.run(part().domain_get_launch_security_info(dom, 0)) == []
    with pytest.raises(OperationUnsupported, match="only supported in SEV-enabled domains"):
        asyncio.run(part().domain_set_launch_security_state(dom, GIVEN, 0))


def test_a_guest_is_measured() -> None:
    dom = off(extra=SEV)
    answers = {
        "query-sev": {"enabled": True, "api-major": 1, "api-minor": 2, "build-id": 3, "policy": 1},
        "query-sev-launch-measure": {"data": "bWVhc3VyZQ=="},
    }
    running(dom, answers)
    assert values(asyncio.run(part().domain_get_launch_security_info(dom, 0))) == {
        "sev-measurement": "bWVhc3VyZQ==",
        "sev-api-major": 1,
        "sev-api-minor": 2,
        "sev-build-id": 3,
        "sev-policy": 1,
    }


def test_a_secret_is_for_a_guest_that_waits() -> None:
    dom = off(extra=SEV)
    monitor = running(dom, {"sev-inject-launch-secret": {}})
    with pytest.raises(InvalidArg, match="are required"):
        asyncio.run(part().domain_set_launch_security_state(dom, GIVEN[:1], 0))
    with pytest.raises(OperationInvalid, match="domain must be in a paused state"):
        asyncio.run(part().domain_set_launch_security_state(dom, GIVEN, 0))
    assert monitor.asked == []
    dom.set_state(DomainState.PAUSED, DomainPausedReason.USER)
    asyncio.run(part().domain_set_launch_security_state(dom, [*GIVEN, param_ullong(ADDRESS, 4096)], 0))
    told = {"packet-header": "aGVhZA==", "secret": "c2VjcmV0", "gpa": 4096}
    assert monitor.told["sev-inject-launch-secret"] == told
