"""CPUs, cells and caches read from a made-up sysfs."""

from pathlib import Path

import pytest

from pyvirtd.core.host_topology import CacheBank, format_list, node_numbers, parse_list, read_topology


def write(root: Path, path: str, text: object) -> None:
    file = root / path
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(f"{text}\n")


def make_host(
    root: Path, *, nodes: int = 1, sockets: int = 1, cores: int = 2, threads: int = 1, offline: tuple[int, ...] = ()
) -> None:
    """`sockets` are in each node; CPU numbers run over nodes, sockets, cores and threads in turn."""
    total = nodes * sockets * cores * threads
    online = sorted(set(range(total)) - set(offline))
    write(root, "sys/devices/system/cpu/present", f"0-{total - 1}")
    write(root, "sys/devices/system/cpu/online", ",".join(map(str, online)))
    write(root, "sys/devices/system/node/online", f"0-{nodes - 1}" if nodes > 1 else "0")
    for cpu in range(total):
        if cpu in offline:
            continue
        socket, rest = divmod(cpu, cores * threads)
        first = cpu - rest % threads
        topology = f"sys/devices/system/cpu/cpu{cpu}/topology"
        write(root, f"{topology}/physical_package_id", socket)
        write(root, f"{topology}/die_id", 0)
        write(root, f"{topology}/core_id", rest // threads)
        write(root, f"{topology}/thread_siblings_list", f"{first}-{first + threads - 1}" if threads > 1 else cpu)
    per_node = total // nodes
    for node in range(nodes):
        here = [cpu for cpu in online if cpu // per_node == node]
        write(root, f"sys/devices/system/node/node{node}/cpulist", ",".join(map(str, here)))
        write(
            root,
            f"sys/devices/system/node/node{node}/distance",
            " ".join("10" if n == node else "21" for n in range(nodes)),
        )


@pytest.mark.parametrize(("text", "numbers"), [("0-3,8", {0, 1, 2, 3, 8}), ("5", {5}), ("", set()), ("0-1\n", {0, 1})])
def test_kernel_lists_are_read(text: str, numbers: set[int]) -> None:
    assert parse_list(text) == numbers


@pytest.mark.parametrize("text", ["0-3,8", "1", "0,2,4-5", ""])
def test_lists_are_written_as_they_are_read(text: str) -> None:
    assert format_list(parse_list(text)) == text


def test_product_of_the_parts_is_all_cpus(tmp_path: Path) -> None:
    make_host(tmp_path, nodes=2, sockets=1, cores=4, threads=2)
    found = read_topology(tmp_path)
    assert (found.nodes, found.sockets, found.cores, found.threads) == (2, 1, 4, 2)


def test_cpus_off_line_make_every_cpu_a_core(tmp_path: Path) -> None:
    make_host(tmp_path, nodes=1, cores=2, threads=2, offline=(3,))
    found = read_topology(tmp_path)
    assert (found.nodes, found.sockets, found.cores, found.threads) == (1, 1, 2, 2)
    make_host(tmp_path / "b", nodes=2, cores=2, threads=2, offline=(4, 5, 6, 7))
    found = read_topology(tmp_path / "b")
    assert found.nodes * found.sockets * found.cores * found.threads == 8


def test_unequal_sockets_fall_back_to_one_socket(tmp_path: Path) -> None:
    make_host(tmp_path, nodes=1, sockets=2, cores=2)
    write(tmp_path, "sys/devices/system/cpu/cpu3/topology/physical_package_id", 0)
    write(tmp_path, "sys/devices/system/cpu/cpu3/topology/core_id", 7)
    found = read_topology(tmp_path)
    assert (found.nodes, found.sockets, found.cores, found.threads) == (1, 1, 4, 1)


def test_host_without_numa_is_one_cell(tmp_path: Path) -> None:
    make_host(tmp_path)
    (tmp_path / "sys/devices/system/node/online").unlink()
    assert node_numbers(tmp_path) == []
    (cell,) = read_topology(tmp_path).cells
    assert [cpu.id for cpu in cell.cpus] == [0, 1]
    assert cell.distances == ()


def test_distances_name_the_nodes(tmp_path: Path) -> None:
    make_host(tmp_path, nodes=2)
    assert read_topology(tmp_path).cells[1].distances == ((0, 21), (1, 10))


def test_shared_cache_is_one_bank_and_small_caches_are_left_out(tmp_path: Path) -> None:
    make_host(tmp_path)
    for cpu in (0, 1):
        for index, level, size in ((0, 1, "32K"), (3, 3, "32768K")):
            cache = f"sys/devices/system/cpu/cpu{cpu}/cache/index{index}"
            values = {"level": level, "id": 0, "size": size, "type": "Unified", "shared_cpu_list": "0-1"}
            for name, value in values.items():
                write(tmp_path, f"{cache}/{name}", value)
    assert read_topology(tmp_path).caches == (CacheBank(0, 3, "both", 32768, "0-1"),)


def test_package_of_minus_one_is_socket_zero(tmp_path: Path) -> None:
    make_host(tmp_path)
    write(tmp_path, "sys/devices/system/cpu/cpu1/topology/physical_package_id", -1)
    assert read_topology(tmp_path).cells[0].cpus[1].socket == 0
