"""The command line, compared with what Debian's libvirtd 9.0 does."""

import shutil
import subprocess
from pathlib import Path

import pytest

from pyvirtd.paths import Paths
from pyvirtd.util.args import OPTIONS, Options, parse_args, usage

LIBVIRTD = shutil.which("libvirtd", path="/usr/sbin:/usr/bin")


@pytest.mark.parametrize(
    ("argv", "options"),
    [
        ([], Options()),
        (["-v", "-d", "-l"], Options(verbose=True, daemon=True, listen=True)),
        (["-vdl"], Options(verbose=True, daemon=True, listen=True)),
        (["--verbose", "--daemon", "--listen"], Options(verbose=True, daemon=True, listen=True)),
        (["-t", "10"], Options(timeout=10)),
        (["-t10"], Options(timeout=10)),
        (["-dt10"], Options(daemon=True, timeout=10)),
        (["--timeout=10"], Options(timeout=10)),
        (["--ti", "10"], Options(timeout=10)),
        (["-t", "0"], Options(timeout=0)),
        (["-t", " +5"], Options(timeout=5)),
        (["-t", "2147483"], Options(timeout=2147483)),
        (["-f", "/a", "--pid-file=/b=c"], Options(config=Path("/a"), pid_file=Path("/b=c"))),
        (["-f", "-d"], Options(config=Path("-d").absolute())),
        (["--verb"], Options(verbose=True)),
        (["--"], Options()),
    ],
)
def test_command_line_is_read(argv: list[str], options: Options) -> None:
    assert parse_args(argv) == options


def test_relative_paths_are_made_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert parse_args(["-p", "x/p"]).pid_file == tmp_path / "x/p"


def ended(argv: list[str], capsys: pytest.CaptureFixture[str]) -> tuple[object, str, str]:
    with pytest.raises(SystemExit) as caught:
        parse_args(argv, Paths.system())
    out, err = capsys.readouterr()
    return caught.value.code, out, err


@pytest.mark.parametrize(
    ("argv", "error"),
    [
        (["--bogus"], "unrecognized option '--bogus'"),
        (["-q"], "invalid option -- 'q'"),
        (["-d=1"], "invalid option -- '='"),
        (["-p"], "option requires an argument -- 'p'"),
        (["--config"], "option '--config' requires an argument"),
        (["--listen=1"], "option '--listen' doesn't allow an argument"),
        (["--ver"], "option '--ver' is ambiguous; possibilities: '--verbose' '--version'"),
    ],
)
def test_bad_option_is_told_with_the_usage(argv: list[str], error: str, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = ended(argv, capsys)
    assert (code, out, err) == (1, "", f"pyvirtd: {error}\n{usage(Paths.system())}")


@pytest.mark.parametrize("argv", [["extra"], ["-v", "extra"], ["--", "-h"], ["-"]])
def test_other_words_are_refused(argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert ended(argv, capsys) == (1, "", "pyvirtd: unexpected, non-option, command line arguments\n")


@pytest.mark.parametrize("value", ["abc", "", "-1", "2147484", "=10", "99999999999", "1_0", "5m"])
def test_bad_timeout_is_refused(value: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert ended(["-t", value], capsys) == (1, "", "pyvirtd: Invalid value for timeout\n")


@pytest.mark.parametrize("argv", [["-h"], ["--help"], ["--he"], ["-hV"], ["extra", "-h"], ["-h", "--bogus"]])
def test_help_is_shown_and_ends_it(argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert ended(argv, capsys) == (0, "", usage(Paths.system()))


def test_options_are_acted_on_in_their_order(capsys: pytest.CaptureFixture[str]) -> None:
    assert ended(["--bogus", "-h"], capsys)[0] == 1
    assert ended(["-t", "abc", "-h"], capsys)[0] == 1
    assert ended(["-Vh"], capsys)[1].startswith("pyvirtd (libvirt) ")


def test_help_names_the_paths_of_the_session(capsys: pytest.CaptureFixture[str]) -> None:
    text = usage(Paths.session({"HOME": "/home/u", "XDG_RUNTIME_DIR": "/run/user/7"}))
    assert "      /run/user/7/libvirt/libvirt-sock\n" in text
    assert "libvirt-sock-ro" not in text


@pytest.mark.skipif(LIBVIRTD is None, reason="no libvirtd to compare with")
def test_help_is_that_of_libvirtd() -> None:
    shown = subprocess.run([str(LIBVIRTD), "--help"], capture_output=True, text=True, check=True).stderr
    listed = [line for line in shown.replace(str(LIBVIRTD), "pyvirtd").splitlines() if line.startswith("  -")]
    assert listed == [line for line in usage(None).splitlines() if line.startswith("  -")]
    assert len(listed) == len(OPTIONS)
