"""Who a caller is."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Identity:
    """The peer of a connection, by those who vouch for it; None or empty where there is no such thing.

    The numbers come from the kernel, for unix sockets. A process id may be another process's by the time it is looked
    at: `start_time`, in clock ticks since the boot (proc_pid_stat(5)), tells them apart.
    """

    pid: int | None = None
    uid: int | None = None
    gid: int | None = None
    start_time: int | None = None
    user_name: str = ""
    group_name: str = ""
    sasl_user_name: str = ""
    x509_dname: str = ""
    selinux_context: str = ""
    address: str = ""  # of a TCP client: ADDRESS:PORT
