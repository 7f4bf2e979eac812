"""Memory, page pools and page sharing read from and written to a made-up sysfs."""

from pathlib import Path

import pytest

from pyvirtd.api.types import TypedParam, param_uint, param_ullong
from pyvirtd.constants.host import TypedParameterType
from pyvirtd.core import host_memory
from pyvirtd.core.host_memory import WHOLE_HOST, Memory, Pages
from pyvirtd.errors import ArgumentUnsupported, InvalidArg, OperationFailed, OperationUnsupported
from tests.core.test_host_topology import write

NODE = "sys/devices/system/node/node0"
PAGE = host_memory.page_size_kib()


@pytest.fixture
def root(tmp_path: Path) -> Path:
    write(tmp_path, "sys/devices/system/node/online", "0-1")
    for node, (total, free) in enumerate([(4_000_000, 1_000_000), (2_000_000, 500_000)]):
        text = f"Node {node} MemTotal:  {total} kB\nNode {node} MemFree:  {free} kB\nNode {node} MemUsed: 1 kB"
        write(tmp_path, f"sys/devices/system/node/node{node}/meminfo", text)
    for pools in (NODE, "sys/kernel/mm"):
        write(tmp_path, f"{pools}/hugepages/hugepages-2048kB/nr_hugepages", 10)
        write(tmp_path, f"{pools}/hugepages/hugepages-2048kB/free_hugepages", 4)
    return tmp_path


def test_meminfo_of_host_and_node_read_alike() -> None:
    assert host_memory.parse_meminfo("MemTotal:  5 kB\nActive(anon): 7 kB\n") == {"MemTotal": 5, "Active(anon)": 7}
    assert host_memory.parse_meminfo("Node 3 MemFree:  5 kB\n") == {"MemFree": 5}


def test_host_memory_is_the_sum_of_its_nodes(root: Path) -> None:
    assert host_memory.host_memory(root) == Memory(6_000_000, 1_500_000)


def test_missing_node_has_no_memory(root: Path) -> None:
    assert host_memory.node_memory(2, root) is None


def test_huge_pages_take_memory_from_the_ordinary_ones(root: Path) -> None:
    memory = Memory(4_000_000, 1_000_000)
    ordinary, huge = host_memory.all_pages(0, memory, root)
    assert huge == Pages(2048, 10, 4)
    assert ordinary == Pages(PAGE, (4_000_000 - 20480) // PAGE, 1_000_000 // PAGE)


def test_page_size_the_node_lacks_is_named(root: Path) -> None:
    with pytest.raises(OperationFailed, match="page size 3 is not available on node 0"):
        host_memory.free_pages(0, 3, root)
    with pytest.raises(OperationFailed, match=r"page size 3 is not available$"):
        host_memory.free_pages(WHOLE_HOST, 3, root)


@pytest.mark.parametrize(("add", "after"), [(True, "13"), (False, "3")])
def test_pool_is_set_or_added_to(root: Path, add: bool, after: str) -> None:
    host_memory.set_huge_pages(0, 2048, 3, add=add, root=root)
    assert (root / NODE / "hugepages/hugepages-2048kB/nr_hugepages").read_text() == after


def test_pool_of_ordinary_pages_cannot_be_set(root: Path) -> None:
    with pytest.raises(OperationUnsupported, match="system pages pool can't be modified"):
        host_memory.set_huge_pages(0, PAGE, 3, add=True, root=root)


def test_kernel_that_gives_fewer_pages_is_an_error(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Path, "write_text", lambda _path, _text: 0)
    with pytest.raises(OperationFailed, match=r"Unable to allocate 3 pages\. Allocated only 0"):
        host_memory.set_huge_pages(0, 2048, 3, add=True, root=root)


def test_page_sharing_shows_what_the_kernel_has(root: Path) -> None:
    write(root, "sys/kernel/mm/ksm/pages_to_scan", 100)
    write(root, "sys/kernel/mm/ksm/full_scans", 7)
    assert host_memory.ksm_parameters(root) == [param_uint("shm_pages_to_scan", 100), param_ullong("shm_full_scans", 7)]


def test_page_sharing_writes_nothing_if_one_name_is_bad(root: Path) -> None:
    write(root, "sys/kernel/mm/ksm/pages_to_scan", 100)
    with pytest.raises(ArgumentUnsupported, match="parameter 'shm_pages_shared' not supported"):
        host_memory.set_ksm_parameters([param_uint("shm_pages_to_scan", 5), param_uint("shm_pages_shared", 1)], root)
    assert (root / "sys/kernel/mm/ksm/pages_to_scan").read_text() == "100\n"


def test_page_sharing_refuses_wrong_type_doublets_and_absent_files(root: Path) -> None:
    write(root, "sys/kernel/mm/ksm/pages_to_scan", 100)
    with pytest.raises(InvalidArg, match="invalid type 'ullong' for parameter 'shm_pages_to_scan', expected 'uint'"):
        host_memory.set_ksm_parameters([param_ullong("shm_pages_to_scan", 1)], root)
    with pytest.raises(InvalidArg, match="occurs multiple times"):
        host_memory.set_ksm_parameters([param_uint("shm_pages_to_scan", 1)] * 2, root)
    with pytest.raises(OperationUnsupported, match="'shm_sleep_millisecs' is not supported by this kernel"):
        host_memory.set_ksm_parameters([param_uint("shm_sleep_millisecs", 1)], root)


def test_page_sharing_is_written_as_it_comes_from_the_wire(root: Path) -> None:
    write(root, "sys/kernel/mm/ksm/pages_to_scan", 100)
    plain_number = int(TypedParameterType.UINT)
    host_memory.set_ksm_parameters([TypedParam("shm_pages_to_scan", (plain_number, 5))], root)
    assert (root / "sys/kernel/mm/ksm/pages_to_scan").read_text() == "5"
