"""Cost of a step of each method relative to a step of KD, with the same networks and batch.

    python scripts/zoo_cost.py [--pairs resnet32x4:resnet8x4,resnet56:resnet20] [--methods crd,reviewkd] [--rounds 5]

Each method alternates with KD in one process, step by step. CPU seconds (wall seconds on a GPU) of each pair of steps
give a ratio; the median is reported, since machine speed drifts, together with the ratio of the multiplications of
convolutions and matrix products. The step is the update of a run, on a synthetic batch of 64 CIFAR-sized images out of
50,000 examples of 100 classes. Methods with stages are measured at the schedule epoch `--epoch`; 0 is the first stage.
Writes `outputs/bench/zoo_cost.json` and the same as Markdown.
"""

import argparse
import json
import statistics
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from bench_plain import clock
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from kdx.commands.catalogue import front_matter
from kdx.config.compose import compose, config_dir, options
from kdx.core.batch import Batch
from kdx.core.errors import UserError
from kdx.core.schedule import Progress
from kdx.core.seed import seeded
from kdx.engine.optim.memory import keep_freed_memory
from kdx.engine.optim.update import Joint
from kdx.models.teachers.frozen import Frozen
from kdx.runs.build import build_light, build_network, make, start_student
from kdx.runs.prepare import prepare
from kdx.runs.provenance import commit, machine, versions
from kdx.tasks.classes import image_classes

OUT = Path("outputs/bench/zoo_cost.json")
CLASSES, EXAMPLES, BATCH, EPOCHS = 100, 50_000, 64, 240
BASE = "kd"
WARM_UP = 3
"""Warm-up steps, until malloc holds all pages that a step needs."""
LABELS = torch.arange(EXAMPLES) % CLASSES
SPEC = image_classes(CLASSES, (3, 32, 32), EXAMPLES, (0.0,) * 3, (1.0,) * 3, LABELS)


def update_of(method: str, teacher: str, student: str, device: torch.device) -> Joint:
    """Build a method's update over networks with random weights, since values do not change the cost."""
    config = prepare(
        compose(
            [
                "dataset=synthetic",
                "dataset.input_shape=[3,32,32]",
                f"dataset.num_classes={CLASSES}",
                "augmentation=two_shifts",
                "recipe=crd240",
                f"teacher={teacher}",
                f"student={student}",
                f"method={method}",
                "logger=none",
            ]
        )
    )
    light = build_light(config)
    given: dict[str, Any] = {"student": start_student(config, None), "spec": SPEC}
    if config.teacher is not None:
        given["teacher"] = Frozen(build_network(config.teacher.net, 1), None, None)
    with seeded(0, "method"):
        built = make(config.method, **given).to(device)
    built.to(memory_format=torch.channels_last)
    built.train()
    return make(config.update, method=built, optimizer=light.optimizer, lr_schedule=light.lr_schedule, autocast=None)


def of_classes() -> list[str]:
    """Methods that learn from classes or from the teacher alone, which the networks measured here have."""
    needs = {name: front_matter(config_dir() / "method" / f"{name}.yaml")["needs"] for name in options("method")}
    return [name for name, need in needs.items() if not {"values", "several labels"} & set(need.split(", "))]


def batch_on(device: torch.device) -> Batch:
    """One batch with two further views, for methods that need them."""
    drawn = torch.Generator().manual_seed(0)
    index = torch.randint(EXAMPLES, (BATCH,), generator=drawn)
    images = [
        torch.randn(BATCH, 3, 32, 32, generator=drawn).to(memory_format=torch.channels_last)  # pyright: ignore
        for _ in range(3)
    ]
    return Batch.of_classes(images[0], LABELS[index], index, None, tuple(images[1:])).to(device)


class Multiplications(TorchDispatchMode):
    """Counts multiply-adds of convolutions and matrix products, in forward and backward passes.

    torch's own counter hooks modules, which does not work with input derivatives.
    """

    def __init__(self) -> None:
        super().__init__()
        self.total = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        if func._overloadpacket in flop_registry:
            self.total += flop_registry[func._overloadpacket](*args, **(kwargs or {}), out_val=out) // 2
        return out


def multiplications(update: Joint, batch: Batch, progress: Progress) -> int:
    """Multiply-adds of one step."""
    with Multiplications() as counted:
        update(batch, progress)
    return counted.total


def compare(method: Joint, base: Joint, batch: Batch, progress: Progress, rounds: int) -> dict[str, float]:
    """Median milliseconds a step of both, the median ratio, and that of their multiplications."""
    device = batch.device.type
    counts = [multiplications(update, batch, progress) for update in (method, base)]
    seconds: tuple[list[float], list[float]] = ([], [])
    for turn in range(-WARM_UP, rounds):
        for side in ((0, 1), (1, 0))[turn % 2]:
            before = clock(device)
            (method, base)[side](batch, progress)
            if turn >= 0:
                seconds[side].append(clock(device) - before)
    ratios = [a / b for a, b in zip(*seconds, strict=True)]
    mine, theirs = (1000 * statistics.median(s) for s in seconds)
    return {
        "ms": mine,
        "kd_ms": theirs,
        "ratio": statistics.median(ratios),
        "ratio_min": min(ratios),
        "ratio_max": max(ratios),
        "multiplications": counts[0],
        "multiplications_ratio": counts[0] / counts[1],
    }


def markdown(facts: Mapping[str, Any]) -> str:
    """Format the results as Markdown."""
    lines = [f"# What a step of each method costs, against a step of KD: batches of {BATCH}", ""]
    lines += ["| pair | method | ms | KD beside it, ms | ratio | least to most | ratio of multiplications |"]
    lines += ["|:--|:--|--:|--:|--:|--:|--:|"]
    for row in facts["rows"]:
        cells = [row["pair"].replace(":", " to "), row["method"], f"{row['ms']:.0f}", f"{row['kd_ms']:.0f}"]
        cells += [f"{row['ratio']:.2f}", f"{row['ratio_min']:.2f} to {row['ratio_max']:.2f}"]
        cells += [f"{row['multiplications_ratio']:.2f}"]
        lines.append(f"| {' | '.join(cells)} |")
    device = facts["device"]
    codes = {(str(row["code"]["commit"])[:10], row["code"]["dirty"]) for row in facts["rows"]}
    told = ", ".join(f"{code}{' with changes' if dirty else ''}" for code, dirty in sorted(codes))
    unit = "CPU time of" if device["type"] == "cpu" else "wall time with"
    lines += [
        "",
        "- each method takes turns with KD in one process, step by step; the ratio is the median of "
        f"{facts['rounds']} rounds'",
        "- multiplications: those of all convolutions and matrix products of a step, forward and back",
        f"- {unit} {facts['threads']} {'thread' if facts['threads'] == 1 else 'threads'}, float32; "
        f"schedule epoch {facts['epoch']} of {EPOCHS}",
        f"- {device['name']}; torch {facts['versions']['torch']}",
        f"- {'commit' if len(codes) == 1 else 'commits'} {told}; `python scripts/zoo_cost.py`",
    ]
    return "\n".join([*lines, ""])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", default="resnet32x4:resnet8x4,resnet56:resnet20")
    parser.add_argument("--methods", default=",".join(of_classes()))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1, help="1 makes CPU seconds comparable")
    parser.add_argument("--keep", action="store_true", help="keep earlier results of other methods")
    parser.add_argument("--epoch", type=int, default=40, help="schedule epoch of the step, out of 240")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if device.type == "cpu":
        keep_freed_memory()  # as in a run
    batch, progress = batch_on(device), Progress(arguments.epoch, EPOCHS, EPOCHS)
    facts = {"device": machine(device), "versions": versions(), "code": commit(), "rounds": arguments.rounds}
    facts |= {"threads": arguments.threads, "batch_size": BATCH, "epoch": arguments.epoch}
    rows: list[dict[str, Any]] = json.loads(OUT.read_text())["rows"] if arguments.keep and OUT.exists() else []
    OUT.parent.mkdir(parents=True, exist_ok=True)
    pairs = arguments.pairs.split(",")
    for pair in pairs:
        teacher, student = pair.split(":")
        base = update_of(BASE, teacher, student, device)
        for name in arguments.methods.split(","):
            try:
                measured = compare(update_of(name, teacher, student, device), base, batch, progress, arguments.rounds)
            except (UserError, ValueError) as error:
                print(f"{pair:<22} {name:<14} not measured: {error}", flush=True)
                continue
            rows = [row for row in rows if (row["pair"], row["method"]) != (pair, name)]
            rows.append({"pair": pair, "method": name, **measured, "code": facts["code"]})
            rows.sort(key=lambda row: (pairs.index(row["pair"]) if row["pair"] in pairs else -1, row["method"]))
            times = f"{measured['ms']:8.1f} ms  KD {measured['kd_ms']:8.1f} ms  {measured['ratio']:5.2f} x"
            span = f"[{measured['ratio_min']:.2f}, {measured['ratio_max']:.2f}]"
            counted = f"{measured['multiplications_ratio']:.2f} x the multiplications"
            print(f"{pair:<22} {name:<14} {times} {span}  {counted}", flush=True)
            # after each method, since all take long
            OUT.write_text(json.dumps({**facts, "rows": rows}, indent=2) + "\n")
            OUT.with_suffix(".md").write_text(markdown({**facts, "rows": rows}))
    print(OUT)


if __name__ == "__main__":
    main()
