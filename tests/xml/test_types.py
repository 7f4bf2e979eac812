"""Scalars: numbers in their ranges and bases, words, sizes, addresses; what they refuse."""

import typing

import pytest

from pyvirtd.errors import InvalidArg, Overflow
from pyvirtd.xml import types
from pyvirtd.xml.types import Codec, codec_of, scale


def codec(alias: object) -> Codec:
    return next(extra for extra in typing.get_args(alias) if isinstance(extra, Codec))


@pytest.mark.parametrize(
    ("alias", "word", "value", "printed"),
    [
        (types.U32, "4294967295", 4294967295, "4294967295"),
        (types.U32, " 7", 7, "7"),
        (types.U32, "+7", 7, "7"),
        (types.I64, "-9223372036854775808", -(1 << 63), str(-(1 << 63))),
        (types.Hex16, "10", 10, "0x000a"),
        (types.Hex16, "0x1f", 31, "0x001f"),
        (types.Hex16, "017", 15, "0x000f"),
        (types.Octal, "755", 0o755, "0755"),
        (types.Octal, "0644", 0o644, "0644"),
        (types.YesNo, "no", False, "no"),
        (types.YesOrNot, "bogus", False, "no"),
        (types.OnOff, "on", True, "on"),
        (types.Mac, "52:54:0:A:E7:47", "52:54:00:0a:e7:47", "52:54:00:0a:e7:47"),
        (types.Uuid, "C7A5FDBDEDAF9455926AD65C16DB1809", "c7a5fdbd-edaf-9455-926a-d65c16db1809", None),
        (types.IpAddress, "2001:DB8:0:0::1", "2001:db8::1", "2001:db8::1"),
        (types.UsbPort, "1.02.3", "1.2.3", "1.2.3"),
        (types.UsbVersion, "2.5", "2.50", "2.50"),
        (types.LenientU32, "many", None, None),
    ],
)
def test_reads_and_prints(alias: object, word: str, value: object, printed: str | None) -> None:
    read = codec(alias).parse(word)
    assert read == value
    if printed is not None:
        assert codec(alias).show(read) == printed


@pytest.mark.parametrize(
    ("alias", "word"),
    [
        (types.U32, "4294967296"),
        (types.U32, "-1"),
        (types.U32, "1 "),
        (types.U32, ""),
        (types.U32, "0x10"),
        (types.U32, "9" * 1000),
        (types.U32, "1_000"),
        (types.U32, "²"),
        (types.Positive32, "0"),
        (types.Hex16, "0xg"),
        (types.Hex16, "08"),
        (types.Octal, "8"),
        (types.YesNo, "YES"),
        (types.Mac, "52:54:00:0a:e7"),
        (types.Uuid, "{c7a5fdbd-edaf-9455-926a-d65c16db1809}"),
        (types.Uuid, "c7a5fdbd"),
        (types.IpAddress, "example.org"),
        (types.UsbPort, "1.2.3.4.5"),
        (types.AbsolutePath, "relative"),
        (types.Wwn, "0x12"),
        (types.CpuSet, "1,x"),
    ],
)
def test_refuses(alias: object, word: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - the reader turns any of them into its own error
        codec(alias).parse(word)


def test_plain_types_have_codecs() -> None:
    assert [codec_of(kind) is not None for kind in (str, int, bool, types.U8, list)] == [True, True, True, True, False]


@pytest.mark.parametrize(
    ("size", "pretty"), [(3 << 20, (3, "MiB")), (1536, (1536, "B")), (0, (0, "B")), (1 << 40, (1, "TiB"))]
)
def test_pretty_sizes(size: int, pretty: tuple[int, str]) -> None:
    assert types.pretty_size(size) == pretty


@pytest.mark.parametrize(
    ("count", "suffix", "kib"),
    [
        (1000, "KB", 977),
        (1000, "kB", 977),
        (1000, "k", 1000),
        (1000, "K", 1000),
        (1, "KiB", 1),
        (7, "kib", 7),
        (1025, "b", 2),
        (1025, "byte", 2),
        (1025, "bytes", 2),
        (1025, "B", 2),
        (3, "MB", 2930),
        (3, "M", 3072),
        (3, "mib", 3072),
        (1, "G", 1048576),
        (1, "TB", 976562500),
    ],
)
def test_size_is_scaled_as_libvirtd_does(count: int, suffix: str, kib: int) -> None:
    assert scale(count, suffix, "KiB") == kib


@pytest.mark.parametrize("suffix", ["foo", "bits", "kibi", "ib", "xb"])
def test_unknown_unit_is_refused(suffix: str) -> None:
    with pytest.raises(InvalidArg, match=f"^invalid argument: unknown suffix '{suffix}'$"):
        scale(1, suffix, "KiB")


def test_size_beyond_the_limit_is_refused() -> None:
    assert scale(15, "EiB", "KiB") == 15 << 50
    with pytest.raises(Overflow, match=r"^numerical overflow: value too large: 16EiB$"):
        scale(16, "EiB", "KiB")
