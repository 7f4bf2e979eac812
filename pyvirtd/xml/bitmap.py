"""Sets of small numbers (CPUs, NUMA nodes), held as one integer: a wide range costs no more than a narrow one."""

import re
from collections.abc import Iterable, Iterator, Set

from pyvirtd.errors import InvalidArg

MAX_NUMBER = 16383  # the largest CPU number that libvirt takes

_ITEM = re.compile(r"[ \t]*(\^)?[ \t]*([0-9]{1,10})[ \t]*(?:-[ \t]*([0-9]{1,10})[ \t]*)?")


class Bitmap(Set[int]):
    """An immutable set of numbers from 0; equal to any other set of the same numbers."""

    __slots__ = ("mask",)

    def __init__(self, numbers: Iterable[int] = ()) -> None:
        mask = 0
        for number in numbers:
            mask |= 1 << number
        self.mask = mask

    @classmethod
    def from_mask(cls, mask: int) -> "Bitmap":
        """The set of the bits that are 1."""
        made = cls()
        made.mask = mask
        return made

    @classmethod
    def parse(cls, text: str) -> "Bitmap":
        """Members of a list such as "0-3,^2,7", read from the left; ^ takes one out. Raises InvalidArg."""
        mask = 0
        items = text.split(",")
        if len(items) > 1 and not items[-1].strip():
            items.pop()
        for item in items:
            match = _ITEM.fullmatch(item)
            low = int(match[2]) if match else 0
            high = int(match[3]) if match and match[3] else low
            if match is None or high > MAX_NUMBER or high < low or (match[1] and match[3]):
                raise InvalidArg(f"Failed to parse bitmap '{text[:1024]}'")
            bits = ((1 << (high - low + 1)) - 1) << low
            mask = mask & ~bits if match[1] else mask | bits
        return cls.from_mask(mask)

    def __contains__(self, number: object) -> bool:
        return isinstance(number, int) and number >= 0 and bool(self.mask >> number & 1)

    def __iter__(self) -> Iterator[int]:
        for low, high in self.ranges():
            yield from range(low, high + 1)

    def __len__(self) -> int:
        return self.mask.bit_count()

    def __hash__(self) -> int:
        return self._hash()

    def ranges(self) -> Iterator[tuple[int, int]]:
        """Runs of neighbouring members, both ends included."""
        mask, base = self.mask, 0
        while mask:
            skip = (mask & -mask).bit_length() - 1
            mask >>= skip
            run = (~mask & (mask + 1)).bit_length() - 1
            yield base + skip, base + skip + run - 1
            mask >>= run
            base += skip + run

    def __str__(self) -> str:
        return ",".join(str(low) if low == high else f"{low}-{high}" for low, high in self.ranges())

    def __repr__(self) -> str:
        return f"Bitmap({str(self)!r})"


def format_bitmap(numbers: Iterable[int]) -> str:
    """The shortest list of numbers and ranges: {0, 1, 2, 5} is "0-2,5"."""
    return str(numbers if isinstance(numbers, Bitmap) else Bitmap(numbers))
