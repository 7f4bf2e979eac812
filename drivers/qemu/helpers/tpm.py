"""The TPM emulator, swtpm: one process and one place of state a guest. https://github.com/stefanberger/swtpm"""

import os
import shutil
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from pyvirtd.constants.error import ErrorDomain as From
from pyvirtd.drivers.qemu.helpers.base import Helper, Run, find_program, prepare
from pyvirtd.drivers.qemu.helpers.tpm_state import StateFile, state_of
from pyvirtd.errors import NoSecret, from_os_error
from pyvirtd.model.chardev import TpmEmulator, TpmVersion
from pyvirtd.model.domain import DomainDef
from pyvirtd.util.files import Owner, in_thread, make_directory
from pyvirtd.util.process import Identity, Launch
from pyvirtd.util.users import identity as find_identity

BANKS = ("sha1", "sha256", "sha384", "sha512")


class Swtpm(Helper):
    title = "TPM Emulator"
    program = "swtpm"

    def __init__(self, run: Run, backend: TpmEmulator) -> None:
        super().__init__(run)
        self.backend = backend
        paths = run.paths
        self.pid_file = paths.swtpm_pid(run.number, run.name)
        self.socket = paths.swtpm_socket(run.number, run.name)
        self.log_path = paths.swtpm_log_file(run.name)
        self.version_2 = backend.version is not TpmVersion.V1_2
        self.state = state_of(backend, paths, run.live.uuid or "")

    def leftovers(self) -> Iterable[Path]:
        return (self.socket,)

    async def start(self) -> None:
        if self.backend.encryption is not None:
            raise NoSecret(f"no secret with matching uuid '{self.backend.encryption}'", domain=From.SECRET)
        swtpm, setup = [await in_thread(find_program, name) for name in ("swtpm", "swtpm_setup")]
        user = await self._user()
        await in_thread(self._directories, user)
        if await in_thread(self._is_new):
            await self._manufacture(setup, user)
        await self._choose_banks(setup, user)
        control = f"type=unixio,path={self.socket},mode=0600"
        argv = [swtpm, "socket", "--ctrl", control, "--tpmstate", self.state.option]
        level = f",level={self.backend.debug}" if self.backend.debug else ""
        argv += ["--log", f"file={self.log_path}{level}", "--terminate"]
        if self.version_2:
            argv.append("--tpm2")
        await self.launch(argv, Launch(identity=user), socket=self.socket, log_path=self.run.log_path)
        await in_thread(self._hand_over)

    async def _user(self) -> Identity | None:
        """Whom the emulator runs as; a session's runs as its user."""
        if self.run.identity is None:
            return None
        config = self.run.config
        return await in_thread(find_identity, config.swtpm_user, config.swtpm_group)

    def _directories(self, user: Identity | None) -> None:
        """The emulator's directories. QEMU's user may go through to the socket, and nobody reads another's state."""
        paths, guest = self.run.paths, self.run.owner
        own = Owner(user.uid, user.gid) if user is not None else None
        try:
            if user is not None and guest is not None:
                for above in (paths.swtpm_log.parent.parent, paths.swtpm_log.parent, paths.swtpm, *self.state.above):
                    make_directory(above, 0o711)
                make_directory(paths.swtpm_log, 0o730, owner=own)
                make_directory(paths.swtpm_run, 0o770, owner=Owner(guest.uid, user.gid))
            else:
                for mine in (paths.swtpm_log, paths.swtpm, *self.state.above, paths.swtpm_run):
                    make_directory(mine, 0o700)
            self.socket.unlink(missing_ok=True)
        except OSError as exc:
            raise from_os_error(exc, f"Could not create TPM directory {exc.filename or paths.swtpm}") from exc
        try:
            self.state.make(own)
        except OSError as exc:
            raise from_os_error(exc, f"Could not create TPM state '{self.state.path}'") from exc

    def _is_new(self) -> bool:
        try:
            return self.state.is_new()
        except OSError as exc:
            raise from_os_error(exc, f"cannot read TPM state '{self.state.path}'") from exc

    async def _manufacture(self, setup: str, user: Identity | None) -> None:
        """A new TPM with its endorsement key and certificates; without them nothing is left."""
        if user is None:
            # The host's own authority is root's; a user gets one beside his files.
            await prepare([setup, "--create-config-files", "skip-if-exist"], None, self.log_path)
        try:
            if isinstance(self.state, StateFile):
                await self._make_file(self.state, setup, user)
            else:
                await self._make(self.state.argument, setup, user)
        except BaseException:
            with suppress(OSError):
                self.state.discard()
            raise

    async def _make(self, place: str, setup: str, user: Identity | None) -> None:
        argv = [setup, "--tpm2"] if self.version_2 else [setup]
        argv += ["--tpm-state", place, "--vmid", f"{self.run.name}:{self.run.live.uuid}"]
        argv += ["--logfile", str(self.log_path), "--createek", "--create-ek-cert", "--create-platform-cert"]
        argv += ["--lock-nvram", "--not-overwrite"]
        await prepare(argv, user, self.log_path)

    async def _make_file(self, state: StateFile, setup: str, user: Identity | None) -> None:
        """swtpm_setup puts a file of its own in the place of an empty one: here it may, and there it need not."""
        workshop = self.run.paths.swtpm_workshop(self.run.live.uuid or "")
        owner = Owner(user.uid, user.gid) if user is not None else None
        made = StateFile(workshop / "state")
        try:
            await in_thread(shutil.rmtree, workshop, ignore_errors=True)
            await in_thread(make_directory, workshop, 0o700, owner=owner)
            await self._make(made.argument, setup, user)
            await in_thread(state.fill, made)
        except OSError as exc:
            raise from_os_error(exc, f"Could not create TPM state '{state.path}'") from exc
        finally:
            await in_thread(shutil.rmtree, workshop, ignore_errors=True)

    async def _choose_banks(self, setup: str, user: Identity | None) -> None:
        banks = self.backend.active_pcr_banks
        chosen = [name for name in BANKS if banks is not None and getattr(banks, name)]
        if not self.version_2 or not chosen:
            return
        argv = [setup, "--tpm2", "--tpm-state", self.state.argument, "--logfile", str(self.log_path)]
        await prepare([*argv, "--pcr-banks", ",".join(chosen), "--reconfigure"], user, self.log_path)

    def _hand_over(self) -> None:
        """The socket is for QEMU."""
        owner = self.run.owner
        if owner is not None:
            os.chown(self.socket, owner.uid, owner.gid, follow_symlinks=False)


def emulated(definition: DomainDef) -> TpmEmulator | None:
    """The definition's emulated TPM; there is one at most."""
    return next((tpm.backend for tpm in definition.devices.tpm if isinstance(tpm.backend, TpmEmulator)), None)
