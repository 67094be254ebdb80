"""Compare short training runs at a commit and in the working tree, bit by bit.

    python scripts/compare.py BASE [--set dkd,crd] [--without cka]

For each run, and each teacher that it trains, this compares all numbers of `metrics.jsonl` except times, the tensors of
`student.safetensors`, and the metrics of `result.json`. It prints a line for each case: identical, or the first number
that differs. It exits with 1 if a case differs or fails. Do not edit the working tree while it runs.

`--without cka` leaves out metrics with that word in their name, where a change is meant; the last line says so.

Only the command line is used, since a refactor moves modules. If a refactor also renames options, add the old names to
`RENAMES`.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from compare_runs import difference, read_runs

ROOT = Path(__file__).resolve().parent.parent
LOCAL = Path("configs/local")  # settings of this machine, which are not committed

SHORT = (
    "trainer.duration.epochs=null",
    "trainer.duration.steps=60",
    "trainer.log_steps=1",
    "trainer.threads=1",
    "trainer.device=cpu",
    "logger=jsonl",
)
TEACHER = "'trainer.duration.epochs=null','trainer.duration.steps=40','trainer.log_steps=1'"
DIGITS = (
    "train",
    "dataset=digits",
    *SHORT,
    f"teacher.recipe=[{TEACHER},'augmentation=shift','optimizer.lr=0.001']",
)
MAPS = (  # convolutional networks of different widths
    "train",
    "dataset=synthetic",
    "dataset.input_shape=[3,8,8]",
    "dataset.train_size=256",
    "dataset.test_size=100",
    "student=resnet8",
    "student.net.widths=[4,4,8,8]",
    "teacher=resnet8",
    "teacher.net.widths=[6,6,10,10]",
    "augmentation.crop.pad=1",
    "trainer.batch_size=32",
    "evals.test.every=4",
    *SHORT,
    f"teacher.recipe=[{TEACHER}]",
)
CASES: Mapping[str, Sequence[str]] = {
    "dkd": [*DIGITS, "method=dkd"],
    "crd": [*DIGITS, "method=crd"],
    "dml": [*DIGITS, "method=dml", "method.peers=[same,mlp_20]"],
    "chain": [
        *("study", "study=takd/digits", "study.seeds=[0]", "rows=[TAKD,DGKD]"),
        f"overrides=[{','.join(map(repr, SHORT))}]",
    ],
    "fused": [*DIGITS, "-m", "method=kd,dkd", "data_seed=0", "hydra/launcher=fused"],
    # enough epochs for the nine views of each image to repeat
    "memo": [*DIGITS, "method=kd", "augmentation=shift", "teacher.memo=true", "trainer.duration.steps=160"],
    "bf16": [*MAPS, "method=kd", "trainer.precision=bf16"],
    "accumulate": [*DIGITS, "method=kd", "update.accumulate=2", "trainer.ema=0.9"],
    "sobolev": [*MAPS, "method=sobolev"],
    "maps": [*MAPS, "-m", "method=at,fitnet"],
    "adversary": [*DIGITS, "-m", "method=adv_logits,ard"],
}


@dataclass(frozen=True)
class Rename:
    """An option of the cases that a commit renamed, such as `trainer.log_steps`.

    Attributes:
        now: The name in the cases.
        before: The old name.
        until: The last commit with the old name; this commit and earlier ones get `before`.
    """

    now: str
    before: str
    until: str


RENAMES: Sequence[Rename] = ()  # the latest last


@dataclass(frozen=True)
class Side:
    """One side of the comparison: its code, its outputs, and its renames."""

    name: str
    root: Path
    outputs: Path
    renames: Sequence[Rename]

    def told(self, text: str) -> str:
        """Translate the text of a case to this side's names."""
        for rename in reversed(self.renames):
            text = text.replace(rename.now, rename.before)
        return text

    def python(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run Python with this side's code."""
        self.outputs.mkdir(parents=True, exist_ok=True)
        environment = {**os.environ, "PYTHONPATH": str(self.root), "OMP_NUM_THREADS": "1"}
        command = [sys.executable, *arguments]
        return subprocess.run(command, cwd=self.outputs, env=environment, capture_output=True, text=True, check=False)

    def play(self, case: str) -> Path:
        """Run a case and return the folder of its outputs. Raises RuntimeError if the command fails."""
        done = self.python("-m", "kdx.cli", *map(self.told, CASES[case]), f"paths.outputs={case}")
        if done.returncode:
            said = " | ".join(done.stderr.strip().splitlines()[-3:])
            raise RuntimeError(f"exit {done.returncode} {self.name}: {said}")
        return self.outputs / case


def git(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["git", "-C", str(ROOT), *arguments], capture_output=True, text=True, check=False)


def resolve(base: str) -> str:
    """The full hash of a commit. Exits if it does not exist."""
    found = git("rev-parse", "--verify", "--quiet", f"{base}^{{commit}}")
    if found.returncode:
        sys.exit(f"compare: no commit '{base}'")
    return found.stdout.strip()


def renamed_since(base: str) -> list[Rename]:
    """The renames that come after a commit."""
    return [
        rename for rename in RENAMES if not git("merge-base", "--is-ancestor", base, resolve(rename.until)).returncode
    ]


@contextmanager
def checked_out(commit: str, folder: Path) -> Iterator[None]:
    """Within the block, check out a commit in a folder, with this machine's settings, as on the other side."""
    made = git("worktree", "add", "--detach", str(folder), commit)
    try:
        if made.returncode:
            sys.exit(f"compare: {made.stderr.strip()}")
        if (ROOT / LOCAL).is_dir():
            shutil.copytree(ROOT / LOCAL, folder / LOCAL)
        yield
    finally:
        git("worktree", "remove", "--force", str(folder))


def must_run_its_own(side: Side) -> None:
    """Exit if a side would import the package from elsewhere, since it would be compared with itself."""
    said = side.python("-c", "from importlib.util import find_spec as f; print(getattr(f('kdx'), 'origin', None))")
    if not Path(said.stdout.strip()).resolve().is_relative_to(side.root.resolve()):
        sys.exit(f"compare: Python finds kdx at {said.stdout.strip()}, not below {side.root}")


def judge(case: str, sides: Sequence[Side], pool: ThreadPoolExecutor, without: Sequence[str]) -> tuple[bool, str]:
    """Run a case on both sides in parallel; returns whether they are identical, and a message."""
    playing = [pool.submit(side.play, case) for side in sides]
    failed = [str(error) for future in playing if isinstance(error := future.exception(), RuntimeError)]
    if failed:
        return False, f"FAILED: {'; '.join(failed)}"
    before, after = (read_runs(future.result(), without) for future in playing)
    # the base's titles use its own names
    after = {sides[0].told(title): run for title, run in after.items()}
    if found := difference(before, after):
        return False, f"DIFFERS: {found}"
    lines, tensors = (sum(len(getattr(run, part)) for run in before.values()) for part in ("lines", "tensors"))
    return True, f"identical: {len(before)} run{'s' * (len(before) > 1)}, {lines} lines, {tensors} tensors"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("base", help="commit that the working tree is compared with")
    parser.add_argument("--set", default=",".join(CASES), help=f"some of {','.join(CASES)}")
    parser.add_argument("--without", default="", metavar="WORDS", help="words of metrics that are not compared")
    asked = parser.parse_args()
    without = [word for word in asked.without.split(",") if word]
    cases = asked.set.split(",")
    if unknown := [case for case in cases if case not in CASES]:
        parser.error(f"unknown case {', '.join(unknown)}; cases: {', '.join(CASES)}")
    commit, began, same = resolve(asked.base), time.monotonic(), []
    with tempfile.TemporaryDirectory(prefix="kdx-compare-") as name, ThreadPoolExecutor(2) as pool:
        place = Path(name)
        with checked_out(commit, place / "base"):
            before = Side(f"at {commit[:10]}", place / "base", place / "before", renamed_since(commit))
            sides = (before, Side("in the working tree", ROOT, place / "after", ()))
            for side in sides:
                must_run_its_own(side)
            for case in cases:
                start = time.monotonic()
                good, said = judge(case, sides, pool, without)
                same.append(good)
                print(f"{case:<10} {said} ({time.monotonic() - start:.0f} s)", flush=True)
    seconds = f"{time.monotonic() - began:.0f} s"
    left_out = f", without metrics of {', '.join(without)}" if without else ""
    print(f"{commit[:10]} and the working tree: {sum(same)} of {len(same)} cases identical{left_out} ({seconds})")
    sys.exit(not all(same))


if __name__ == "__main__":
    main()
