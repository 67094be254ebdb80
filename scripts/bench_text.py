"""Benchmark of a training step on texts: the program's loop against the bare mathematics on the same batches.

    python scripts/bench_text.py [--steps 40] [--into outputs/tables/bench/cpu.json]

Both take turns in one process. A row gives the median and the quartiles of the ratios of CPU seconds, less 1. `make
bench` measures it as a part of its page; `--into` replaces the row of a page that is there.
"""

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from bench_plain import divergence
from torch import nn
from torch.nn import functional as F

from kdx.config.compose import compose
from kdx.config.schema import RunConfig
from kdx.core.batch import Batch
from kdx.models.teachers.frozen import Frozen
from kdx.runs.build import build_light, build_loaders, build_network
from kdx.runs.fused import FusedRuns
from kdx.runs.prepare import prepare
from kdx.runs.provenance import commit
from kdx.runs.run import in_steps

WARM = 3  # steps before the first that counts


def config_of(folder: str, steps: int) -> RunConfig:
    """KD from MiniLM to three of its layers on made-up sentences, in bfloat16, without evaluation."""
    overrides = [
        "dataset=phrases",
        f"dataset.train_size={32 * (steps + WARM)}",
        "dataset.test_size=8",
        "dataset.train_subset=8",
        "method=kd",
        "teacher.checkpoint=null",
        "trainer.threads=1",
        "trainer.device=cpu",
        "trainer.duration.epochs=1",
        "trainer.checkpoint_seconds=1e9",  # once in 30 s in a real run; its cost is the disk's
        "logger=jsonl",
        f"paths.outputs={folder}",
    ]
    return replace(prepare(compose(overrides)), evals={})


def bare(config: RunConfig) -> Callable[[Batch], None]:
    """Teacher forward, then forward, loss, backward, clipping and optimiser step of the student."""
    assert config.teacher is not None
    light = build_light(config)
    teacher = Frozen(build_network(config.teacher.net, 1), None, None)
    student = build_network(config.student.net, 0).train()
    optimizer = light.optimizer.build(student.named_parameters())
    half, clip = light.settings.autocast, config.update["clip_norm"]

    def step(batch: Batch) -> None:
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast("cpu", half, enabled=half is not None):
            logits = student(batch.inputs).logits.float()
        loss = 0.1 * F.cross_entropy(logits, batch.labels) + 0.9 * divergence(logits, teacher(batch.inputs).logits, 4.0)
        loss.backward()
        nn.utils.clip_grad_norm_(student.parameters(), clip)
        optimizer.step()

    return step


def measure(steps: int) -> dict[str, Any]:
    """The row of a page: medians in milliseconds of a step, and the overhead of the loop."""
    with tempfile.TemporaryDirectory() as folder:
        config = config_of(folder, steps)
        run, mathematics = in_steps(config, FusedRuns()), bare(config)
        next(run)
        batches = build_loaders(config, build_light(config)).train.epoch(0)
        loop, own = [], []
        for number, batch in enumerate(batches):
            if number == steps + WARM - 1:
                break  # the last step ends the run
            began = time.process_time()
            next(run)
            between = time.process_time()
            mathematics(batch)
            loop.append(between - began)
            own.append(time.process_time() - between)
    ratios = [a / b - 1 for a, b in zip(loop[WARM:], own[WARM:], strict=True)]
    low, middle, high = statistics.quantiles(ratios, n=4)
    ms, bare_ms = (1000 * statistics.median(of[WARM:]) for of in (loop, own))
    whole = sum(loop[WARM:]) / sum(own[WARM:]) - 1
    row = {"ms": ms, "bare_ms": bare_ms, "overhead": middle, "overhead_quartiles": [low, high]}
    return row | {"overhead_in_all": whole, "steps": len(ratios), "batch_size": 32, "commit": commit()["commit"]}


def shown(row: Mapping[str, Any]) -> str:
    """A row in a sentence."""
    low, high = row["overhead_quartiles"]
    overhead = f"overhead {row['overhead']:+.1%} [{low:+.1%}, {high:+.1%}] in the median of {row['steps']} steps"
    return (
        f"texts: KD from MiniLM to three of its layers, batches of {row['batch_size']}, a student in bfloat16: "
        f"{row['ms']:.0f} ms a step, bare {row['bare_ms']:.0f} ms, {overhead}, {row['overhead_in_all']:+.1%} in their "
        f"sum (commit {row['commit'][:10]})"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--into", type=Path, default=None)
    given = parser.parse_args()
    torch.set_num_threads(1)
    row = measure(given.steps)
    print(shown(row))
    if given.into is not None:
        import bench

        facts = json.loads(given.into.read_text()) | {"texts": row}
        given.into.write_text(json.dumps(facts, indent=2) + "\n")
        given.into.with_suffix(".md").write_text(bench.markdown(facts))


if __name__ == "__main__":
    main()
