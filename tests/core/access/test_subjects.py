"""The details that rules are written about: https://libvirt.org/aclpolkit.html#object-identity-attributes."""

import tracemalloc
import uuid

import pytest

from pyvirtd.api.rpc import PROCEDURES
from pyvirtd.api.types import (
    DomainRef,
    DomainSnapshotRef,
    InterfaceRef,
    NetworkPortRef,
    NetworkRef,
    NodeDeviceRef,
    NWFilterBindingRef,
    NWFilterRef,
    SecretRef,
    StoragePoolRef,
    StorageVolRef,
)
from pyvirtd.core.access.actions import permissions
from pyvirtd.core.access.subjects import described, details
from pyvirtd.errors import VirtError

TEXT = "3ca17b4b-ca6f-4a28-83ea-97dcc03bd15b"
UUID = uuid.UUID(TEXT).bytes
DOMAIN = DomainRef("web1", UUID, 7)
NETWORK = NetworkRef("lan", UUID)


@pytest.mark.parametrize(
    ("kind", "subject", "expected"),
    [
        ("connect", None, {}),
        ("domain", DOMAIN, {"domain_name": "web1", "domain_uuid": TEXT}),
        ("domain", DomainSnapshotRef("before", DOMAIN), {"domain_name": "web1", "domain_uuid": TEXT}),
        ("network", NETWORK, {"network_name": "lan", "network_uuid": TEXT}),
        (
            "network_port",
            NetworkPortRef(NETWORK, UUID),
            {"network_name": "lan", "network_uuid": TEXT, "port_uuid": TEXT},
        ),
        ("storage_pool", StoragePoolRef("pool", UUID), {"pool_name": "pool", "pool_uuid": TEXT}),
        (
            "storage_vol",
            StorageVolRef("pool", "vol", "/p/vol"),
            {"pool_name": "pool", "pool_uuid": "", "vol_name": "vol", "vol_key": "/p/vol"},
        ),
        ("node_device", NodeDeviceRef("net_lo"), {"node_device_name": "net_lo"}),
        ("nwfilter", NWFilterRef("clean", UUID), {"nwfilter_name": "clean", "nwfilter_uuid": TEXT}),
        (
            "nwfilter_binding",
            NWFilterBindingRef("vnet0", "clean"),
            {
                "nwfilter_binding_portdev": "vnet0",
                "nwfilter_binding_linkdev": "",
                "nwfilter_binding_filter": "clean",
            },
        ),
        ("interface", InterfaceRef("br0", "52:54:00:00:00:01"), {"interface_name": "br0"}),
        ("secret", SecretRef(UUID, 1, "/vol"), {"secret_uuid": TEXT, "secret_usage_volume": "/vol"}),
        ("secret", SecretRef(UUID, 2, "client"), {"secret_usage_ceph": "client", "secret_usage_volume": ""}),
        ("secret", SecretRef(UUID, 3, "iqn"), {"secret_usage_target": "iqn"}),
        ("secret", SecretRef(UUID, 4, "tls"), {"secret_usage_name": "tls"}),
        ("secret", SecretRef(UUID, 0, ""), {"secret_usage_name": ""}),
    ],
)
def test_an_object_has_libvirts_details(kind: str, subject: object, expected: dict[str, str]) -> None:
    found = dict(details(kind, subject))
    assert expected.items() <= found.items()


@pytest.mark.parametrize("kind", sorted({word.partition(":")[0] for word in permissions()}))
def test_details_that_are_not_known_are_empty_but_there(kind: str) -> None:
    assert PROCEDURES
    assert all(value == "" for _, value in details(kind, None))
    assert details(kind, None) or kind == "connect"


def test_a_document_says_its_name_and_uuid() -> None:
    xml = f"<domain><devices><name>no</name></devices><name>a<!-- -->b</name><uuid> {TEXT.upper()} </uuid></domain>"
    assert dict(details("domain", described(xml))) == {"domain_name": "ab", "domain_uuid": TEXT}
    assert dict(details("interface", described("<interface name='br0'/>")))["interface_name"] == "br0"


def test_a_volumes_document_and_its_pool_are_told_together() -> None:
    found = dict(details("storage_vol", described("<volume><name>new</name></volume>", StoragePoolRef("pool", UUID))))
    assert found == {"pool_name": "pool", "pool_uuid": TEXT, "vol_name": "new", "vol_key": ""}


@pytest.mark.parametrize("xml", ["", "nonsense", "<domain>", "<domain><uuid>1</uuid></domain>", "<a>&x;</a>"])
def test_what_is_no_document_is_an_error(xml: str) -> None:
    with pytest.raises(VirtError):
        described(xml)


def test_a_long_document_is_not_kept_in_memory() -> None:
    xml = "<domain>" + "<a><b/></a>" * 100_000 + "<name>far</name></domain>"
    tracemalloc.start()
    try:
        assert described(xml).name == "far"
        assert tracemalloc.get_traced_memory()[1] < 2 * len(xml) + (3 << 20)
    finally:
        tracemalloc.stop()
