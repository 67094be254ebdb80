"""Makes a folder of 10,000 finished runs, and measures `kdx status` and `kdx report` on it.

    python scripts/many_runs.py --runs 10000 --to build/many

The runs form 1,000 experiments of 10 seeds, each with a record of 40 lines. They hold made-up numbers. Prints the wall
time and the CPU time of each command in seconds, and the size of the page.
"""

import argparse
import os
import resource
import shutil
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests" / "support"))
SEEDS = 10
DONE = "DONE"


def make_runs(folder: Path, count: int) -> None:
    """Write the runs that are missing."""
    from fabricate import changed, fabricate, point  # pyright: ignore[reportMissingImports] - in tests/support
    from omegaconf import OmegaConf

    from kdx.config.compose import compose
    from kdx.runs.checksums import write_checksums
    from kdx.runs.prepare import prepare

    networks = ("teacher=resnet8", "student=resnet8")
    config = prepare(compose(["dataset=synthetic", *networks, f"paths.outputs={folder}"])).plain()
    text = OmegaConf.to_yaml(OmegaConf.create(config))
    of_seed = [changed(config, seed=seed) for seed in range(SEEDS)]
    for number in range(count):
        seed, place = number % SEEDS, number // SEEDS
        run = folder / "runs" / f"synthetic-kd-resnet8-seed{seed}-{number:016x}"
        if (run / DONE).exists():
            continue
        shutil.rmtree(run, ignore_errors=True)  # of a command that was interrupted
        own, accuracy = point(text, seed, 1.0 + 0.5 * (place % 40), 0.001 * (1 + place // 40))
        values = {
            "test/top1": accuracy,
            "test/nll": 2 - accuracy,
            "test/ece": 0.03,
            "fidelity/test/agreement": accuracy,
        }
        lines = [
            {"step": 10 * e, "epoch": float(e), "train/loss": 3 / e, "test/top1": accuracy * e / 40}
            for e in range(1, 41)
        ]
        fabricate(run, of_seed[seed], values, lines=lines, text=own)
        (run / ".lock").touch()
        write_checksums(run)


def measure(*arguments: str) -> tuple[float, float]:
    """Wall and CPU time of a kdx command, in seconds."""
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    done = subprocess.run([sys.executable, "-m", "kdx.cli", *arguments], capture_output=True, text=True)
    wall, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode:
        raise SystemExit(f"kdx {' '.join(arguments)}: exit status {done.returncode}: {done.stderr[-500:]}")
    return wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=10_000)
    parser.add_argument("--to", type=Path, default=ROOT / "build" / "many")
    given = parser.parse_args()
    folder = given.to.resolve()
    make_runs(folder, given.runs)
    os.environ |= {"OMP_NUM_THREADS": "1"}
    for words in (("status", str(folder)), ("report", str(folder), f"to={folder / 'page'}", "pictures=false")):
        wall, cpu = measure(*words)
        print(f"kdx {words[0]} of {given.runs:,} runs: {wall:.1f} s, {cpu:.1f} s of CPU time", flush=True)
    page = folder / "page" / "index.html"
    print(f"{page}: {page.stat().st_size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
