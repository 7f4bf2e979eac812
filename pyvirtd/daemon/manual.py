"""The manual pages, made from what the options and the configuration keys say of themselves. man(7)

python -m pyvirtd.daemon.manual DIRECTORY writes pyvirtd.8 and pyvirtd.conf.5.
"""

import sys
from pathlib import Path

from pyvirtd.config import DaemonConfig, QemuConfig
from pyvirtd.config.keys import Key, Settings
from pyvirtd.paths import Paths
from pyvirtd.util.args import OPTIONS, PROGRAM

SYSTEM = Paths.system()
FILES = (
    (SYSTEM.daemon_config, "settings of the daemon"),
    (SYSTEM.qemu_config, "settings of the QEMU driver"),
    (SYSTEM.qemu.config, "definitions of domains"),
    (SYSTEM.hooks, "programs that are run when something happens"),
    (SYSTEM.socket_rw, "socket for clients"),
    (SYSTEM.socket_ro, "socket for clients that only look"),
    (SYSTEM.socket_admin, "socket for virt-admin"),
    (SYSTEM.pid_file, "process id, which keeps a second daemon from running"),
    (SYSTEM.qemu.log, "what each QEMU printed"),
)
SIGNALS = (
    ("SIGHUP", "Read the configuration, certificates and definitions again."),
    ("SIGTERM, SIGINT, SIGQUIT", "End. Guests run on, and the next daemon takes them up."),
)


def program_page() -> str:
    """pyvirtd(8)."""
    lines = [_header(PROGRAM, 8, "System Administration")]
    lines += [".SH NAME", f"{PROGRAM} \\- virtualization daemon behind libvirt's remote protocol"]
    lines += [".SH SYNOPSIS", f".B {PROGRAM}", "[\\fIOPTION\\fR]..."]
    lines += [
        ".SH DESCRIPTION",
        f"{PROGRAM} runs virtual machines under QEMU for clients of libvirt: virsh, virt\\-manager and others. Run by",
        "root it serves qemu:///system, run by another user that user's qemu:///session. Guests do not end with the",
        "daemon.",
        ".SH OPTIONS",
    ]
    for option in OPTIONS:
        argument = f" \\fI{_text(option.argument)}\\fR" if option.argument else ""
        lines += [".TP", f"\\fB\\-{option.short}\\fR, \\fB\\-\\-{_text(option.long)}\\fR{argument}", _text(option.help)]
    lines.append(".SH SIGNALS")
    for name, words in SIGNALS:
        lines += [".TP", f".B {name}", _text(words)]
    lines += [".SH FILES", "Those of the system daemon; a session's are below the XDG directories of its user."]
    for path, words in FILES:
        lines += [".TP", f".I {_text(str(path))}", _text(words)]
    lines += [".SH SEE ALSO", ".BR pyvirtd.conf (5),", ".BR virsh (1),", ".BR virt\\-admin (1)"]
    return "\n".join(lines) + "\n"


def configuration_page() -> str:
    """pyvirtd.conf(5): both files."""
    lines = [_header("pyvirtd.conf", 5, "File Formats")]
    lines += [".SH NAME", f"pyvirtd.conf \\- configuration of {PROGRAM}"]
    lines += [
        ".SH DESCRIPTION",
        f"{PROGRAM} reads the files of libvirtd, {_text(str(SYSTEM.daemon_config))} and",
        f"{_text(str(SYSTEM.qemu_config))}; a session daemon those in ~/.config/libvirt. Every key is optional.",
        "Lines are \\fIkey\\fR = \\fIvalue\\fR, where a value is a number, a text in quotes or a list in brackets;",
        "# begins a comment.",
    ]
    for settings in (DaemonConfig, QemuConfig):
        lines += _settings(settings)
    lines += [".SH SEE ALSO", f".BR {PROGRAM} (8)"]
    return "\n".join(lines) + "\n"


def _settings(settings: type[Settings]) -> list[str]:
    lines = [f".SH KEYS OF {settings.file_name.upper()}"]
    for key in settings.keys().values():
        if key.section:
            lines.append(f".SS {_text(key.section)}")
        lines += [".TP", f"\\fB{_text(key.name)}\\fR = {_text(key.shown())}", *_key(key)]
    return lines


def _key(key: Key) -> list[str]:
    lines = [_text(key.doc)]
    if key.choices:
        lines.append(_text(f"One of: {', '.join(key.choices)}."))
    if key.default is None:
        lines.append("What is shown is an example.")
    if not key.effective:
        lines.append("Accepted, but without effect in this version.")
    return lines


def _header(name: str, section: int, manual: str) -> str:
    return f'.TH {_text(name).upper()} {section} "" "{PROGRAM}" "{manual}"'


def _text(words: str) -> str:
    """Words as they are, whatever roff would make of them."""
    escaped = words.replace("\\", "\\e").replace("-", "\\-")
    return f"\\&{escaped}" if escaped[:1] in (".", "'") else escaped


def main(directory: Path) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    (directory / f"{PROGRAM}.8").write_text(program_page())
    (directory / f"{PROGRAM}.conf.5").write_text(configuration_page())


if __name__ == "__main__":
    main(Path(sys.argv[1]))
