"""Extensions of single hypervisors that travel in namespaces of their own: qemu: and lxc:."""

from enum import StrEnum

from pyvirtd.xml.element import Element, attr, child, children


class QemuArg(Element, tag="qemu:arg"):
    value: str | None = attr()


class QemuEnv(Element, tag="qemu:env"):
    name: str | None = attr()
    value: str | None = attr()


class QemuCommandline(Element, tag="qemu:commandline"):
    """Arguments and environment given to QEMU as they are."""

    arg: list[QemuArg] = children()
    env: list[QemuEnv] = children()


class QemuCapability(Element):
    capability: str | None = attr()


class QemuCapabilities(Element, tag="qemu:capabilities"):
    """Probed capabilities that are added or masked for one guest."""

    add: list[QemuCapability] = children(name="qemu:add")
    del_: list[QemuCapability] = children(name="qemu:del")


class DeprecationBehavior(StrEnum):
    NONE = "none"
    OMIT = "omit"
    REJECT = "reject"
    CRASH = "crash"


class QemuDeprecation(Element, tag="qemu:deprecation"):
    behavior: DeprecationBehavior | None = attr()


class PropertyType(StrEnum):
    STRING = "string"
    SIGNED = "signed"
    UNSIGNED = "unsigned"
    BOOL = "bool"
    REMOVE = "remove"


class QemuProperty(Element, tag="qemu:property"):
    name: str | None = attr()
    type: PropertyType | None = attr()
    value: str | None = attr()


class QemuOverrideDevice(Element, tag="qemu:device"):
    alias: str | None = attr()
    frontend: list[QemuProperty] = children(wrap="qemu:frontend")


class QemuOverride(Element, tag="qemu:override"):
    """Properties of single devices that replace those chosen for them."""

    device: list[QemuOverrideDevice] = children()


class LxcShareType(StrEnum):
    NONE = "none"
    NAME = "name"
    PID = "pid"
    NETNS = "netns"


class LxcShare(Element):
    type: LxcShareType | None = attr()
    value: str | None = attr()


class LxcNamespace(Element, tag="lxc:namespace"):
    """Namespaces a container shares with another."""

    sharenet: LxcShare | None = child(name="lxc:sharenet")
    shareipc: LxcShare | None = child(name="lxc:shareipc")
    shareuts: LxcShare | None = child(name="lxc:shareuts")
