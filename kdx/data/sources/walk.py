"""Image files below folders: each folder once, nothing hidden, and a count of all that is skipped."""

import os
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

from kdx.core.distributed import is_leader
from kdx.core.notice import say
from kdx.data.sets import DataError

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".gif", ".ppm", ".pgm", ".tif", ".tiff", ".webp")
# Folders that file servers, archives and editors create beside the data
SYSTEM = ("@eadir", "@recycle", "#recycle", "$recycle.bin", "system volume information", "lost+found", "__macosx")
Place = tuple[int, int]  # device and inode


@dataclass
class Skipped:
    """Counts of what a walk left out.

    Attributes:
        hidden: Files whose name, or whose folder's name, starts with a dot, or that lie in a folder of the system.
        links: Links to a folder that was visited already, or that contains the place of the link.
        loose: Images beside the class folders.
        suffixes: Files of other types by suffix; "" for files without one.
    """

    hidden: int = 0
    links: int = 0
    loose: int = 0
    suffixes: Counter[str] = field(default_factory=Counter)

    def __bool__(self) -> bool:
        return bool(self.hidden or self.links or self.loose or self.suffixes)

    def __str__(self) -> str:
        named = (
            (self.hidden, "hidden file", "hidden files"),
            (self.links, "link to a folder visited before", "links to folders visited before"),
            (self.loose, "image outside the class folders", "images outside the class folders"),
        )
        parts = [f"{count} {one if count == 1 else many}" for count, one, many in named if count]
        common = self.suffixes.most_common(6)  # first by count, then by the order of discovery
        parts += [f"{count} {suffix or 'without suffix'}" for suffix, count in common]
        if rest := self.suffixes.total() - sum(count for _, count in common):
            parts.append(f"{rest} of other types")
        return ", ".join(parts)

    def report(self, where: str) -> None:
        """Say on standard error what was skipped, if anything was."""
        if self and is_leader():
            say(f"{where}: skipped {self}")


def is_hidden(name: str) -> bool:
    """Whether a file or folder is no part of the data by its name."""
    return name.startswith(".") or name.lower() in SYSTEM or name == "__pycache__"


def images_in(folders: Sequence[str], skipped: Skipped) -> list[list[str]]:
    """The image files below each folder, sorted by path.

    A folder that several links lead to is visited once: where it lies, else at the first link. So no file is found
    twice and loops end.

    Args:
        folders: The folders; none contains another.
        skipped: Is increased by what is left out.

    Raises:
        DataError: A folder cannot be read, two of them are one folder, or an image is a broken link, a pipe or a
            device.
    """
    roots = [os.path.realpath(folder) for folder in folders]
    owner = dict(zip(roots, folders, strict=True))
    for root, folder in zip(roots, folders, strict=True):
        if owner[root] != folder:
            raise DataError(f"{folder} and {owner[root]} are one folder; remove the link")
    ordered = sorted(os.path.join(root, "") for root in roots)  # a folder comes right before one inside it
    for outer, inner in pairwise(ordered):
        if inner.startswith(outer):
            raise DataError(f"{owner[outer[:-1] or '/']} contains {owner[inner[:-1]]}; remove the link")
    walk = _Walk(roots, skipped)
    found = [walk.folder(folder) for folder in folders]
    while walk.links:  # after all folders, so that a file belongs to the folder in which it lies
        walk.follow(*walk.links.pop(0))
    return [sorted(files) for files in found]


class _Walk:
    def __init__(self, roots: Iterable[str], skipped: Skipped):
        self.roots, self.skipped = [os.path.join(root, "") for root in roots], skipped
        self.visited: set[Place] = set()
        self.links: list[tuple[list[str], str]] = []

    def folder(self, folder: str) -> list[str]:
        files: list[str] = []
        if os.path.isdir(folder):
            self._descend(files, folder)
        return files

    def follow(self, files: list[str], link: str) -> None:
        target = os.path.join(os.path.realpath(link), "")
        if any(root.startswith(target) for root in self.roots):
            self.skipped.links += 1
        else:
            self._descend(files, link)

    def _descend(self, files: list[str], folder: str) -> None:
        waiting = [folder]
        while waiting:
            folder = waiting.pop()
            place = _place(folder)
            if place in self.visited:
                self.skipped.links += 1
                continue
            self.visited.add(place)
            for entry in entries(folder):
                if is_hidden(entry.name):
                    self.skipped.hidden += count(entry)
                elif entry.is_dir(follow_symlinks=False):
                    waiting.append(entry.path)
                elif entry.is_dir():
                    self.links.append((files, entry.path))
                elif not entry.name.lower().endswith(SUFFIXES):
                    self.skipped.suffixes[os.path.splitext(entry.name)[1].lower()] += 1
                elif entry.is_file():
                    files.append(entry.path)
                else:
                    raise DataError(f"{entry.path} is a broken link, a pipe or a device, not an image")


def files_below(path: str) -> dict[str, list[str]]:
    """A file, or all files below a folder but hidden ones, by the folder they are listed under; empty if missing."""
    if os.path.isfile(path):
        return {os.path.dirname(path): [path]}
    found: list[str] = []
    visited: set[tuple[int, int]] = set()
    for where, folders, names in os.walk(path, followlinks=True):
        status = os.stat(where)
        if (status.st_dev, status.st_ino) in visited:  # a loop of links
            folders.clear()
            continue
        visited.add((status.st_dev, status.st_ino))
        folders[:] = sorted(name for name in folders if not is_hidden(name))
        found += [os.path.join(where, name) for name in names if not is_hidden(name)]
    return {path: found} if found else {}


def listed(paths: Sequence[Path]) -> dict[str, list[str]]:
    """Given files by their folder; missing ones are left out."""
    found: dict[str, list[str]] = {}
    for path in paths:
        if path.is_file():
            found.setdefault(str(path.parent), []).append(str(path))
    return found


def entries(folder: str) -> list[os.DirEntry[str]]:
    """The entries of a folder by name. Raises DataError if it cannot be read."""
    try:
        with os.scandir(folder) as found:
            return sorted(found, key=lambda entry: entry.name)
    except OSError as error:
        raise DataError(f"cannot read the folder {folder}: {error.strerror}") from None


def count(entry: os.DirEntry[str]) -> int:
    """Number of files of an entry: 1 for a file, and all below a folder."""
    if not entry.is_dir(follow_symlinks=False):
        return 1
    return sum(len(names) for _, _, names in os.walk(entry.path))


def _place(folder: str) -> Place:
    try:
        status = os.stat(folder)
    except OSError as error:
        raise DataError(f"cannot read the folder {folder}: {error.strerror}") from None
    return status.st_dev, status.st_ino
