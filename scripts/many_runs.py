"""Makes a folder of 10,000 finished runs, and measures `kdx status` and `kdx report` on it.

    python scripts/many_runs.py --runs 10000 --to build/many

The runs form 1,000 experiments of 10 seeds, each with a record of 40 lines. They hold made-up numbers. Prints the wall
time and the CPU time of each command in seconds, and the size of the page.
"""

import argparse
import json
import os
import re
import resource
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests" / "support"))
SEEDS = 10


def make_runs(folder: Path, count: int) -> None:
    """Write the runs that are missing."""
    from omegaconf import OmegaConf

    from kdx.config.compose import compose
    from kdx.runs.checksums import write_checksums
    from kdx.runs.prepare import prepare

    networks = ("teacher=resnet8", "student=resnet8")
    config = prepare(compose(["dataset=synthetic", *networks, f"paths.outputs={folder}"])).plain()
    text = OmegaConf.to_yaml(OmegaConf.create(config))
    for number in range(count):
        run = folder / "runs" / f"synthetic-kd-resnet8-seed{number % SEEDS}-{number:016x}"
        if (run / "DONE").exists():
            continue
        seed, point = number % SEEDS, number // SEEDS
        temperature, rate = 1.0 + 0.5 * (point % 40), 0.001 * (1 + point // 40)
        run.mkdir(parents=True, exist_ok=True)
        own = re.sub(r"^((?:data_)?seed:) .*$", rf"\1 {seed}", text, flags=re.M)
        own = re.sub(r"^(  (?:    )?temperature:) .*$", rf"\1 {temperature}", own, flags=re.M)
        own = re.sub(r"^(  lr:) .*$", rf"\1 {rate}", own, flags=re.M)
        (run / "config.yaml").write_text(own)
        accuracy = 0.9 - abs(temperature - 4) / 100 - rate + 0.003 * ((seed * 7) % 5 - 2)
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
        (run / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
        result = {
            "name": run.name,
            "identity": run.name[-16:],
            "choices": config["choices"],
            "seed": seed,
            "protocol": "last",
            "metrics": {
                "last": {**values, "epoch": 40.0},
                "best_on_test": {**values, "epoch": 38.0},
                "val_selected": None,
            },
            "teacher": {"net": "resnet8", "sha256": "5" * 64, "weights": "gone", "trained_by": None, "test/top1": 0.9},
            "examples": {"training": 1000, "test": 500},
            "steps": 400,
            "epochs": 40.0,
            "parameters": 1234,
            "seconds": 2.5 + seed / 10,
            "milliseconds_per_step": 1.5,
            "examples_per_second": 640.0,
            "finished": "2026-01-02T03:04:05Z",
            "code": {"commit": "0123456789abcdef", "dirty": False},
            "versions": {"torch": "2.13.0", "python": "3.11.7"},
            "device": {"type": "cpu", "name": "A processor", "threads": 1},
        }
        (run / "result.json").write_text(json.dumps(result))
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
