"""Change one thing at a time in a copy of the tree, run the tests of its room, and print the changes that survive.

    python scripts/mutate.py ROOM [--count 40] [--seed 1] [--timeout 600] [--only FILE] [--list]

ROOM is a folder of kdx, such as losses, or `configs`, the defaults of configs/method. A change that survives either
alters nothing that anyone can observe, or shows a hole in the tests. The exit status is 1 if one survives.

For each change, the tests named after its file run first, then the rest of the room, until one fails. A change that
makes the tests run longer than the timeout counts as caught.
"""

import argparse
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from mutations import Mutation, candidates

ROOT = Path(__file__).resolve().parent.parent
FAST = ["-x", "-q", "-m", "not slow", "-p", "no:cacheprovider", "--no-header", "--tb=no"]
PASSED, NOTHING = 0, 5  # exit statuses of pytest
# tests of other rooms that hold laws for this one
ALSO = {"core": ["tests/losses/test_laws.py"], "configs": ["tests/methods/test_published_settings.py"]}


def sources(room: str) -> list[Path]:
    """The files of a room, relative to the root."""
    folder, pattern = (ROOT / "configs" / "method", "*.yaml") if room == "configs" else (ROOT / "kdx" / room, "*.py")
    found = sorted(path.relative_to(ROOT) for path in folder.rglob(pattern))
    if not found:
        rooms = sorted(p.name for p in (ROOT / "kdx").iterdir() if (p / "__init__.py").exists())
        sys.exit(f"there is no room '{room}'; choose one of: configs, {', '.join(rooms)}")
    return found


def tests_of(room: str, path: Path) -> list[list[str]]:
    """The tests to run for a change to a file, in rounds: those named after it, then all of the room."""
    whole = [*([f"tests/{room}"] if (ROOT / "tests" / room).exists() else []), *ALSO.get(room, [])]
    stem = path.stem.removesuffix("s")
    named = sorted(str(p.relative_to(ROOT)) for p in (ROOT / "tests" / room).rglob(f"test_*{stem}*.py"))
    rounds = [named] if named and room != "configs" else []
    if room == "losses":
        rounds.append(["tests/losses/test_laws.py", "-k", path.stem.replace("_", " or ")])
    if room in ("losses", "metrics", "core"):
        rounds.append(["tests/test_doctests.py", "-k", f"run and {path.stem}"])
    return [*rounds, whole]


def copy_tree(to: Path) -> None:
    """Copy what git knows or does not ignore."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        check=True,
        capture_output=True,
    )
    for name in filter(None, listed.stdout.decode().split("\0")):
        if (ROOT / name).is_file():
            (to / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, to / name)


def run(tree: Path, arguments: Sequence[str], timeout: float) -> int | None:
    """Exit status of pytest in a tree, or None after the timeout. The process is a fork, which has torch already."""
    child = os.fork()
    if not child:
        os.setpgid(0, 0)
        os.chdir(tree)
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, 1)
        os.dup2(null, 2)
        sys.path.insert(0, str(tree))
        import pytest

        os._exit(int(pytest.main([*FAST, *arguments])))
    limit = time.monotonic() + timeout
    while time.monotonic() < limit:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.05)
    os.killpg(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return None


def survives(tree: Path, room: str, mutation: Mutation, timeout: float) -> bool:
    """Whether all tests pass with the change."""
    file = tree / mutation.path
    text = file.read_text()
    file.write_text(mutation.apply(text))
    try:
        return all(run(tree, round_, timeout) in (PASSED, NOTHING) for round_ in tests_of(room, mutation.path))
    finally:
        file.write_text(text)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else None)
    parser.add_argument("room")
    parser.add_argument("--count", type=int, default=40, help="number of changes; all if there are fewer")
    parser.add_argument("--seed", type=int, default=1, help="draws the changes")
    parser.add_argument("--timeout", type=float, default=600, help="seconds for one round of tests")
    parser.add_argument("--only", default="", help="files whose path contains this")
    parser.add_argument("--list", action="store_true", help="print the drawn changes and run nothing")
    options = parser.parse_args()
    files = [path for path in sources(options.room) if options.only in str(path)]
    possible = [m for path in files for m in candidates(path, (ROOT / path).read_text())]
    drawn = random.Random(options.seed).sample(possible, min(options.count, len(possible)))
    print(f"{options.room}: {len(drawn)} of {len(possible)} changes, seed {options.seed}", flush=True)
    if options.list:
        print(*drawn, sep="\n")
        return 0
    os.environ.update(PYTHONDONTWRITEBYTECODE="1", OMP_NUM_THREADS="1")
    sys.dont_write_bytecode = True
    import torch  # noqa: F401 - once, for all forks

    with tempfile.TemporaryDirectory(prefix="kdx-mutate-") as place:
        tree = Path(place).resolve()
        copy_tree(tree)
        os.environ["PYTHONPATH"] = str(tree)
        first = sorted({name for m in drawn for name in tests_of(options.room, m.path)[0] if name.endswith(".py")})
        if run(tree, first, options.timeout) not in (PASSED, NOTHING):
            sys.exit(f"these tests fail or time out without any change: {' '.join(first)}")
        left = []
        for i, mutation in enumerate(drawn, 1):
            begun = time.monotonic()
            alive = survives(tree, options.room, mutation, options.timeout)
            left += [mutation] if alive else []
            print(
                f"{i:4} {'SURVIVED' if alive else 'caught':9}{time.monotonic() - begun:5.0f} s  {mutation}", flush=True
            )
    print(f"{options.room}: caught {len(drawn) - len(left)} of {len(drawn)}, seed {options.seed}")
    print(*(f"survived: {m}" for m in left), sep="\n")
    return int(bool(left))


if __name__ == "__main__":
    sys.exit(main())
