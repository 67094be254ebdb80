"""Speed of a distillation step on a GPU, against an eager loop as public code has it; a JSON line for each setting.

    python scripts/gpu_speed.py FILE SECONDS [--rehearse]

KD from resnet56 to resnet20 in batches of 64 of CIFAR's shape. "plain" is the step of `bench_plain.py` without its
loader, since PIL alone would bound it, with its synchronisation at each step. The settings of kdx run as the command
builds them, with images that stay on the device. "sweep-graph" is the limit for a sweep: the teacher and N students in
parallel branches of one CUDA graph, without logging.
"""

import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from bench_plain import BATCH, CLASSES, divergence, networks_of, step_of
from bench_settings import bare, config_of, loop, members_of
from torch.nn import functional as F

from kdx.config.schema import RunConfig

Take = Callable[[], Any]
HALF = ["trainer.precision=bf16", "teacher.optimize=bf16"]
GRAPH = ["trainer.cuda_graph=true", "optimizer.implementation=fused"]
# students, overrides beside bench_settings', and whether TF32 is on
SETTINGS: dict[str, tuple[int, list[str], bool]] = {
    "exact": (1, [], False),
    "exact, TF32": (1, [], True),
    "bf16": (1, HALF, True),
    "bf16, graph": (1, [*HALF, *GRAPH], True),
    "bf16, sweep of 4": (4, HALF, True),
    "bf16, sweep of 8": (8, HALF, True),
}


def wait(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


def measured(take: Take, device: str, seconds: float) -> float:
    """Median seconds of a call over rounds of ten, after a warm-up."""
    for _ in range(12 if device == "cuda" else 1):
        take()
    wait(device)
    rounds, end = [], time.perf_counter() + seconds
    count = 10 if device == "cuda" else 1
    while not rounds or (time.perf_counter() < end and len(rounds) < 50):
        began = time.perf_counter()
        for _ in range(count):
            take()
        wait(device)
        rounds.append((time.perf_counter() - began) / count)
    return statistics.median(rounds)


def launches(take: Take, device: str) -> int | None:
    """Kernels and graphs that one call launches; None without a GPU."""
    if device != "cuda":
        return None
    from torch.profiler import ProfilerActivity, profile

    with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as seen:
        take()
        wait(device)
    names = ("cudaLaunchKernel", "cudaLaunchKernelExC", "cuLaunchKernel", "cudaGraphLaunch")
    return sum(event.count for event in seen.key_averages() if event.key in names)


def plain(pair: str, device: str) -> Take:
    """The eager step of public code on a batch from pinned memory: float32, NCHW, five transfers to the host."""
    step = step_of(*networks_of(pair), device)
    images, labels = torch.randn(BATCH, 3, 32, 32), torch.randint(CLASSES, (BATCH,))
    if device == "cuda":
        images, labels = images.pin_memory(), labels.pin_memory()
    return lambda: step(images, labels)


def sweep_graph(pair: str, count: int) -> Take:
    """A step of several students and their teacher, captured with a branch for each student."""
    device = torch.device("cuda")
    teacher = networks_of(pair)[0].to(device, torch.bfloat16).eval().to(memory_format=torch.channels_last)  # pyright: ignore
    students = [networks_of(pair)[1].to(device).to(memory_format=torch.channels_last) for _ in range(count)]  # pyright: ignore
    optimizers = [
        torch.optim.SGD(s.parameters(), lr=0.05, momentum=0.9, weight_decay=5e-4, fused=True) for s in students
    ]
    x = torch.randn(BATCH, 3, 32, 32, device=device).contiguous(memory_format=torch.channels_last)
    y = torch.randint(CLASSES, (BATCH,), device=device)
    branches, home = [torch.cuda.Stream() for _ in students], torch.cuda.Stream()

    def step() -> None:
        with torch.no_grad():
            taught = teacher(x.bfloat16()).logits.float()
        for student, optimizer, branch in zip(students, optimizers, branches, strict=True):
            branch.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(branch):
                optimizer.zero_grad(set_to_none=True)
                with torch.autocast("cuda", torch.bfloat16):
                    logits = student(x).logits.float()
                (0.1 * F.cross_entropy(logits, y) + 0.9 * divergence(logits, taught, 4.0)).backward()
                optimizer.step()
        for branch in branches:
            torch.cuda.current_stream().wait_stream(branch)

    home.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(home):
        for _ in range(4):
            step()
    torch.cuda.current_stream().wait_stream(home)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, stream=home):
        step()
    return graph.replay


def members(pair: str, setting: str, folder: Path, device: str) -> list[RunConfig]:
    """The runs of a setting."""
    count, own, _ = SETTINGS[setting]
    teacher, student = pair.split(":")
    (first,) = members_of(config_of(teacher, student, "exact", folder, device, own), "single", folder)
    return [replace(first, seed=seed) for seed in range(count)]


def rows(pair: str, device: str, each: float) -> Iterator[dict[str, Any]]:
    """A row for each setting; its error where it fails."""

    def row(name: str, count: int, make: Callable[[], Take], bare_step: Callable[[], Take] | None) -> dict[str, Any]:
        try:
            take = make()
            seconds = measured(take, device, each)
            found: dict[str, Any] = {"setting": name, "ms a student": 1000 * seconds / count}
            found |= {"images/s": count * BATCH / seconds, "launches a step": launches(take, device)}
            if bare_step is not None:
                found["share of the bare mathematics"] = measured(bare_step(), device, each / 2) / seconds
            return found
        except Exception as error:  # the other settings go on
            return {"setting": name, "error": f"{type(error).__name__}: {error}".splitlines()[0][:200]}

    first = row("plain", 1, lambda: plain(pair, device), None)
    yield first
    for name, (count, _, tf32) in SETTINGS.items():
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = tf32
        with tempfile.TemporaryDirectory() as folder:
            found = row(
                name,
                count,
                lambda: loop(members(pair, name, Path(folder) / "loop", device)),  # noqa: B023 - called at once
                lambda: bare(members(pair, name, Path(folder) / "bare", device)),  # noqa: B023
            )
        yield _against(found, first)
    for count in (4, 8):
        if device == "cuda":
            yield _against(row(f"sweep-graph of {count}", count, lambda: sweep_graph(pair, count), None), first)  # noqa: B023


def _against(row: dict[str, Any], first: dict[str, Any]) -> dict[str, Any]:
    if "images/s" in row and "images/s" in first:
        row["x plain"] = row["images/s"] / first["images/s"]
    return row


def main() -> None:
    rehearse = "--rehearse" in sys.argv
    device, pair = ("cpu", "resnet8:resnet8") if rehearse else ("cuda", "resnet56:resnet20")
    each = 0.0 if rehearse else float(sys.argv[2]) / (3 * (len(SETTINGS) + 3))
    if rehearse:
        torch.set_num_threads(1)
        del SETTINGS["bf16, graph"], SETTINGS["bf16, sweep of 8"]  # the first needs a GPU
    with open(sys.argv[1], "w") as file:
        for row in rows(pair, device, each):
            file.write(json.dumps(row) + "\n")
            file.flush()


if __name__ == "__main__":
    main()
