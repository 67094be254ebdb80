"""Every network of timm and torchvision with every method that reads features, as teacher and as student.

    python scripts/zoo_networks.py [--only swin,vit] [--methods at,simkd] [--again] [--minutes 45]

For each module of timm and each classifier of torchvision, the smallest variant is built with random weights at the
smallest input that it takes. Its features are compared with the library's own (`forward_intermediates`, `forward_head`
before the classifier, the logits), by value and with random norms. Then each method takes one step, forward and
backward, at its default keys: "works" means that it builds, that its value is finite, and that the student's features
have a finite gradient. Otherwise the method's sentence is kept.

The other network of each pair is kdx's vgg8; methods that need equal widths are paired with the network itself.
Results lie in `outputs/zoo_networks/NAME.json`, one for each network; a network that is there is not run again. Writes
`outputs/tables/networks.md`.
"""

import argparse
import json
import re
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
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

STATE, TABLE = Path("outputs/zoo_networks"), Path("outputs/tables/networks.md")
CLASSES, EXAMPLES, BATCH = 10, 64, 4
SIZE = r"_(t|s|b|l|h|tiny|small|base|large)(_.*)?$|(?<!_v)[0-9].*$"
WORDS = (
    "zepto",
    "atto",
    "femto",
    "pico",
    "nano",
    "n",
    "xxs",
    "xxt",
    "xxtiny",
    "xt",
    "xs",
    "tiny",
    "ti",
    "t",
    "mini",
    "s",
    "small",
)
SIZES = (32, 64, 96, 128, 160, 192, 224, 256, 288, 320, 384, 448, 512)
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


def networks() -> dict[str, Callable[[], list[str]]]:
    """Names of the variants of each module of timm and of each classifier of torchvision, by the name of the row."""
    import timm
    from torchvision import models

    found: dict[str, Callable[[], list[str]]] = {
        f"timm/{module}": lambda module=module: [
            n for n in timm.list_models(module=module) if not n.startswith("test_")
        ]
        for module in timm.list_modules()
    }
    families: dict[str, list[str]] = {}
    for name in models.list_models(module=models):
        module = models.get_model_builder(name).__module__.rpartition(".")[2]
        family = f"{module} {re.sub(SIZE, '', name)}"
        families.setdefault(family, []).append(name)
    for family, names in families.items():
        found[f"torchvision/{family.partition(' ')[2].rstrip('_')}"] = lambda names=names: names
    return found


def build(library: str, name: str, size: int | None) -> Tapped:
    """A network with random weights; for a size, where its constructor takes one."""
    if library == "timm":
        options = {} if size is None else {"img_size": size}
        return timm_model(name, False, CLASSES, 3, 0.0, 0.0, None, options)
    options = {} if size is None else {"image_size": size}
    return torchvision_model(name, None, CLASSES, 3, None, options)


def smallest(library: str, names: list[str]) -> str:
    """The variant with the fewest parameters among the three whose names say the smallest sizes."""
    counts = {}
    for name in sorted(names, key=rank)[:3]:
        try:
            with torch.device("meta"):
                counts[name] = sum(p.numel() for p in build(library, name, None).parameters())
        except Exception:  # some constructors compute with real numbers
            continue
    return min(counts, key=lambda n: counts[n]) if counts else min(names, key=len)


def rank(name: str) -> tuple[float, float, int]:
    """Order of names by the size that they give in words, then in numbers."""
    words = re.split(r"[_.]", name)
    known = [WORDS.index(word) for word in words if word in WORDS]
    numbers = [
        float(n)
        for word in words
        for n in re.findall(r"^(?:[a-z]+)?(\d+)", word)
        if not re.match(r"patch|window|res", word)
    ]
    return (min(known, default=WORDS.index("s") + 0.5), min(numbers, default=0.0), len(name))


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
                if isinstance(vector, Tensor) and as_vector(vector).dim() == 2:
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
        terms = built(batch, Progress(LATE.get(method, 0), 100, 100.0)).terms
        loss = torch.stack([value.reshape(()) for value in terms.values()]).sum()
        read = [student.outputs.logits, *student.outputs.features.values()]
        gradients = [g for g in torch.autograd.grad(loss, read, allow_unused=True) if g is not None]
    except Exception as problem:
        return f"{type(problem).__name__}: {str(problem).splitlines()[0] if str(problem) else ''}"[:300]
    if not loss.isfinite() or not all(g.isfinite().all() for g in gradients):
        return "not finite"
    return None if any((g != 0).any() for g in gradients) else "no gradient"


def measure(row: str, names: list[str], methods: Sequence[str], before: Mapping[str, Any]) -> dict[str, Any]:
    """All results of a network; those of other methods are kept from `before`."""
    start, library = time.process_time(), row.partition("/")[0]
    name = before.get("name") or smallest(library, names)
    net, size = at_smallest_input(library, name)
    labels = torch.arange(EXAMPLES) % CLASSES
    spec = image_classes(CLASSES, (3, size, size), EXAMPLES, (0.0,) * 3, (1.0,) * 3, labels)
    probe(net, spec.inputs)
    found: dict[str, Any] = {"name": name, "size": size, "checks": checks(net, size)}
    x = random_input(torch.zeros(BATCH, 3, size, size), BATCH)
    batch = Batch.of_classes(x, labels[:BATCH], torch.arange(BATCH))
    with torch.no_grad():
        mine, other = Replay(net, net.eval()(x)), vgg(size)
    for side in ("student", "teacher"):
        found[side] = dict(before.get(side, {}))
        for method in methods:
            if side == "teacher" and method in ALONE:
                continue
            partner = Replay(net, mine.outputs) if method in TWINS else other
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


def path(row: str) -> Path:
    """The file of a network's results."""
    return STATE / f"{row.replace('/', '-')}.json"


def results(row: str) -> dict[str, Any]:
    """A network's results; empty if there are none."""
    return json.loads(path(row).read_text()) if path(row).exists() else {}


def main() -> None:
    """Run what is missing, and write the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--only", default="", help="parts of names, comma-separated")
    parser.add_argument("--methods", default="", help="names, comma-separated; all if empty")
    parser.add_argument("--again", action="store_true", help="run networks again that are done")
    parser.add_argument("--minutes", type=float, default=45.0)
    given = parser.parse_args()
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore")
    STATE.mkdir(parents=True, exist_ok=True)
    end = time.time() + 60 * given.minutes
    rows = networks()
    asked = [method for method in METHODS if not given.methods or method in given.methods.split(",")]
    for row, names in rows.items():
        before = {} if given.again else results(row)
        missing = [method for method in asked if method not in before.get("student", {})]
        chosen = not given.only or any(part in row for part in given.only.split(","))
        if chosen and missing and time.time() < end:
            try:
                result = measure(row, names(), missing, before)
            except Exception as problem:
                result = {"name": "", "problem": f"{type(problem).__name__}: {str(problem).splitlines()[0][:250]}"}
            path(row).write_text(json.dumps(result, indent=1) + "\n")
            print(
                row, result["name"], result.get("problem") or f"{result['size']} px, {result['seconds']} s", flush=True
            )


if __name__ == "__main__":
    main()
