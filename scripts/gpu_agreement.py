"""Loss and gradient of the first step of every method, on the GPU against the CPU; a JSON line for each method.

    python scripts/gpu_agreement.py FILE [--rehearse]

With `--rehearse` both sides are the CPU, and the first methods are enough. TF32 is off.
"""

import copy
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch

from kdx.config.compose import compose
from kdx.config.layout import options
from kdx.config.schema import RunConfig
from kdx.core.method import Method
from kdx.core.schedule import Progress
from kdx.core.seed import seed_all, seeded
from kdx.core.weigh import weigh
from kdx.models.teachers.frozen import Frozen
from kdx.runs.build import build_light, build_loaders, build_method, build_network, start_student
from kdx.runs.ensemble_config import each_teacher, ensemble
from kdx.runs.prepare import prepare

# a pair of small networks on images of CIFAR's shape
PAIR = [
    "dataset=synthetic",
    "dataset.input_shape=[3,32,32]",
    "dataset.num_classes=20",
    "dataset.train_size=64",
    "dataset.test_size=32",
    "dataset.train_subset=32",
    "teacher=resnet14",
    "student=resnet8",
    "trainer.batch_size=32",
    "trainer.device=cpu",
    "logger=none",
]
SEVERAL = "teacher.members={a:{},b:{},c:{}}"
VIEWS = "augmentation=two_shifts"
REHEARSED = 3  # methods


def config_of(method: str, folder: str) -> RunConfig:
    """A run of a method; one that needs several teachers or views gets them. Raises the first error if none fits."""
    first: Exception | None = None
    for more in ([], [SEVERAL], [VIEWS]):
        try:
            return prepare(compose([*PAIR, f"method={method}", f"paths.outputs={folder}", *more]))
        except Exception as error:  # a misfit of any kind is a line of the results
            first = first or error
    assert first is not None
    raise first


def built(config: RunConfig) -> tuple[Method, Any]:
    """The method with teachers of random weights, and its first batch."""
    light = build_light(config)
    loaders = build_loaders(config, light)
    nets: dict[str, Any] = {}
    for number, (name, own) in enumerate(each_teacher(config).items(), 1):
        assert own.teacher is not None
        net = build_network(own.teacher.net, number)
        with seeded(0, "statistics"), torch.no_grad():  # batch norms that have seen something
            net.train()
            net(torch.randn(16, *config.dataset["input_shape"]))
        nets[name] = Frozen(net, None, None)
    teacher = None
    if nets:
        assert config.teacher is not None
        teacher = nets.get("") or ensemble(config.teacher, nets, loaders.spec.task)
    method = build_method(config, loaders, start_student(config, None), teacher)
    return method, next(iter(loaders.train.epoch(0)))


def first_step(method: Method, batch: Any, device: torch.device) -> tuple[float, torch.Tensor]:
    """Loss, and the gradient of all parameters in float64 on the CPU."""
    method = copy.deepcopy(method).to(device).train()
    seed_all(0)
    progress = Progress(0, 1000, 10.0)
    terms = method(batch.to(device), progress).terms
    # parties that oppose each other weigh their own terms
    weights = {**dict.fromkeys(terms, 1.0), **method.weights}
    loss = weigh(terms, weights, progress)
    loss.backward()
    grads = [p.grad.double().cpu().flatten() for p in method.parameters() if p.grad is not None]
    return float(loss), torch.cat(grads)


def compare(name: str, device: torch.device) -> dict[str, Any]:
    """A line of the results."""
    with tempfile.TemporaryDirectory() as folder:
        method, batch = built(config_of(name, folder))
        (loss, grad), (other, further) = (first_step(method, batch, d) for d in (torch.device("cpu"), device))
    norm = float(grad.norm())
    return {
        "method": name,
        "loss": loss,
        "loss deviation": abs(loss - other) / max(abs(loss), 1e-12),
        "gradient deviation": float((grad - further).norm()) / max(norm, 1e-12) if len(grad) == len(further) else None,
    }


def main() -> None:
    rehearse = "--rehearse" in sys.argv
    device = torch.device("cpu" if rehearse else "cuda")
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    names = options("method")[:REHEARSED] if rehearse else options("method")
    with open(Path(sys.argv[1]), "w") as file:
        for name in names:
            try:
                row = compare(name, device)
            except Exception as error:  # the other methods go on
                row = {"method": name, "error": f"{type(error).__name__}: {error}".splitlines()[0][:200]}
            file.write(json.dumps(row) + "\n")
            file.flush()


if __name__ == "__main__":
    main()
