"""The identities of ten configs, frozen: where one moves, finished runs like it are trained again.

`frozen_identities.json` is written once, when the names and keys of configs are final:

    PYTHONPATH=.:tests/config python -m test_frozen_identities > tests/config/frozen_identities.json
"""

import json
import sys
import tempfile
from pathlib import Path

import pytest

from kdx.config.compose import compose
from kdx.config.identity import identity
from kdx.runs.prepare import examine

FROZEN = Path(__file__).with_name("frozen_identities.json")
FILE = "WEIGHTS"  # stands for a file with the same content everywhere
CASES: dict[str, list[str]] = {
    "kd": ["method=kd"],
    "dkd on cifar": ["dataset=cifar100", "method=dkd", "teacher=resnet56", "student=resnet20", "method.temperature=2"],
    "crd from a file": ["dataset=cifar100", "method=crd", "student=resnet8x4", f"teacher.checkpoint={FILE}"],
    "teacher with a recipe": [
        "method=takd",
        "teacher=mlp_800",
        "teacher.seed=3",
        "teacher.recipe=['optimizer.lr=0.01','trainer.duration.steps=100']",
    ],
    "ensemble": ["method=kd_ensemble", "teacher.seeds=[0,1]", "teacher.combine=geometric"],
    "transfer": ["method=kd", "transfer=heldout", "dataset.fraction=0.5", "transfer.omit_classes=[3]"],
    "mixing": ["dataset=cifar10", "method=kd", "augmentation=mixup", "trainer.ema=0.99"],
    "timm": [
        *("dataset=cifar100", "method=supervised", "student=timm", "student.net.name=resnet18"),
        "student.net.pretrained=false",
    ],
    "peers": ["method=dml", "method.peers=[same,mlp_20]", "seed=7", "data_seed=1"],
    "adversary": ["method=adv_logits", "seed=2"],
}


def identity_of(overrides: list[str], folder: Path) -> str:
    file = folder / "weights.bin"
    file.write_bytes(b"the same everywhere")
    return identity(examine(compose([override.replace(FILE, str(file)) for override in overrides])))


@pytest.mark.parametrize("name", CASES)
def test_it_never_moves(name: str, tmp_path: Path):
    case = json.loads(FROZEN.read_text())[name]
    assert case["overrides"] == CASES[name], "a frozen case never changes; add another one instead"
    assert identity_of(CASES[name], tmp_path) == case["identity"], (
        f"the identity of '{name}' moved, so finished runs like it would be trained again. A new key of a resolved "
        "config, a changed default or a renamed class does this. Leave the key out of the identity (NOT_IDENTITY in "
        "kdx/config/identity.py) where it changes no number, list a rename in RENAMED of kdx/config/aliases.py, or "
        "keep the default"
    )


def test_there_are_ten_and_no_two_are_alike():
    frozen = json.loads(FROZEN.read_text())
    assert frozen.keys() == CASES.keys() and len({case["identity"] for case in frozen.values()}) == len(CASES) == 10


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as place:
        found = {n: {"overrides": o, "identity": identity_of(o, Path(place))} for n, o in CASES.items()}
    json.dump(found, sys.stdout, indent=2)
    print()
