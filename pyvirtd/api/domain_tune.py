"""Tuning: scheduler, memory, vcpus, pinning, IOThreads, launch security.

Declarations only: see pyvirtd.api.rpc for what is derived from them.
"""

from typing import Annotated, Generic, NamedTuple

from pyvirtd.api.limits import (
    CPUMAP_MAX,
    CPUMAPS_MAX,
    DOMAIN_BLKIO_PARAMETERS_MAX,
    DOMAIN_INTERFACE_PARAMETERS_MAX,
    DOMAIN_IOTHREAD_PARAMS_MAX,
    DOMAIN_LAUNCH_SECURITY_INFO_PARAMS_MAX,
    DOMAIN_LAUNCH_SECURITY_STATE_PARAMS_MAX,
    DOMAIN_MEMORY_PARAMETERS_MAX,
    DOMAIN_NUMA_PARAMETERS_MAX,
    DOMAIN_SCHEDULER_PARAMETERS_MAX,
    IOTHREAD_INFO_MAX,
    SECURITY_LABEL_LIST_MAX,
)
from pyvirtd.api.rpc import REMOTE, Answer, Part, Shape, Shaped, Unless, When, rpc
from pyvirtd.api.types import D, IOThreadInfo, SecurityLabel, TypedParam
from pyvirtd.constants.domain import DomainModificationImpact, DomainVcpuFlags
from pyvirtd.constants.error import ErrorDomain as From
from pyvirtd.wire.xdr import Int, Max, Opaque, Str, UHyper, UInt


class DomainGetSchedulerTypeReply(NamedTuple):
    type: Str
    nparams: Int


class DomainGetVcpuPinInfoReply(NamedTuple):
    cpumaps: Annotated[bytes, Opaque(CPUMAPS_MAX)]
    num: Int


class DomainGetSecurityLabelListReply(NamedTuple):
    labels: Annotated[list[SecurityLabel], Max(SECURITY_LABEL_LIST_MAX)]
    ret: Int


class DomainGetEmulatorPinInfoReply(NamedTuple):
    cpumaps: Annotated[bytes, Opaque(CPUMAPS_MAX)]
    ret: Int


class DomainGetIOThreadInfoReply(NamedTuple):
    info: Annotated[list[IOThreadInfo], Max(IOTHREAD_INFO_MAX)]
    ret: UInt


class TunePart(Part, Generic[D], program=REMOTE, error_domain=From.DOMAIN):
    """TunePart procedures."""

    @rpc(26, "domain:write")
    def domain_pin_vcpu(self, dom: D, vcpu: UInt, cpumap: Annotated[bytes, Opaque(CPUMAP_MAX)]) -> Answer[None]: ...

    @rpc(30, "domain:write")
    def domain_set_max_memory(self, dom: D, memory: UHyper) -> Answer[None]: ...

    @rpc(31, "domain:write")
    def domain_set_memory(self, dom: D, memory: UHyper) -> Answer[None]: ...

    @rpc(32, "domain:write")
    def domain_set_vcpus(self, dom: D, nvcpus: UInt) -> Answer[None]: ...

    @rpc(56, "domain:read", ro=True)
    def domain_get_scheduler_type(self, dom: D) -> Answer[DomainGetSchedulerTypeReply]: ...

    @rpc(57, "domain:read", ro=True)
    def domain_get_scheduler_parameters(
        self, dom: D, nparams: Int
    ) -> Answer[Annotated[list[TypedParam], Max(DOMAIN_SCHEDULER_PARAMETERS_MAX)]]: ...

    @rpc(58, "domain:read")
    def domain_set_scheduler_parameters(
        self, dom: D, params: Annotated[list[TypedParam], Max(DOMAIN_SCHEDULER_PARAMETERS_MAX)]
    ) -> Answer[None]: ...

    @rpc(121, "domain:read", ro=True)
    def domain_get_security_label(self, dom: D) -> Answer[SecurityLabel]: ...

    @rpc(
        197,
        "domain:write",
        Unless(DomainModificationImpact.CONFIG | DomainModificationImpact.LIVE, "domain:save"),
        When(DomainModificationImpact.CONFIG, "domain:save"),
    )
    def domain_set_memory_parameters(
        self, dom: D, params: Annotated[list[TypedParam], Max(DOMAIN_MEMORY_PARAMETERS_MAX)], flags: UInt
    ) -> Answer[None]: ...

    @rpc(198, "domain:read", ro=True)
    def domain_get_memory_parameters(
        self, dom: D, flags: UInt
    ) -> Answer[Annotated[list[TypedParam], Shaped(Shape.SIZED, DOMAIN_MEMORY_PARAMETERS_MAX)]]: ...

    @rpc(
        199,
        "domain:write",
        Unless(DomainModificationImpact.CONFIG | DomainModificationImpact.LIVE, "domain:save"),
        When(DomainModificationImpact.CONFIG, "domain:save"),
        When(DomainVcpuFlags.GUEST, "domain:write"),
    )
    def domain_set_vcpus_flags(self, dom: D, nvcpus: UInt, flags: UInt) -> Answer[None]: ...

    @rpc(
        204,
        "domain:write",
        Unless(DomainModificationImpact.CONFIG | DomainModificationImpact.LIVE, "domain:save"),
        When(DomainModificationImpact.CONFIG, "domain:save"),
    )
    def domain_set_memory_flags(self, dom: D, memory: UHyper, flags: UInt) -> Answer[None]: ...

    @rpc(
        205,
        "domain:write",
        Unless(DomainModificationImpact.CONFIG | DomainModificationImpact.LIVE, "domain:save"),
        When(DomainModificationImpact.CONFIG, "domain:save"),
    )
    def domain_set_blkio_parameters(
        self, dom: D, params: Annotated[list[TypedParam], Max(DOMAIN_BLKIO_PARAMETERS_MAX)], flags: UInt
    ) -> Answer[None]: ...

    @rpc(206, "domain:read", ro=True)
    def domain_get_blkio_parameters(
        self, dom: D, flags: UInt
    ) -> Answer[Annotated[list[TypedParam], Shaped(Shape.SIZED, DOMAIN_BLKIO_PARAMETERS_MAX)]]: ...

    @rpc(
        219,
        "domain:write",
        Unless(DomainModificationImpact.CONFIG | DomainModificationImpact.LIVE, "domain:save"),
        When(DomainModificationImpact.CONFIG, "domain:save"),
    )
    def domain_set_scheduler_parameters_flags(
        self, dom: D, params: Annotated[list[TypedParam], Max(DOMAIN_SCHEDULER_PARAMETERS_MAX)], flags: UInt
    ) -> Answer[None]: ...

    @rpc(223, "domain:read", ro=True)
    def domain_get_scheduler_parameters_flags(
        self, dom: D, nparams: Int, flags: UInt
    ) -> Answer[Annotated[list[TypedParam], Max(DOMAIN_SCHEDULER_PARAMETERS_MAX)]]: ...

    @rpc(
        225,
        "domain:write",
        Unless(DomainModificationImpact.CONFIG | DomainModificationImpact.LIVE, "domain:save"),
        When(DomainModificationImpact.CONFIG, "domain:save"),
    )
    def domain_pin_vcpu_flags(
        self, dom: D, vcpu: UInt, cpumap: Annotated[bytes, Opaque(CPUMAP_MAX)], flags: UInt
    ) -> Answer[None]: ...

    @rpc(230, "domain:read", ro=True)
    def domain_get_vcpu_pin_info(
        self, dom: D, ncpumaps: Int, maplen: Int, flags: UInt
    ) -> Answer[DomainGetVcpuPinInfoReply]: ...

    @rpc(
        254,
        "domain:write",
        Unless(DomainModificationImpact.CONFIG | DomainModificationImpact.LIVE, "domain:save"),
        When(DomainModificationImpact.CONFIG, "domain:save"),
    )
    def domain_set_numa_parameters(
        self, dom: D, params: Annotated[list[TypedParam], Max(DOMAIN_NUMA_PARAMETERS_MAX)], flags: UInt
    ) -> Answer[None]: ...

    @rpc(255, "domain:read", ro=True)
    def domain_get_numa_parameters(
        self, dom: D, flags: UInt
    ) -> Answer[Annotated[list[TypedParam], Shaped(Shape.SIZED, DOMAIN_NUMA_PARAMETERS_MAX)]]: ...

    @rpc(
        256,
        "domain:write",
        Unless(DomainModificationImpact.CONFIG | DomainModificationImpact.LIVE, "domain:save"),
        When(DomainModificationImpact.CONFIG, "domain:save"),
    )
    def domain_set_interface_parameters(
        self,
        dom: D,
        device: Str,
        params: Annotated[list[TypedParam], Max(DOMAIN_INTERFACE_PARAMETERS_MAX)],
        flags: UInt,
    ) -> Answer[None]: ...

    @rpc(257, "domain:read", ro=True)
    def domain_get_interface_parameters(
        self, dom: D, device: Str, flags: UInt
    ) -> Answer[Annotated[list[TypedParam], Shaped(Shape.SIZED, DOMAIN_INTERFACE_PARAMETERS_MAX)]]: ...

    @rpc(278, "domain:read", ro=True)
    def domain_get_security_label_list(self, dom: D) -> Answer[DomainGetSecurityLabelListReply]: ...

    @rpc(
        279,
        "domain:write",
        Unless(DomainModificationImpact.CONFIG | DomainModificationImpact.LIVE, "domain:save"),
        When(DomainModificationImpact.CONFIG, "domain:save"),
    )
    def domain_pin_emulator(
        self, dom: D, cpumap: Annotated[bytes, Opaque(CPUMAP_MAX)], flags: UInt
    ) -> Answer[None]: ...

    @rpc(280, "domain:read", ro=True)
    def domain_get_emulator_pin_info(
        self, dom: D, maplen: Int, flags: UInt
    ) -> Answer[DomainGetEmulatorPinInfoReply]: ...

    @rpc(351, "domain:read", ro=True)
    def domain_get_iothread_info(self, dom: D, flags: UInt) -> Answer[DomainGetIOThreadInfoReply]: ...

    @rpc(
        352,
        "domain:write",
        Unless(DomainModificationImpact.CONFIG | DomainModificationImpact.LIVE, "domain:save"),
        When(DomainModificationImpact.CONFIG, "domain:save"),
    )
    def domain_pin_iothread(
        self, dom: D, iothreads_id: UInt, cpumap: Annotated[bytes, Opaque(CPUMAP_MAX)], flags: UInt
    ) -> Answer[None]: ...

    @rpc(
        355,
        "domain:write",
        Unless(DomainModificationImpact.CONFIG | DomainModificationImpact.LIVE, "domain:save"),
        When(DomainModificationImpact.CONFIG, "domain:save"),
    )
    def domain_add_iothread(self, dom: D, iothread_id: UInt, flags: UInt) -> Answer[None]: ...

    @rpc(
        356,
        "domain:write",
        Unless(DomainModificationImpact.CONFIG | DomainModificationImpact.LIVE, "domain:save"),
        When(DomainModificationImpact.CONFIG, "domain:save"),
    )
    def domain_del_iothread(self, dom: D, iothread_id: UInt, flags: UInt) -> Answer[None]: ...

    @rpc(
        384,
        "domain:write",
        Unless(DomainModificationImpact.CONFIG | DomainModificationImpact.LIVE, "domain:save"),
        When(DomainModificationImpact.CONFIG, "domain:save"),
    )
    def domain_set_vcpu(self, dom: D, cpumap: Str, state: Int, flags: UInt) -> Answer[None]: ...

    @rpc(390, "domain:write")
    def domain_set_lifecycle_action(self, dom: D, type: UInt, action: UInt, flags: UInt) -> Answer[None]: ...

    @rpc(396, "domain:read")
    def domain_get_launch_security_info(
        self, dom: D, flags: UInt
    ) -> Answer[Annotated[list[TypedParam], Max(DOMAIN_LAUNCH_SECURITY_INFO_PARAMS_MAX)]]: ...

    @rpc(
        402,
        "domain:write",
        Unless(DomainModificationImpact.CONFIG | DomainModificationImpact.LIVE, "domain:save"),
        When(DomainModificationImpact.CONFIG, "domain:save"),
    )
    def domain_set_iothread_params(
        self,
        dom: D,
        iothread_id: UInt,
        params: Annotated[list[TypedParam], Max(DOMAIN_IOTHREAD_PARAMS_MAX)],
        flags: UInt,
    ) -> Answer[None]: ...

    @rpc(439, "domain:write")
    def domain_set_launch_security_state(
        self, dom: D, params: Annotated[list[TypedParam], Max(DOMAIN_LAUNCH_SECURITY_STATE_PARAMS_MAX)], flags: UInt
    ) -> Answer[None]: ...
