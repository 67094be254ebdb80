"""Use a GPU that is at hand for some minutes: tests, agreement with the CPU, speed, and the first whole trainings.

    python scripts/gpu.py --out DIR --minutes 9 [--rehearse]

Four steps run in this order, each in its own process and with a share of the time; what a step leaves goes to the
later ones. After each, `DIR/gpu.json` and `DIR/gpu.md` say what is known so far, with the card's name. A step that
fails or runs out of time does not stop the others: it has written a line for each thing it finished. The trainings
resume from what they left below DIR, so the same command goes on. `--rehearse` runs everything small on a CPU.

KDX_DATA names the folder with CIFAR-100, and `--teacher` the weights of the resnet56 that teaches (70.0 %).
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from kdx.runs.provenance import commit, machine

ROOT = Path(__file__).resolve().parent.parent
GRACE = 25  # seconds that a training has to save after SIGTERM
# experiment and method of each training
TRAININGS = {
    "alone": ("crd/resnet56_resnet20_kd", "supervised"),
    "KD": ("crd/resnet56_resnet20_kd", "kd"),
    "DKD": ("dkd/resnet56_resnet20", "dkd"),
}
# numbers of a whole training on a GPU: rounding differs from the CPU's, the method does not
FAST = ["trainer.precision=bf16", "trainer.cuda_graph=true", "optimizer.implementation=fused"]
SHORT = [
    "dataset=synthetic",
    "dataset.input_shape=[3,32,32]",
    "dataset.num_classes=100",
    "dataset.train_size=128",
    "dataset.test_size=100",
    "dataset.train_subset=100",
    "recipe=crd240",
    "student=resnet8",
    "teacher=resnet8",
    "teacher.recipe=['trainer.duration.epochs=null','trainer.duration.steps=2']",
    "trainer.duration.epochs=null",
    "trainer.duration.steps=2",
    "trainer.threads=1",
]


@dataclass(frozen=True)
class Step:
    """A step of the programme.

    Attributes:
        name: Its name in the results.
        share: Of the whole time.
        command: From the folder of results and the seconds it has.
        read: Its results so far.
    """

    name: str
    share: float
    command: Callable[[Path, float], list[str]]
    read: Callable[[Path], Any]


def lines(path: Path) -> list[Any]:
    """The whole lines of a file of JSON lines; none if it does not exist."""
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text().splitlines(keepends=True) if line.endswith("\n")]


def steps(arguments: argparse.Namespace) -> list[Step]:
    """The programme."""
    rehearse = ["--rehearse"] if arguments.rehearse else []
    here = Path(__file__).parent

    def tests(out: Path, _: float) -> list[str]:
        return [
            sys.executable,
            "-m",
            "pytest",
            "-q",
            "-k",
            "gpu",
            "tests/data",
            "tests/engine",
            "-p",
            "no:cacheprovider",
        ]

    def agreement(out: Path, seconds: float) -> list[str]:
        return [sys.executable, str(here / "gpu_agreement.py"), str(out / "agreement.jsonl"), *rehearse]

    def speed(out: Path, seconds: float) -> list[str]:
        return [sys.executable, str(here / "gpu_speed.py"), str(out / "speed.jsonl"), f"{seconds:.0f}", *rehearse]

    def train(out: Path, seconds: float) -> list[str]:
        more = ["--teacher", arguments.teacher] if arguments.teacher else []
        return [sys.executable, __file__, "--out", str(out), "--train", *more, *rehearse]

    return [
        Step("tests", 0.12, tests, lambda out: (out / "tests.txt").read_text().splitlines()[-1:]),
        Step("agreement", 0.13, agreement, lambda out: lines(out / "agreement.jsonl")),
        Step("speed", 0.25, speed, lambda out: lines(out / "speed.jsonl")),
        Step("trainings", 0.5, train, lambda out: trained(out)),
    ]


def take(step: Step, out: Path, seconds: float) -> dict[str, Any]:
    """Run a step for at most some seconds; what it printed stays in `DIR/NAME.txt`."""
    began, status = time.perf_counter(), "done"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
    with open(out / f"{step.name}.txt", "w") as said:
        process = subprocess.Popen(
            step.command(out, seconds), cwd=ROOT, env=environment, stdout=said, stderr=said, start_new_session=True
        )
        try:
            code = process.wait(max(1.0, seconds))
            status = "done" if code == 0 else f"failed with exit status {code}, see {step.name}.txt"
        except subprocess.TimeoutExpired:
            status = "out of time"
            process.terminate()  # the trainings' parent passes it on
            try:
                process.wait(GRACE)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
    try:
        found = step.read(out)
    except (OSError, ValueError) as error:
        found, status = [], f"{status}; no results: {error}"
    return {"name": step.name, "status": status, "seconds": round(time.perf_counter() - began, 1), "results": found}


def train(out: Path, teacher: str, rehearse: bool) -> None:
    """The trainings at once, each in its own process; SIGTERM makes them save, and the same call resumes them."""
    processes: list[subprocess.Popen[bytes]] = []

    def stop(*_: object) -> None:
        for process in processes:
            process.terminate()

    signal.signal(signal.SIGTERM, stop)
    for name, (experiment, method) in TRAININGS.items():
        if rehearse:
            recipe = [*SHORT, f"method={method}"]
        else:
            recipe = [f"experiment={experiment}", *([f"method={method}"] if method == "supervised" else []), *FAST]
            recipe += ["teacher.expected=null", "evals.test.every=null", "trainer.checkpoint_seconds=20"]
            recipe += [f"teacher.checkpoint={teacher}"] if teacher else []
        command = [sys.executable, "-m", "kdx.cli", "train", *recipe, "logger=jsonl", f"paths.outputs={out}/trainings"]
        with open(out / f"training-{name}.txt", "a") as said:
            processes.append(subprocess.Popen(command, cwd=ROOT, stdout=said, stderr=said))
    codes = [process.wait() for process in processes]
    sys.exit(max(codes, key=abs))


def trained(out: Path) -> list[dict[str, Any]]:
    """Where each training stands."""
    found = []
    for folder in sorted((out / "trainings" / "runs").glob("*")):
        record = lines(folder / "metrics.jsonl")
        last = record[-1] if record else {}
        row: dict[str, Any] = {"run": folder.name, "done": (folder / "DONE").exists(), "epoch": last.get("epoch", 0)}
        row["seconds"] = last.get("time/seconds")
        if row["done"]:
            result = json.loads((folder / "result.json").read_text())
            row |= {"test/top1": result["metrics"]["last"].get("test/top1"), "seed": result["seed"]}
            row |= {"seconds": result["seconds"], "images/s": result["examples_per_second"]}
        found.append(row)
    return found


def markdown(facts: Mapping[str, Any]) -> str:
    """The results as Markdown."""
    device, code = facts["device"], facts["code"]
    kind = "a rehearsal on" if facts["rehearsal"] else "on"
    text = [f"# First use of a GPU: {kind} {device['name']}", ""]
    for step in facts["steps"]:
        text += [f"## {step['name']}: {step['status']}, {step['seconds']:.0f} s", ""]
        rows = [row for row in step["results"] if isinstance(row, dict)]
        text += table(rows) if rows else [f"    {row}" for row in step["results"]] or ["no results"]
        text.append("")
    text.append(f"torch {facts['torch']}; commit {str(code['commit'])[:10]}{' with changes' if code['dirty'] else ''}")
    return "\n".join([*text, ""])


def table(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Rows with the same or other keys as a table; "-" for what a row lacks."""
    keys = list(dict.fromkeys(key for row in rows for key in row))
    cells = [[_cell(row.get(key)) for key in keys] for row in rows]
    return [f"| {' | '.join(line)} |" for line in (keys, ["--"] * len(keys), *cells)]


def _cell(value: object) -> str:
    if value is None:
        return "-"
    return f"{value:.4g}" if isinstance(value, float) else str(value).replace("|", "/")


def write(facts: Mapping[str, Any], out: Path) -> None:
    """Write the results so far."""
    for name, text in (("gpu.json", json.dumps(facts, indent=2) + "\n"), ("gpu.md", markdown(facts))):
        part = out / f".{name}.part"
        part.write_text(text)
        part.replace(out / name)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=9.0)
    parser.add_argument("--rehearse", action="store_true", help="run everything small on a CPU")
    parser.add_argument("--teacher", default="", help="weights of the teacher; without them it is trained first")
    parser.add_argument("--train", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    out = arguments.out.absolute()
    out.mkdir(parents=True, exist_ok=True)
    if arguments.train:
        train(out, arguments.teacher, arguments.rehearse)
        return
    if not torch.cuda.is_available() and not arguments.rehearse:
        parser.error("this machine has no GPU; --rehearse runs everything small on a CPU")
    device = torch.device("cpu" if arguments.rehearse else "cuda")
    facts: dict[str, Any] = {"device": machine(device), "torch": torch.__version__, "code": commit()}
    facts |= {"rehearsal": arguments.rehearse, "minutes": arguments.minutes, "steps": []}
    end, left = time.perf_counter() + 60 * arguments.minutes, 1.0
    for step in steps(arguments):
        seconds = (end - time.perf_counter()) * step.share / left
        left -= step.share
        facts["steps"].append(take(step, out, seconds))
        write(facts, out)
        done = facts["steps"][-1]
        print(f"{step.name}: {done['status']}, {done['seconds']:.0f} s, {len(done['results'])} results", flush=True)
    print(out / "gpu.md")


if __name__ == "__main__":
    main()
