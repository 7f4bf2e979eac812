"""Counts of vcpus in definitions; the expected documents are what libvirtd 9.0 makes of the same changes."""

import re

import pytest

from pyvirtd.drivers.qemu.tune_vcpus import set_max_vcpus, set_vcpus
from pyvirtd.errors import InvalidArg
from pyvirtd.model.domain import DomainDef
from tests.drivers.qemu.stats_support import definition

LISTED = (
    "<vcpu current='2'>4</vcpu><vcpus><vcpu id='0' enabled='yes' hotpluggable='no' order='1'/>"
    "<vcpu id='1' enabled='no' hotpluggable='yes'/><vcpu id='2' enabled='yes' hotpluggable='yes' order='2'/>"
    "<vcpu id='3' enabled='no' hotpluggable='yes'/></vcpus>"
)
PINNED = "<cputune><vcpupin vcpu='0' cpuset='1'/><vcpupin vcpu='3' cpuset='0'/></cputune>"


def shown(made: DomainDef) -> tuple[str, str]:
    """current/count, and of each listed vcpu whether it is enabled and hotpluggable: y, n, or - for neither."""
    text = made.format()
    head = re.search(r"<vcpu placement='static'(?: current='(\d+)')?>(\d+)<", text)
    assert head is not None
    letters = {"yes": "y", "no": "n", "": "-"}
    listed = re.findall(r"<vcpu id='\d+' enabled='(\w+)'(?: hotpluggable='(\w+)')?/>", text)
    return f"{head[1] or head[2]}/{head[2]}", " ".join(letters[e] + letters[h] for e, h in listed)


def test_a_count_below_the_maximum_is_the_current_one() -> None:
    made = definition(vcpu="<vcpu current='2'>4</vcpu>")
    set_vcpus(made, 3, hotpluggable=False)
    assert shown(made) == ("3/4", "")
    set_vcpus(made, 4, hotpluggable=False)
    assert shown(made) == ("4/4", "")
    assert made.vcpu.current is None


def test_hotpluggable_vcpus_are_listed_and_leave_first() -> None:
    made = definition(vcpu="<vcpu current='2'>4</vcpu>")
    set_vcpus(made, 3, hotpluggable=True)
    assert shown(made) == ("3/4", "yn yn yy ny")
    set_vcpus(made, 1, hotpluggable=False)
    assert shown(made) == ("1/4", "yn ny ny ny")
    set_vcpus(made, 4, hotpluggable=False)
    assert shown(made) == ("4/4", "yn yn yn yn")


def test_listed_vcpus_come_lowest_first_and_lose_their_order() -> None:
    made = definition(vcpu=LISTED)
    set_vcpus(made, 3, hotpluggable=False)
    assert shown(made) == ("3/4", "yn yn yy ny")


def test_a_new_maximum_keeps_what_is_enabled_below_it() -> None:
    made = definition(vcpu=LISTED)
    set_max_vcpus(made, 6)
    assert shown(made) == ("2/6", "yn ny yy ny n- n-")
    set_max_vcpus(made, 2)
    assert shown(made) == ("1/2", "yn ny")


def test_pins_of_vcpus_that_go_go_with_them() -> None:
    made = definition(vcpu="<vcpu>4</vcpu>", extra=PINNED)
    set_max_vcpus(made, 2)
    assert made.cputune is not None
    assert [pin.vcpu for pin in made.cputune.vcpupin] == [0]


def test_more_than_the_maximum_is_refused() -> None:
    with pytest.raises(InvalidArg, match="greater than max allowable vcpus for the persistent domain: 3 > 2"):
        set_vcpus(definition(), 3, hotpluggable=False)


def test_the_maximum_must_fit_the_topology() -> None:
    made = definition(vcpu="<vcpu>4</vcpu>", extra="<cpu><topology sockets='2' cores='2' threads='1'/></cpu>")
    with pytest.raises(InvalidArg, match="CPU topology doesn't match the desired vcpu count"):
        set_max_vcpus(made, 8)
    set_max_vcpus(made, 4)


def test_vcpus_that_no_numa_cell_has_are_the_first_ones() -> None:
    made = definition(vcpu="<vcpu>4</vcpu>", extra="<cpu><numa><cell id='0' cpus='0-3' memory='65536'/></numa></cpu>")
    with pytest.raises(InvalidArg, match="Number of CPUs in <numa> exceeds the desired maximum vcpu count"):
        set_max_vcpus(made, 2)
    set_max_vcpus(made, 6)
    assert "cpus='0-5'" in made.format()


def test_a_definition_is_never_given_what_it_could_not_be_read_with() -> None:
    made = definition()
    with pytest.raises(InvalidArg, match="65536 > 65535"):
        set_max_vcpus(made, 65536)
    set_max_vcpus(made, 65535)
    assert DomainDef.parse(made.format()).vcpu.count == 65535
