"""The CPU that several s390x hosts have in common: only QEMU knows, so a QEMU is started and asked."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from pyvirtd.drivers.qemu.capabilities.probe import ask
from pyvirtd.drivers.qemu.cpu_compare import ClientCpu
from pyvirtd.model.cpu import FeaturePolicy

if TYPE_CHECKING:
    from pyvirtd.drivers.qemu.driver import QemuDriver

_OFF = (FeaturePolicy.DISABLE, FeaturePolicy.FORBID)


async def baseline(driver: "QemuDriver", binary: str, given: Sequence[ClientCpu], *, expand: bool) -> str:
    """The <cpu> that QEMU makes of the given ones: a model with the features that it has beyond its name.

    expand: every feature by name. Raises ProbeFailed, OperationFailed where QEMU refuses.
    """
    models = [_model(one) for one in given]
    async with ask(binary, driver.probe_identity()) as qmp:
        found = models[0]
        for other in models[1:]:
            found = (await qmp.execute("query-cpu-model-baseline", modela=found, modelb=other))["model"]
        if len(models) == 1:
            found = (await qmp.execute("query-cpu-model-expansion", type="static", model=found))["model"]
        if expand:
            found = (await qmp.execute("query-cpu-model-expansion", type="full", model=found))["model"]
    names = [name for name, value in found.get("props", {}).items() if value is True]
    return _print(found["name"], sorted(names) if expand else names)


def _model(one: ClientCpu) -> Mapping[str, Any]:
    props = {feature.name: feature.policy not in _OFF for feature in one.cpu.feature}
    return {"name": one.model, "props": props} if props else {"name": one.model}


def _print(model: str, features: Sequence[str]) -> str:
    lines = ["<cpu>", f"  <model>{model}</model>", *(f"  <feature name='{name}'/>" for name in features)]
    return "\n".join([*lines, "</cpu>", ""])
