"""Writes a 'newc' cpio archive, the form of an initial RAM disk.

The fields are those of the kernel's Documentation/driver-api/early-userspace/buffer-format.rst.
"""

import stat
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath


@dataclass
class Archive:
    """Collects files owned by root with a fixed time, so that equal input gives equal bytes."""

    _chunks: list[bytes] = field(default_factory=list)
    _seen: set[str] = field(default_factory=set)
    _inode: int = 0

    def directory(self, path: str) -> None:
        """Add a directory and what leads to it; one that is there already stays."""
        for part in [*reversed(PurePosixPath(path).parents), PurePosixPath(path)]:
            if str(part) not in ("/", "."):
                self._once(str(part), stat.S_IFDIR | 0o755, b"")

    def file(self, path: str, data: bytes, mode: int = 0o644) -> None:
        """Add a regular file."""
        self.directory(str(PurePosixPath(path).parent))
        self._once(path, stat.S_IFREG | mode, data)

    def copy(self, path: str, source: Path) -> None:
        """Add a program or a library of this machine (links are followed)."""
        self.file(path, source.read_bytes(), 0o755)

    def link(self, path: str, target: str) -> None:
        """Add a symbolic link."""
        self.directory(str(PurePosixPath(path).parent))
        self._once(path, stat.S_IFLNK | 0o777, target.encode())

    def device(self, path: str, major: int, minor: int) -> None:
        """Add a character device."""
        self.directory(str(PurePosixPath(path).parent))
        self._once(path, stat.S_IFCHR | 0o600, b"", (major, minor))

    def to_bytes(self) -> bytes:
        """The whole archive."""
        return b"".join([*self._chunks, self._record("TRAILER!!!", 0, b"", 0, (0, 0))])

    def _once(self, path: str, mode: int, data: bytes, device: tuple[int, int] = (0, 0)) -> None:
        name = path.lstrip("/")
        if name in self._seen:
            return
        self._seen.add(name)
        self._inode += 1
        self._chunks.append(self._record(name, mode, data, self._inode, device))

    @staticmethod
    def _record(name: str, mode: int, data: bytes, inode: int, device: tuple[int, int]) -> bytes:
        encoded = name.encode() + b"\0"
        links = 2 if stat.S_ISDIR(mode) else 1
        fields = (inode, mode, 0, 0, links, 0, len(data), 0, 0, *device, len(encoded), 0)
        head = b"070701" + b"".join(b"%08X" % value for value in fields) + encoded
        return head + b"\0" * (-len(head) % 4) + data + b"\0" * (-len(data) % 4)
