"""Lists of CPU and node numbers."""

import time

import pytest

from pyvirtd.errors import InvalidArg
from pyvirtd.xml.bitmap import MAX_NUMBER, Bitmap, format_bitmap


@pytest.mark.parametrize(
    ("text", "canonical"),
    [("0-3,5", "0-3,5"), ("3,1,2", "1-3"), ("0-7,^2-2", None), ("0-7,^2", "0-1,3-7"), (" 1 , 2-3 ,^2 ", "1,3"),
     ("1,", "1"), ("^1", ""), ("0-16383", "0-16383")],
)  # fmt: skip
def test_reads_and_prints_canonically(text: str, canonical: str | None) -> None:
    if canonical is None:
        with pytest.raises(InvalidArg):
            Bitmap.parse(text)
    else:
        assert str(Bitmap.parse(text)) == canonical


@pytest.mark.parametrize("text", ["", "x", "1,,2", "3-1", "-1", "0-16384", "0-99999999999", "1;2", "1-2-3"])
def test_refuses(text: str) -> None:
    with pytest.raises(InvalidArg, match="Failed to parse bitmap"):
        Bitmap.parse(text)


def test_is_a_set() -> None:
    bitmap = Bitmap.parse("0-2,9")
    assert list(bitmap) == [0, 1, 2, 9]
    assert len(bitmap) == 4
    assert bitmap == {0, 1, 2, 9}
    assert bitmap & {1, 5} == Bitmap([1])
    assert 9 in bitmap
    assert 3 not in bitmap
    assert bitmap <= set(range(10))
    assert not Bitmap()
    assert hash(Bitmap([1])) == hash(Bitmap([1]))


def test_any_numbers_are_formatted() -> None:
    assert format_bitmap({5, 1, 2}) == "1-2,5"
    assert format_bitmap([]) == ""


def test_wide_ranges_are_cheap() -> None:
    began = time.perf_counter()
    for _ in range(2000):
        str(Bitmap.parse(f"0-{MAX_NUMBER}"))
    assert time.perf_counter() - began < 2
