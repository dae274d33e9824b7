"""A disk in memory that knows what a power cut would leave of it.

Every file remembers what of it was synced, every folder which of its names were. After a power cut an unsynced file
has any length from what was synced to what was written; an unsynced change of a name has happened, or it has not.
"""

import errno
import os
import random
from dataclasses import dataclass, field


def fail(number: int, path: object = "") -> OSError:
    """An error of the operating system."""
    return OSError(number, os.strerror(number), str(path))


@dataclass(eq=False)
class File:
    """Bytes, and those that survive."""

    number: int
    modified: float = 0.0
    data: bytearray = field(default_factory=bytearray)
    synced: bytes = b""

    def sync(self) -> None:
        self.synced = bytes(self.data)


@dataclass(eq=False)
class Folder:
    """Names, and those that survive."""

    number: int
    names: "dict[str, File | Folder]" = field(default_factory=dict[str, "File | Folder"])
    synced: "dict[str, File | Folder]" = field(default_factory=dict[str, "File | Folder"])

    def sync(self) -> None:
        self.synced = dict(self.names)


class Disk:
    """A tree of folders and files, by absolute path."""

    def __init__(self) -> None:
        self._numbers = 1
        self.root = Folder(1)

    def number(self) -> int:
        self._numbers += 1
        return self._numbers

    def find(self, path: str) -> File | Folder:
        """What lies there. Raises `FileNotFoundError`, `NotADirectoryError`."""
        found: File | Folder = self.root
        for segment in path.split("/"):
            if segment:
                found = entry(found, segment, path)
        return found

    def folder(self, path: str) -> Folder:
        """The folder there. Raises as `find`."""
        found = self.find(path)
        if not isinstance(found, Folder):
            raise fail(errno.ENOTDIR, path)
        return found

    def make(self, path: str) -> None:
        """Make a folder and those above it, durably."""
        at = self.root
        for segment in path.split("/"):
            if segment:
                child = at.names.setdefault(segment, Folder(self.number()))
                assert isinstance(child, Folder)
                at.sync()
                at = child

    def power_cut(self, rng: random.Random, survival: float = 0.5) -> None:
        """Lose what was not synced, as much of it as chance has it: of names each with this likelihood."""
        self._cut(self.root, rng, survival, set())

    def _cut(self, folder: Folder, rng: random.Random, survival: float, done: set[int]) -> None:
        if folder.number in done:
            return
        done.add(folder.number)
        kept: dict[str, File | Folder] = {}
        for name in sorted(folder.names.keys() | folder.synced.keys()):
            new, old = folder.names.get(name), folder.synced.get(name)
            survivor = new if new is old or rng.random() < survival else old
            if survivor is not None:
                kept[name] = survivor
        folder.names = kept
        folder.sync()
        for child in kept.values():
            if isinstance(child, Folder):
                self._cut(child, rng, survival, done)
            elif child.number not in done:
                done.add(child.number)
                if bytes(child.data) != child.synced:
                    least = min(len(child.synced), len(child.data))
                    most = len(child.data) if survival else least
                    child.data = child.data[: rng.randint(least, most)]
                    child.sync()


def entry(folder: File | Folder, name: str, path: str) -> File | Folder:
    """What a name in a folder means. Raises `FileNotFoundError`, `NotADirectoryError`."""
    if not isinstance(folder, Folder):
        raise fail(errno.ENOTDIR, path)
    if name not in folder.names:
        raise fail(errno.ENOENT, path)
    return folder.names[name]
