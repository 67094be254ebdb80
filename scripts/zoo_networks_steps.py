"""What `zoo_networks.py` measures of one network: its features by value, and a step of each method on both sides."""

import time
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn

from kdx.config.compose import compose
from kdx.core.batch import Batch
from kdx.core.outputs import Outputs
from kdx.core.schedule import Progress
from kdx.core.seed import seeded
from kdx.core.spec import DataSpec
from kdx.models.build import timm_model, torchvision_model
from kdx.models.cifar.vgg import VGG
from kdx.models.features.layout import as_vector
from kdx.models.features.quiet import quiet, random_input, randomised
from kdx.models.probe import probe
from kdx.models.tap import Tapped
from kdx.models.teachers.frozen import Frozen
from kdx.runs.build import make_method
from kdx.tasks.classes import image_classes

CLASSES, EXAMPLES, BATCH = 10, 64, 4
SIZES = (64, 96, 128, 160, 192, 224, 256, 288, 320, 384, 448, 512)
MAIN = ("at", "fitnet", "reviewkd", "simkd", "srrl", "ofa", "sp", "crd")
MORE = (
    "nst",
    "vid",
    "ab",
    "ofd",
    "ft",
    "ickd",
    "cwd",
    "mgd",
    "catkd",
    "sdd_kd",
    "semckd",
    "cc",
    "cc_rbf",
    "pkt",
    "rkd",
    "adv_features",
)
TWINS = ("fsp", "kdsvd")
ALONE = ("byot",)
LATE = {"ft": 50}
"""Schedule epoch of methods whose student learns in a second stage."""
METHODS = (*MAIN, *MORE, *TWINS, *ALONE)


class Replay(nn.Module):
    """A network that gives the same outputs again; their features are leaves, which collect the gradients."""

    def __init__(self, net: nn.Module, outputs: Outputs):
        super().__init__()
        self.net = net
        leaf = {role: f.detach().requires_grad_() for role, f in outputs.features.items()}
        self.outputs = Outputs(outputs.logits.detach().requires_grad_(), leaf)

    def forward(self, x: Tensor) -> Outputs:
        return self.outputs


def build(library: str, name: str, size: int | None) -> Tapped:
    """A network with random weights; for a size, where its constructor takes one."""
    if library == "timm":
        options = {} if size is None else {"img_size": size}
        return timm_model(name, False, CLASSES, 3, 0.0, 0.0, None, options)
    options = {} if size is None else {"image_size": size}
    return torchvision_model(name, None, CLASSES, 3, None, options)


def at_smallest_input(library: str, name: str) -> tuple[Tapped, int]:
    """The network, and the side of the smallest square input that it takes."""
    problem: Exception | None = None
    for size in SIZES:
        for given in (size, None):
            try:
                with seeded(0, "network"):
                    net = build(library, name, given)
                with quiet(net, torch.device("cpu")):
                    net.net(torch.zeros(2, 3, size, size))
                return net, size
            except Exception as error:  # another size or without the option
                problem = error
    raise RuntimeError(f"{name} runs at no size: {problem}")


def checks(model: Tapped, size: int) -> dict[str, Any]:
    """Features against the library's own, by value and with random norms: the largest errors, and what is missing."""
    net: Any = model.net
    with quiet(net, torch.device("cpu")), randomised(net):
        x = random_input(torch.zeros(2, 3, size, size))
        out = model(x)
        found: dict[str, Any] = {"shapes": {role: list(f.shape[1:]) for role, f in out.features.items()}}
        plan = model.plan(x)
        found["notes"] = [*plan.left_out, *plan.notes]
        found["classifiers"] = [role for role in plan.readers if role in ("pooled", "pre_logits", "last")]
        for role in found["classifiers"]:
            feature = out.feature(role)
            head = model.classifier_for(role, feature.shape[1])
            assert head is not None
            given = feature if feature.dim() == 2 or not isinstance(head, nn.Linear) else feature.mean((2, 3))
            found[f"logits from {role}"] = error(head(given), out.logits)
        if hasattr(net, "forward_intermediates"):
            maps = [m for m in net.forward_intermediates(x, intermediates_only=True) if m.dim() == 4]
            stages = [f for role, f in out.features.items() if role.startswith("stage")]
            found["maps"] = max((min(error(f, m) for m in maps) for f in stages), default=None)
            try:
                vector = net.forward_head(net.forward_features(x), pre_logits=True)
                if "pooled" in out.features and isinstance(vector, Tensor) and as_vector(vector).dim() == 2:
                    found["pooled"] = error(out.feature("pooled"), as_vector(vector))
            except (TypeError, AttributeError):
                pass
    return found


def error(a: Tensor, b: Tensor) -> float:
    """The largest difference over the largest value; infinite for other shapes."""
    return float("inf") if a.shape != b.shape else float((a - b).abs().max() / b.abs().max().clamp(min=1e-12))


@cache
def node(method: str) -> dict[str, Any]:
    """A method's config at its default keys."""
    config = compose(["dataset=synthetic", f"method={method}", f"trainer.batch_size={BATCH}"]).config
    return config["method"]


def step(method: str, student: Replay, teacher: nn.Module, spec: DataSpec, batch: Batch) -> str | None:
    """Take a step of a method; None if it works, else the sentence."""
    given: dict[str, Any] = {"student": student, "spec": spec}
    if method not in ALONE:
        given["teacher"] = teacher
    try:
        built = make_method(node(method), 0, given)
        now = Progress(LATE.get(method, 0), 100, 100.0)
        steps = [turn.step for turn in built.turns(batch, now)] if built.needs_turns else [built(batch, now)]
        terms = {name: value for one in steps for name, value in one.terms.items()}
        loss = torch.stack([value.reshape(()) for value in terms.values()]).sum()
        read = list(student.outputs.features.values())
        gradients = [g for g in torch.autograd.grad(loss, read, allow_unused=True) if g is not None]
    except Exception as problem:
        return f"{type(problem).__name__}: {str(problem).splitlines()[0] if str(problem) else ''}"[:300]
    if not loss.isfinite() or not all(g.isfinite().all() for g in gradients):
        return "not finite"
    return None if any((g != 0).any() for g in gradients) else "no gradient of the student's features"


def measure(row: str, name: str, methods: Sequence[str], before: Mapping[str, Any]) -> dict[str, Any]:
    """All results of a network; those of other methods are kept from `before`."""
    start, library = time.process_time(), row.partition("/")[0]
    net, size = at_smallest_input(library, name)
    labels = torch.arange(EXAMPLES) % CLASSES
    spec = image_classes(CLASSES, (3, size, size), EXAMPLES, (0.0,) * 3, (1.0,) * 3, labels)
    probe(net, spec.inputs)
    found: dict[str, Any] = {"name": name, "size": size, "checks": checks(net, size)}
    x = random_input(torch.zeros(BATCH, 3, size, size), BATCH)
    batch = Batch.of_classes(x, labels[:BATCH], torch.arange(BATCH))
    with torch.no_grad():
        mine, other, twin = Replay(net, net.eval()(x)), vgg(size), Replay(net, net(x.flip(0)))
    for side in ("student", "teacher"):
        found[side] = dict(before.get(side, {}))
        for method in methods:
            if side == "teacher" and method in ALONE:
                continue
            partner = twin if method in TWINS else other
            student, teacher = (mine, partner) if side == "student" else (partner, mine)
            found[side][method] = step(method, student, Frozen(teacher, None, None), spec, batch)
            for network in (student, teacher):
                network.requires_grad_(True)
    found["seconds"] = round(before.get("seconds", 0) + time.process_time() - start, 1)
    return found


@cache
def vgg(size: int) -> Replay:
    """The other network of the pairs at a size."""
    with seeded(1, "network"), torch.no_grad():
        net = VGG([1] * 5, [8, 16, 32, 32, 32], True, CLASSES, 3)
        return Replay(net, net.eval()(random_input(torch.zeros(BATCH, 3, size, size), BATCH)))
