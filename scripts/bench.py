"""Where the time of a run goes: the loop against the bare mathematics, the loader, start-up.

    python scripts/bench.py [--pairs resnet56:resnet20,resnet32x4:resnet8x4] [--rounds 15] [--steps 2]

The loop is the trainer as a run builds it, loader, logging and meters included. The bare mathematics is
teacher forward, student forward, loss, backward and optimiser step on one batch in memory, with the same
networks, threads and memory format. Both take turns in one process; CPU seconds (wall seconds on a GPU)
of each round give a ratio, and the median of the ratios counts, since machines drift. Writes
`outputs/bench/latest.json`.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch

from kdx.config.compose import Config, compose
from kdx.engine.trainer import Trainer
from kdx.models.frozen import Frozen
from kdx.studies.build import build_light, build_loaders, build_method, build_network, build_student
from kdx.studies.prepare import prepare
from kdx.studies.provenance import commit, machine, versions
from kdx.studies.run import build_trainer

OUT = Path("outputs/bench/latest.json")


def config_of(teacher: str, student: str, folder: Path) -> Config:
    """KD on CIFAR-shaped data in memory, from a teacher with random weights: values do not change the cost."""
    overrides = [
        "dataset=synthetic",
        "dataset.input_shape=[3,32,32]",
        "dataset.num_classes=100",
        "dataset.train_size=6400",
        "dataset.test_size=100",
        "recipe=crd240",
        f"teacher={teacher}",
        f"student={student}",
        "logger=jsonl",
        f"paths.outputs={folder}",
    ]
    return prepare(compose(overrides))


def loop_of(config: Config, folder: Path) -> Trainer:
    """The trainer of a run, with a teacher of random weights."""
    light = build_light(config)
    loaders = build_loaders(config, light)
    teacher = Frozen(build_network(config["teacher"]["net"], 1), None, None)
    method = build_method(config, loaders, build_student(config, None), teacher).to(light.device)
    method.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue] - torch's stub lacks it
    trainer = build_trainer(config, folder, light, loaders, method)
    trainer.evaluators = {}
    trainer.save = lambda: None  # once in 30 s in a real run; its cost is the disk's
    return trainer


def clock(device: torch.device) -> float:
    """CPU seconds, or wall seconds once a GPU has done its work."""
    if device.type == "cuda":
        torch.cuda.synchronize()
        return time.perf_counter()
    return time.process_time()


def compare(config: Config, folder: Path, rounds: int, steps: int) -> dict[str, float]:
    """Median seconds a step of the loop and of the bare mathematics, and the median ratio."""
    trainer, bare = loop_of(config, folder / "loop"), loop_of(config, folder / "bare")
    trainer.clock.steps = 0
    bare.method.train()
    batch = next(iter(bare.loader.epoch(0))).to(bare.device)
    student, teacher = bare.method.student, dict(bare.method.models())["teacher"]
    optimizer = bare.update.optimizer  # type: ignore[attr-defined]
    temperature, (hard, soft) = 4.0, (0.1, 0.9)

    def mathematics() -> None:
        for _ in range(steps):
            with torch.no_grad():
                taught = teacher(batch.inputs).logits
            logits = student(batch.inputs).logits
            q, p = ((t / temperature).log_softmax(1) for t in (logits, taught))
            divergence = torch.nn.functional.kl_div(q, p, reduction="batchmean", log_target=True)
            loss = hard * torch.nn.functional.cross_entropy(logits, batch.labels) + soft * temperature**2 * divergence
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()

    def loop() -> None:
        trainer.clock.steps += steps
        trainer.fit()

    seconds: dict[str, list[float]] = {"loop": [], "bare": []}
    work = {"loop": loop, "bare": mathematics}
    for name in work:
        work[name]()
    for turn in range(rounds):
        for name in sorted(work, reverse=bool(turn % 2)):
            before = clock(bare.device)
            work[name]()
            seconds[name].append((clock(bare.device) - before) / steps)
    ratios = [a / b for a, b in zip(seconds["loop"], seconds["bare"], strict=True)]
    size = len(batch)
    return {
        "loop_ms": 1000 * statistics.median(seconds["loop"]),
        "bare_ms": 1000 * statistics.median(seconds["bare"]),
        "overhead": statistics.median(ratios) - 1,
        "overhead_min": min(ratios) - 1,
        "overhead_max": max(ratios) - 1,
        "loop_images_per_second": size / statistics.median(seconds["loop"]),
        "bare_images_per_second": size / statistics.median(seconds["bare"]),
    }


def start_up(config_overrides: list[str]) -> dict[str, float]:
    """CPU and wall seconds from the command to the end of a run of one step without evaluation."""
    import resource

    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "kdx.train", *config_overrides, f"paths.outputs={folder}"]
        before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
        subprocess.run(command, check=True, capture_output=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return {
        "cpu_seconds": after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime,
        "wall_seconds": time.perf_counter() - began,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", default="resnet56:resnet20,resnet32x4:resnet8x4")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--steps", type=int, default=2)
    parser.add_argument("--threads", type=int, default=1, help="1 makes CPU seconds comparable")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    rows = []
    for pair in arguments.pairs.split(","):
        teacher, student = pair.split(":")
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            config = config_of(teacher, student, folder)
            measured = compare(config, folder, arguments.rounds, arguments.steps)
        rows.append({"pair": pair, "setting": "exact", "batch_size": 64, "threads": arguments.threads, **measured})
        print(
            f"{pair:<26} loop {measured['loop_ms']:8.1f} ms  bare {measured['bare_ms']:8.1f} ms  overhead "
            f"{measured['overhead']:+.1%} [{measured['overhead_min']:+.1%}, {measured['overhead_max']:+.1%}]  "
            f"{measured['loop_images_per_second']:.0f} img/s"
        )
    one_step = ["dataset=synthetic", "student=resnet20", "method=supervised", "trainer.duration.epochs=null"]
    one_step += ["trainer.duration.steps=1", "~evals.test", "trainer.threads=1"]
    starts = {logger: start_up([*one_step, f"logger={logger}"]) for logger in ("jsonl", "wandb")}
    for logger, seconds in starts.items():
        print(f"start to one step, {logger:<6} {seconds['cpu_seconds']:6.1f} CPU s {seconds['wall_seconds']:6.1f} s")
    OUT.parent.mkdir(parents=True, exist_ok=True)
    device = machine(torch.device("cuda" if torch.cuda.is_available() else "cpu"))
    facts = {"device": device, "versions": versions(), "code": commit(), "rounds": arguments.rounds}
    OUT.write_text(json.dumps({**facts, "rows": rows, "start_up": starts}, indent=2) + "\n")
    print(OUT)


if __name__ == "__main__":
    main()
