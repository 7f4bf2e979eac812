"""QEMU's answers read as figures."""

from pyvirtd.constants.domain import DomainMemoryStatTags as Tag
from pyvirtd.constants.host import TypedParameterType as Kind
from pyvirtd.drivers.qemu.stats_qmp import (
    Answer,
    BlockStats,
    Node,
    Traffic,
    balloon_figures,
    block_nodes,
    device_alias,
    kvm_params,
    kvm_schema,
)
from tests.drivers.qemu.stats_support import drive, node, node_stats


def test_a_drive_is_named_by_the_device_it_belongs_to() -> None:
    assert device_alias({"device": "", "qdev": "/machine/peripheral/virtio-disk0/virtio-backend"}) == "virtio-disk0"
    assert device_alias({"device": "", "qdev": "/machine/peripheral/usb-disk0/usb-disk0.0/legacy[0]"}) == "usb-disk0"
    assert device_alias({"device": "", "qdev": "sata0-0-1"}) == "sata0-0-1"
    assert device_alias({"device": "drive-sd-disk0"}) == "sd-disk0"


def test_traffic_is_the_drives_and_offsets_are_those_of_the_files_below() -> None:
    below = node_stats("libvirt-5-format", highest=0)
    stats = node_stats("libvirt-4-format", highest=1376256, below=below, rd_operations=2, rd_bytes=4608, wr_bytes=7)
    found = BlockStats.of([drive("virtio-disk0", stats)])
    assert found.traffic == {"virtio-disk0": Traffic(rd_reqs=2, rd_bytes=4608, wr_bytes=7)}
    assert found.highest == {"libvirt-4-format": 1376256, "libvirt-5-format": 0}


def test_an_empty_drive_has_traffic_and_no_node() -> None:
    answer = drive("sata0-0-1", node_stats("x", highest=0, rd_operations=3))
    del answer["node-name"]
    found = BlockStats.of([answer])
    assert found.traffic["sata0-0-1"].rd_reqs == 3
    assert found.highest == {}


def test_the_sum_of_traffic_adds_every_field() -> None:
    assert Traffic(*range(1, 9)).plus(Traffic(*range(8))) == Traffic(1, 3, 5, 7, 9, 11, 13, 15)


def test_sizes_of_nodes() -> None:
    found = block_nodes([node("libvirt-1-format", 67108864, 200704, 5), node("libvirt-1-storage", 196616, 200704)])
    assert found["libvirt-1-format"] == Node(67108864, 200704, 5)
    assert found["libvirt-1-storage"].threshold == 0


def test_what_the_guest_never_told_of_its_memory_is_left_out() -> None:
    told = {
        "stats": {
            "stat-swap-in": 2**64 - 1,
            "stat-minor-faults": 2374,
            "stat-free-memory": 88502272,
            "stat-available-memory": 93384704,
        },
        "last-update": 1795407280,
    }
    assert [(figure.name, figure.tag, figure.value) for figure in balloon_figures(told)] == [
        ("minor_fault", Tag.MINOR_FAULT, 2374),
        ("unused", Tag.UNUSED, 86428),
        ("usable", Tag.USABLE, 91196),
        ("last-update", Tag.LAST_UPDATE, 1795407280),
    ]


def test_no_answer_of_the_balloon_tells_nothing() -> None:
    assert balloon_figures({}) == []


SCHEMA = [
    {
        "target": "vcpu",
        "provider": "kvm",
        "stats": [
            {"name": "exits", "type": "cumulative"},
            {"name": "blocking", "type": "instant", "unit": "boolean"},
            {"name": "halt_wait_hist", "type": "log2-histogram"},
        ],
    },
    {"target": "vm", "provider": "kvm", "stats": [{"name": "max_mmu_rmap_size", "type": "peak"}]},
]


def test_kvm_figures_are_named_by_how_they_count_and_histograms_are_left_out() -> None:
    schema = kvm_schema(SCHEMA)
    stats: list[Answer] = [
        {"name": "exits", "value": 7},
        {"name": "blocking", "value": True},
        {"name": "halt_wait_hist", "value": [0, 1]},
        {"name": "nobody knows", "value": 1},
    ]
    assert [tuple(param) for param in kvm_params("vcpu.3", stats, schema["vcpu"])] == [
        ("vcpu.3.exits.sum", (Kind.ULLONG, 7)),
        ("vcpu.3.blocking.cur", (Kind.BOOLEAN, 1)),
    ]
    assert [param.field for param in kvm_params("vm", [{"name": "max_mmu_rmap_size", "value": 0}], schema["vm"])] == [
        "vm.max_mmu_rmap_size.max"
    ]
