"""What is not known: libvirtd passes over it nearly everywhere, and so does reading; validation refuses it by name.

The rule was seen at libvirtd 9.0 by adding a child and an attribute to every element of 555 documents: only children of
<features> and of its parts that list features are refused, and <metadata> keeps what it is given.
"""

from pathlib import Path

import pytest
from lxml import etree

from pyvirtd.errors import ConfigUnsupported
from pyvirtd.model.domain import DomainDef
from pyvirtd.model.metadata import Metadata
from pyvirtd.xml.check import find_unknown
from pyvirtd.xml.document import local_name, path_of
from pyvirtd.xml.element import SECURE

DATA = Path(__file__).parent / "data"
SAMPLES = ("devices", "firmware", "general", "rare", "nvram-network", "qemu-namespace", "container", "lxc")
LISTS_OF_FEATURES = {
    "/domain/features",
    "/domain/features/capabilities",
    "/domain/features/hyperv",
    "/domain/features/hyperv/stimer",
    "/domain/features/kvm",
    "/domain/features/xen",
}


def sample(name: str) -> etree._Element:
    return etree.fromstring((DATA / f"{name}.xml").read_bytes(), etree.XMLParser(remove_blank_text=True))


def places(root: etree._Element) -> list[etree._Element]:
    """Every element outside <metadata>."""
    return [
        one
        for one in root.iter()
        if isinstance(one.tag, str) and Metadata.tag not in [local_name(up) for up in (one, *one.iterancestors())]
    ]


def read(root: etree._Element) -> str:
    return DomainDef.parse(etree.tostring(root, encoding="unicode")).format(SECURE)


@pytest.mark.parametrize("name", SAMPLES)
def test_samples_hold_nothing_unknown(name: str) -> None:
    assert find_unknown(DomainDef, sample(name)) is None


@pytest.mark.parametrize("name", SAMPLES)
def test_unknown_attributes_are_passed_over_and_refused_by_validation(name: str) -> None:
    root = sample(name)
    expected = read(root)
    for one in places(root):
        one.set("unheard", "1")
        wrong = find_unknown(DomainDef, root)
        assert "no attribute 'unheard'" in (wrong.text if wrong else ""), path_of(one)
        del one.attrib["unheard"]
    for one in places(root):
        one.set("unheard", "1")
    assert read(root) == expected


@pytest.mark.parametrize("name", SAMPLES)
def test_unknown_children_are_passed_over_and_refused_by_validation(name: str) -> None:
    root = sample(name)
    expected = read(root)
    for one in places(root):
        extra = etree.SubElement(one, "unheard")
        wrong = find_unknown(DomainDef, root)
        assert "no child 'unheard'" in (wrong.text if wrong else ""), path_of(one)
        if path_of(one) in LISTS_OF_FEATURES:
            with pytest.raises(ConfigUnsupported, match="unheard"):
                read(root)
            one.remove(extra)
        elif (one.text or "").strip():
            one.remove(extra)
    assert read(root) == expected
