"""The CPU in the definition of a guest that runs: said in full, checked, and forgotten where the guest moves."""

import re
from typing import Any

import pytest

from pyvirtd.drivers.qemu import cpu_live
from pyvirtd.errors import CpuIncompatible, OperationFailed
from pyvirtd.model.cpu import Cpu
from pyvirtd.model.domain import DomainDef
from tests.drivers.qemu.capabilities_data import make_capabilities
from tests.support.domains import bare_domain
from tests.support.host import SessionHost


def domain(cpu: str) -> DomainDef:
    return DomainDef.parse(bare_domain("one", extra=cpu))


def settled(cpu: str) -> Cpu:
    live = domain(cpu)
    cpu_live.settle(live, make_capabilities())
    assert live.cpu is not None
    return live.cpu


def policies(cpu: Cpu) -> dict[str, Any]:
    return {feature.name: feature.policy for feature in cpu.feature}


def test_a_host_model_is_named_before_the_start() -> None:
    found = settled("<cpu mode='host-model'><feature policy='disable' name='aes'/></cpu>")
    assert found.mode == "custom"
    assert found.model is not None
    assert (found.model.name, found.model.fallback, found.vendor) == ("qemu64", "forbid", "AMD")
    assert policies(found)["aes"] == "disable"
    assert policies(found)["pclmuldq"] == "require"


def test_at_least_a_model_is_all_that_the_host_has() -> None:
    found = settled("<cpu match='minimum'><model>Nehalem</model></cpu>")
    assert (found.match, found.vendor) == ("exact", None)
    assert found.model is not None
    assert found.model.name == "qemu64"


def test_optional_features_follow_the_host() -> None:
    found = settled(
        "<cpu><model>qemu64</model><feature policy='optional' name='aes'/>"
        "<feature policy='optional' name='avx2'/></cpu>"
    )
    assert policies(found) == {"aes": "require", "avx2": "disable"}


def test_what_newer_qemus_left_out_is_off() -> None:
    assert policies(settled("<cpu><model>EPYC</model></cpu>"))["monitor"] == "disable"


def test_a_partial_check_refuses_what_the_host_lacks() -> None:
    text = "<cpu check='partial'><model>qemu64</model><feature name='avx2'/></cpu>"
    with pytest.raises(CpuIncompatible, match="Host CPU does not provide required features: avx2"):
        settled(text)
    settled(text.replace("partial", "none"))


def test_all_that_the_host_has_needs_no_words() -> None:
    assert settled("<cpu mode='maximum'/>").feature == []


def cpu_of(session: SessionHost, flags: str = "") -> str:
    found = re.search(r"<cpu [^>]*/>|<cpu .*?</cpu>", session.ok(f"dumpxml one {flags}"), re.DOTALL)
    assert found is not None
    return re.sub(r"\s*\n\s*", "", found[0])


@pytest.mark.guest
def test_the_live_cpu_is_what_qemu_gives(session: SessionHost) -> None:
    session.write("/one.xml", bare_domain("one", extra="<cpu><model>Haswell</model></cpu>"))
    session.ok(f"create --paused {session.path('/one.xml')}")
    live = cpu_of(session)
    assert live.startswith("<cpu mode='custom' match='exact' check='full'><model fallback='forbid'>Haswell</model>")
    assert "<feature policy='disable' name='hle'/>" in live
    assert "<feature policy='require' name='hypervisor'/>" in live
    assert cpu_of(session, "--inactive") == live
    moved = "<cpu mode='custom' match='exact' check='none'><model fallback='forbid'>Haswell</model></cpu>"
    assert cpu_of(session, "--migratable") == moved
    session.kill()
    session.start()
    assert cpu_of(session) == live
    assert cpu_of(session, "--migratable") == moved
    session.ok("destroy one")


@pytest.mark.guest
@pytest.mark.parametrize(
    ("check", "message"),
    [
        ("partial", "Host CPU does not provide required features: pcid"),
        ("full", r"guest CPU doesn't match specification: extra features: .*hypervisor.*, missing features: pcid"),
    ],
)
def test_a_cpu_that_the_guest_would_not_get_is_refused(session: SessionHost, check: str, message: str) -> None:
    cpu = f"<cpu check='{check}'><model>qemu64</model><feature name='pcid'/></cpu>"
    session.write("/one.xml", bare_domain("one", extra=cpu))
    done = session.virsh(f"create --paused {session.path('/one.xml')}")
    assert re.search(message, done.stderr), done.stderr
    assert session.ok("list --all --name") == ""


@pytest.mark.parametrize(("feature", "words"), [("aes", "qemu64,aes=off"), ("cvt16", "qemu64"), ("cmt", "qemu64")])
def test_what_qemu_never_gives_is_not_turned_off(session: SessionHost, feature: str, words: str) -> None:
    cpu = f"<cpu><model>qemu64</model><feature policy='disable' name='{feature}'/></cpu>"
    session.write("/four.xml", bare_domain("four", extra=cpu))
    shown = session.ok(f"domxml-to-native qemu-argv {session.path('/four.xml')}")
    assert re.findall(r"-cpu (\S+)", shown) == [words]


def test_updating_an_inactive_definition(session: SessionHost) -> None:
    session.define(bare_domain("two", extra="<cpu mode='host-model'/>"))
    assert "<cpu mode='host-model'" in session.ok("dumpxml two")
    updated = session.ok("dumpxml two --update-cpu")
    assert "<cpu mode='custom' match='exact' check='partial'>" in updated
    assert "<model fallback='allow'>" in updated
    session.ok("undefine two")


def test_a_portable_definition_leaves_out_what_every_pc_has(session: SessionHost) -> None:
    session.define(bare_domain("three", machine="pc"))
    assert "model='pci-root'" in session.ok("dumpxml three")
    moved = session.ok("dumpxml three --migratable")
    assert "pci-root" not in moved
    assert "type='keyboard'" not in moved
    session.ok("undefine three")


def test_a_full_check_that_fails_names_both_kinds() -> None:
    with pytest.raises(OperationFailed, match="extra features: lm, missing features: sse,avx2"):
        cpu_live.check_full({"avx2", "sse", "fpu"}, {"lm", "fpu"})
