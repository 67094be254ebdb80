"""Every method on networks of other widths, depths and families: it works, or says in a sentence why not."""

import copy
import re
from functools import cache
from typing import Any

import pytest
import torch
from omegaconf import OmegaConf
from torch import nn

from kdx.commands.catalogue import front_matter
from kdx.config.compose import config_dir, options
from kdx.core.batch import Batch
from kdx.core.errors import UserError
from kdx.core.method import Method
from kdx.core.schedule import Progress
from kdx.core.weigh import weigh
from kdx.models.teachers.frozen import Frozen
from kdx.runs.build import make
from kdx.tasks.classes import image_classes

CLASSES, SIZE, BATCH = 5, 16, 3
SPEC = image_classes(CLASSES, (3, SIZE, SIZE), 20, (0.0,) * 3, (1.0,) * 3, torch.arange(20) % CLASSES)
NETWORKS = {
    "resnet": ("resnet8", {"widths": [4, 4, 8, 8]}),
    "resnet wider": ("resnet8", {"widths": [6, 6, 10, 10]}),
    "wrn": ("wrn_16_1", {}),
    "mobilenet": ("mobilenetv2_half", {}),
    "shufflenet": ("shufflenetv2", {}),
    "vgg": ("vgg8", {}),
    "cnn": ("cnn_small", {}),
    "mlp": ("mlp_30", {}),
    "vit": ("timm", {"name": "vit_tiny_patch16_224", "options": {"img_size": SIZE, "patch_size": 4, "depth": 3}}),
}
# those that read features, by the facts that open their files; combinations add nothing here
STEMS = [
    stem
    for stem in options("method")
    if not re.fullmatch("kd_.*|.*_kd|sdd_.*|pixel_.*", stem)
    # over one frozen teacher; methods of other scenes build their networks themselves
    and re.search(
        r"^_target_: .*\.(Distill|SimKD|InputGradients)$", (config_dir() / "method" / f"{stem}.yaml").read_text(), re.M
    )
    and re.search("feature|relation|gradient", front_matter(config_dir() / "method" / f"{stem}.yaml")["needs"])
    and "texts" not in front_matter(config_dir() / "method" / f"{stem}.yaml")["needs"]
]
# same channels, map by map
ALIKE = {"fsp", "kdsvd"}
STAGES = {"ab", "at", "nst", "ofd", "reviewkd", "semckd", "vid"}
LAST_MAP = {"catkd", "simkd"}
TWO_STAGES = {"ab", "fsp", "ft"}
ON_MAPS = ALIKE | STAGES | LAST_MAP | {"cwd", "fitnet", "ft", "ickd", "kdzero", "mgd"}
REFUSED: dict[tuple[str, str], set[str]] = {
    ("resnet wider", "resnet"): ALIKE,
    ("resnet", "mobilenet"): ALIKE,
    ("resnet", "shufflenet"): ALIKE,
    ("vgg", "resnet"): ALIKE,
    ("shufflenet", "wrn"): ALIKE | {"ofd"},  # its stages end in a shuffle, not in a batch norm
    ("cnn", "resnet"): ALIKE | {"catkd"},  # a hidden layer after the last map
    ("vit", "resnet"): ALIKE | {"catkd", "ofd"},  # its classifier reads the class token; no batch norms
    ("mlp", "resnet"): ON_MAPS - {"reviewkd", "simkd"},  # these read vectors as maps of one position
}


@cache
def network(name: str) -> nn.Module:
    stem, changes = NETWORKS[name]
    root = OmegaConf.create({"dataset": {"num_classes": CLASSES, "input_shape": [3, SIZE, SIZE]}})
    root["net"] = OmegaConf.merge(OmegaConf.load(config_dir() / "model" / f"{stem}.yaml"), changes)
    torch.manual_seed(0)
    return make(OmegaConf.to_container(root.net, resolve=True))  # pyright: ignore[reportArgumentType]


def method_of(stem: str, teacher: str, student: str) -> Method:
    loaded = OmegaConf.load(config_dir() / "method" / f"{stem}.yaml")
    root = OmegaConf.create({"method": loaded, "trainer": {"batch_size": BATCH}})
    node: Any = OmegaConf.to_container(root.method, resolve=True)
    torch.manual_seed(0)
    given = {"student": copy.deepcopy(network(student)).requires_grad_(), "spec": SPEC}
    return make(node, **given, teacher=Frozen(network(teacher), None, None))


@pytest.mark.parametrize("pair", REFUSED, ids=" to ".join)
@pytest.mark.parametrize("stem", STEMS)
def test_works_or_says_why_not(stem: str, pair: tuple[str, str]):
    try:
        method = method_of(stem, *pair)
    except (UserError, ValueError) as error:
        sentence = str(error)
        assert "\n" not in sentence and len(sentence.split()) > 8
        assert stem in REFUSED[pair], (
            f"{sentence}; if {stem} cannot work on {pair}, add it there to REFUSED in {__file__}"
        )
        return
    assert stem not in REFUSED[pair], f"{stem} works on {pair}: take it out of REFUSED in {__file__}"
    method.train()
    torch.manual_seed(1)
    index = torch.arange(BATCH)
    views = tuple(torch.randn(BATCH, 3, SIZE, SIZE) for _ in range(3))
    batch = Batch.of_classes(views[0], index, index, None, views[1:])
    reached: dict[str, torch.Tensor] = {}
    for epoch in (0, 40) if stem in TWO_STAGES else (40,):
        progress = Progress(epoch, 240, 240)
        step = method(batch, progress)
        method.zero_grad(set_to_none=True)
        weigh(step.terms, method.weights, progress).backward()
        assert all(t.isfinite() for t in step.terms.values())
        reached |= {name: p.grad for name, p in method.named_parameters() if p.grad is not None}
    assert all(gradient.isfinite().all() for gradient in reached.values())
    own = {name for name, p in method.named_parameters() if p.requires_grad and name.startswith("terms.")}
    assert own <= reached.keys()
