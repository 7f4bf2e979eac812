"""The daemon's program: options, configuration, one event loop, signals."""

import asyncio
import contextlib
import gc
import logging
import os
import resource
import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass

import systemd.daemon as service

from pyvirtd import log as logs
from pyvirtd.config import DaemonConfig, QemuConfig
from pyvirtd.core.driver import Host
from pyvirtd.core.hooks import DaemonOp, Hooks
from pyvirtd.core.host_shutdown import HostShutdown
from pyvirtd.core.registry import driver_classes, start_drivers
from pyvirtd.daemon.admin import AdminServer
from pyvirtd.daemon.listeners import passed_listeners, unix_listener
from pyvirtd.daemon.server import Server
from pyvirtd.daemon.watchdog import feed_watchdog
from pyvirtd.errors import VirtError
from pyvirtd.paths import Paths
from pyvirtd.util.args import Options, parse_args
from pyvirtd.util.daemonize import daemonized
from pyvirtd.util.files import PidFile, make_directory

log = logging.getLogger(__name__)

FILES_BESIDE_CLIENTS = 3192


@dataclass
class Daemon:
    """What one run of the program holds."""

    options: Options
    paths: Paths
    config: DaemonConfig
    qemu_config: QemuConfig


def main() -> int:
    """Run until told to end; the exit status."""
    privileged = os.geteuid() == 0
    paths = Paths.for_user(os.geteuid(), os.environ)
    options = parse_args(sys.argv[1:], paths)
    os.umask(0o022 if privileged else 0o077)
    try:
        config = DaemonConfig.load(options.config or paths.daemon_config, missing_ok=options.config is None)
        qemu_config = QemuConfig.load(paths.qemu_config)
        _raise_file_limit(config.max_clients)
        for directory in paths.directories():
            make_directory(directory.path, directory.mode)
        logs.setup(config, paths, verbose=options.verbose, foreground=not options.daemon)
        with daemonized(options.daemon) as ready:
            return _run(Daemon(options, paths, config, qemu_config), ready)
    except (VirtError, OSError) as exc:
        print(f"pyvirtd: error: {exc}", file=sys.stderr)  # noqa: T201 - there may be no log yet
        return 1


def _raise_file_limit(clients: int) -> None:
    """Every client may take a descriptor, beside what guests, logs and programs need."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = clients + FILES_BESIDE_CLIENTS  # the kernel knows no infinity of descriptors
    if soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(hard, wanted)), hard))


def _run(daemon: Daemon, ready: Callable[[], None]) -> int:
    pid_file = PidFile.acquire(daemon.options.pid_file or daemon.paths.pid_file)
    try:
        with asyncio.Runner() as runner:
            runner.run(_serve(daemon, ready))
    finally:
        pid_file.release()
        logs.close()
    return 0


async def _serve(daemon: Daemon, ready: Callable[[], None]) -> None:
    paths, config = daemon.paths, daemon.config
    config.warn_idle()
    daemon.qemu_config.warn_idle()
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # until there is something to reload
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT):
        loop.add_signal_handler(number, stop.set)
    host = Host(paths, paths.privileged, config, daemon.qemu_config, Hooks(paths))
    async with contextlib.AsyncExitStack() as ends:  # run in reverse
        host.audit.open(config.audit_level, logging=config.audit_logging)
        ends.callback(host.audit.close)
        ends.push_async_callback(host.tasks.close)
        ends.push_async_callback(_stop_drivers, host)
        server = Server(host, config)
        ends.push_async_callback(server.close)
        admin = AdminServer(host, config, server)
        ends.push_async_callback(admin.close)
        await _listen(server, admin, daemon)  # before a driver touches anything: another daemon may be there
        await host.hooks.daemon(DaemonOp.START)
        await start_drivers(host, driver_classes())
        loop.add_signal_handler(signal.SIGHUP, lambda: host.tasks.start(_reload(daemon, server, admin), "reload"))
        server.start()
        admin.start()
        server.end_when_idle(daemon.options.timeout or 0, stop.set)
        shutdown = HostShutdown(host, stop.set)
        loop.add_signal_handler(signal.SIGUSR1, shutdown.begin)
        host.tasks.start(shutdown.watch(), "watch for the host's shutdown")
        log.info("serving %s", paths.socket_rw)
        ready()
        service.notify("READY=1")
        ends.callback(feed_watchdog())
        _settle_memory()
        for driver in host.drivers:
            host.tasks.start(driver.autostart(), f"autostart of {driver.name}")
        await stop.wait()
        await shutdown.finish()
        service.notify("STOPPING=1")
        log.info("ending; guests run on")
    await host.hooks.daemon(DaemonOp.SHUTDOWN)


def _settle_memory() -> None:
    """What was made at the start stays: the collector need not look at it again. Next to nothing of it is garbage, and
    looking for that would keep the first clients waiting."""
    gc.freeze()
    gc.enable()


async def _stop_drivers(host: Host) -> None:
    for driver in reversed(host.drivers):
        with contextlib.suppress(VirtError):
            await driver.stop()


async def _listen(server: Server, admin: Server, daemon: Daemon) -> None:
    """Make the sockets, or take those of the service manager."""
    paths, config = daemon.paths, daemon.config
    passed = passed_listeners(paths, config.tls_port)
    for listener in passed:
        (admin if listener.admin else server).listen(listener)
    if not passed:
        mode, backlog = config.rw_perms(privileged=paths.privileged), config.max_queued_clients
        group = config.unix_sock_group if paths.privileged else None
        server.listen(unix_listener(paths.socket_rw, mode, group, backlog))
        if paths.socket_ro is not None:
            server.listen(unix_listener(paths.socket_ro, config.unix_sock_ro_perms, group, backlog, read_only=True))
        backlog = config.admin_max_queued_clients
        admin.listen(unix_listener(paths.socket_admin, config.unix_sock_admin_perms, None, backlog, admin=True))
    await server.listen_network(wanted=daemon.options.listen, activated=bool(passed))


async def _reload(daemon: Daemon, server: Server, admin: Server) -> None:
    """SIGHUP: read the configuration and the definitions again; a broken file leaves what was."""
    service.notify("RELOADING=1")
    given = daemon.options.config
    try:
        config = DaemonConfig.load(given or daemon.paths.daemon_config, missing_ok=given is None)
        server.apply(config)
        admin.apply(config)
    except VirtError as exc:
        log.error("the configuration stays as it was: %s", exc)
    try:
        await server.reload_tls()
    except VirtError as exc:
        log.error("the certificates stay as they were: %s", exc)
    for driver in server.host.drivers:
        try:
            await driver.reload()
        except VirtError as exc:
            log.error("driver %s does not reload: %s", driver.name, exc)
    await server.host.hooks.daemon(DaemonOp.RELOAD)
    service.notify("READY=1")
