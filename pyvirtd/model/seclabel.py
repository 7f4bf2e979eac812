"""Security labels of a domain and of one source."""

from collections.abc import Sequence
from enum import StrEnum
from typing import Self

from pyvirtd.constants.error import ErrorDomain
from pyvirtd.errors import XmlDetail, XmlError
from pyvirtd.xml.document import Node
from pyvirtd.xml.element import LIVE, Element, View, attr, text
from pyvirtd.xml.types import YesNo


class SeclabelType(StrEnum):
    NONE = "none"
    DYNAMIC = "dynamic"
    STATIC = "static"


class Seclabel(Element, tag="seclabel"):
    """https://libvirt.org/formatdomain.html#security-label

    A dynamic label's `label` and `imagelabel` are of one run; without `type` the element says nothing.
    """

    type: SeclabelType | None = attr()
    model: str | None = attr()
    relabel: YesNo | None = attr()
    label: str | None = text()
    imagelabel: str | None = text(view=LIVE)
    baselabel: str | None = text()

    def parsed(self, node: Node, view: View) -> None:
        if self.relabel is None and self.type in (SeclabelType.DYNAMIC, SeclabelType.STATIC):
            self.relabel = self.type == SeclabelType.DYNAMIC
        if self.type != SeclabelType.STATIC and not view & LIVE:
            self.label = None

    def printed(self, view: View) -> Self:
        if self.type is None:
            return type(self)()
        twin = self.shallow()
        if self.type == SeclabelType.NONE:
            twin.relabel = None
        if self.type == SeclabelType.DYNAMIC and not view & LIVE:
            twin.label = None
        return twin


def check_labels(labels: Sequence["Seclabel | DeviceSeclabel"]) -> None:
    """Several labels must each name a model of its own. Raises XmlError and XmlDetail."""
    models: set[str | None] = set()
    for label in labels:
        if label.model is not None and label.model in models:
            raise XmlDetail(f"seclabel for model {label.model} is already provided", domain=ErrorDomain.DOMAIN)
        models.add(label.model)
    if len(labels) > 1 and any(label.model is None and isinstance(label, Seclabel) for label in labels):
        raise XmlError("missing security model when using multiple labels", domain=ErrorDomain.DOMAIN)


class DeviceSeclabel(Element, tag="seclabel"):
    """A label for one disk source or character device. It says something with a label, relabel='no' or labelskip."""

    model: str | None = attr()
    labelskip: YesNo | None = attr(view=LIVE, omit=False)
    relabel: YesNo | None = attr(True)
    label: str | None = text()

    def parsed(self, node: Node, view: View) -> None:
        if self.label is not None and not self.relabel:
            raise XmlError(
                f"Cannot specify a label if relabelling is turned off. model={self.model or '<null>'}",
                domain=ErrorDomain.DOMAIN,
            )

    def printed(self, view: View) -> Self:
        twin = self.shallow()
        skipped = bool(self.labelskip and view & LIVE)
        if skipped or (self.label is None and self.relabel):
            twin.relabel = None
            twin.model = self.model if skipped else None
        return twin
