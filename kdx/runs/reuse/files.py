"""Fingerprints of data files: cheap, and exact where the files are small."""

import hashlib
import os
import stat
from collections.abc import Mapping, Sequence
from typing import Any

EXACT_BYTES = 2**25  # contents are hashed up to this size in all
EXACT_FILES = 1000
STATED = 200_000  # sizes and times are read of at most this many files, evenly spaced
SAMPLED = 64  # files whose content is sampled
PIECE = 2**16  # bytes at the start, the middle and the end of a sampled file

Facts = dict[str, Any]  # plain values, as in JSON


def fingerprint(files: Mapping[str, Sequence[str]]) -> Facts:
    """Facts that show whether files changed, without reading all of a large data set.

    Args:
        files: Paths by the folder that they are listed under.

    Returns:
        "folders": for each folder the number of its files, their bytes, a hash of names and sizes, and a hash of the
        contents of small data, else of the times. "exact": whether contents were hashed. "oldest" time, and "content",
        a hash of a sample of the contents of other data: they distinguish a copy from a change. Empty without files.
    """
    groups: dict[str, list[tuple[str, str]]] = {}
    for root, paths in files.items():
        for path in paths:
            name = path.removeprefix(root).lstrip(os.sep)
            groups.setdefault(name.rpartition(os.sep)[0], []).append((name, path))
    count = sum(map(len, groups.values()))
    if not count:
        return {}
    step = -(-count // STATED)
    sizes = {path: _size(path) for _, group in sorted(groups.items()) for _, path in sorted(group)[::step]}
    exact = count <= EXACT_FILES and sum(size for size, _ in sizes.values()) <= EXACT_BYTES
    folders = {}
    for folder, group in sorted(groups.items()):
        known = [(name, *sizes.get(path, (0, 0))) for name, path in sorted(group)]
        state = _hash(*(_content(path, None) for _, path in sorted(group))) if exact else _hash(*(t for *_, t in known))
        names = _hash(*(value for name, size, _ in known for value in (name, size)))
        folders[folder] = [len(group), sum(size for _, size, _ in known), names, state]
    chosen = sorted(path for group in groups.values() for _, path in group)
    chosen = [] if exact else chosen[:: -(-count // SAMPLED)]
    content = _hash(*(_content(path, PIECE) for path in chosen))
    return {"folders": folders, "exact": exact, "oldest": min(time for _, time in sizes.values()), "content": content}


def change(old: Facts, new: Facts) -> str | None:
    """The first difference between two fingerprints, in words; None if the files are the same or cannot be compared."""
    if not old or not new:
        return None
    before, now = old["folders"], new["folders"]
    differ = [f for f in sorted(before.keys() | now.keys()) if before.get(f, [])[:3] != now.get(f, [])[:3]]
    if differ:
        return _counted(_resized(differ[0], before.get(differ[0]), now.get(differ[0])), differ)
    differ = [folder for folder in before if before[folder][3] != now[folder][3]]
    if not differ:
        return None
    copied = not old["exact"] and len(differ) == len(before) and old["oldest"] != new["oldest"]
    if copied and old["content"] == new["content"]:
        return None
    return _counted(f"files {_where(differ[0])} were changed", differ)


def _resized(folder: str, before: list[Any] | None, now: list[Any] | None) -> str:
    if before is None or now is None:
        return f"the folder {folder or '.'} {'is new' if before is None else 'is gone'}"
    if before[0] != now[0]:
        return f"{now[0]} files {_where(folder)}, {before[0]} before"
    if before[1] != now[1]:
        return f"{now[1]} bytes of files {_where(folder)}, {before[1]} before"
    return f"other names or sizes of files {_where(folder)}"


def _where(folder: str) -> str:
    return f"in {folder}" if folder else "in it"


def _counted(text: str, differ: Sequence[str]) -> str:
    return text if len(differ) == 1 else f"{text}, and {len(differ) - 1} more folders"


def _size(path: str) -> tuple[int, int]:
    """Size in bytes and time in ns; (-1, 0) for a file that has gone."""
    try:
        status = os.stat(path)
    except OSError:
        return -1, 0
    return status.st_size, status.st_mtime_ns


def _content(path: str, piece: int | None) -> str:
    """Hash of a file's content, or of three pieces of it; "" if it cannot be read."""
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
        with open(handle, "rb") as file:
            size = os.fstat(handle).st_size
            if not stat.S_ISREG(os.fstat(handle).st_mode):
                return ""
            if piece is None or size <= 3 * piece:
                return hashlib.sha256(file.read()).hexdigest()
            return _hash(*(os.pread(handle, piece, at) for at in (0, (size - piece) // 2, size - piece)))
    except OSError:
        return ""


def _hash(*values: str | int | bytes) -> str:
    whole = hashlib.sha256()
    for value in values:
        whole.update(value if isinstance(value, bytes) else os.fsencode(str(value)))
        whole.update(b"\0")
    return whole.hexdigest()[:12]
