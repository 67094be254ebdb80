"""Write the features that EfficientNet-Lite0, pretrained on ImageNet, has of a data set, for `dataset=features`.

    python scripts/features.py cifar100 cifar100_lite0.safetensors --train 5000 --test 2000

A feature is the mean of the last map over its places (320 numbers), minus its mean over the training images, divided by
its standard deviation there. The weights are those of the package of the extra `backbone`.
"""

import argparse
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional as F

from kdx.config.compose import compose
from kdx.data.loaders import EvalLoader
from kdx.data.regime import balanced
from kdx.data.sets import ExampleSet
from kdx.models.detectors.backbone import timm_backbone
from kdx.runs.build import make

LAST = 4  # index of the last map
IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@torch.no_grad()
def features(data: ExampleSet, spec, size: int) -> tuple[Tensor, Tensor]:  # noqa: ANN001
    """Features [N, D] and labels [N] of a set of images."""
    net = timm_backbone("efficientnet_lite0", "package", [LAST], 3, True).eval()
    mean, std, own_mean, own_std = (
        torch.tensor(v).view(1, 3, 1, 1) for v in (*IMAGENET, tuple(spec.mean), tuple(spec.std))
    )
    vectors, labels = [], []
    for batch in EvalLoader(data, spec, 100, 0, True):
        images = (batch.input_tensor * own_std + own_mean - mean) / std
        images = F.interpolate(images, size=(size, size), mode="bilinear", antialias=True)
        (last,) = net.forward_intermediates(images, indices=[LAST], intermediates_only=True)  # pyright: ignore
        vectors.append(last.mean((2, 3)))
        labels.append(batch.labels)
    return torch.cat(vectors), torch.cat(labels)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset", help="a data set of colour images with classes, such as cifar100")
    parser.add_argument("file", type=Path, help="the safetensors file to write")
    parser.add_argument("--train", type=int, default=5000, help="training images at most, balanced over the classes")
    parser.add_argument("--test", type=int, default=2000, help="test images at most, balanced over the classes")
    parser.add_argument("--size", type=int, default=160, help="side of the images that the network sees, in pixels")
    parser.add_argument("overrides", nargs="*", help="overrides of the data set, such as dataset.verify=false")
    asked = parser.parse_intermixed_args()  # overrides may come last
    splits = make(compose([f"dataset={asked.dataset}", *asked.overrides]).config["dataset"]).splits()
    found: dict[str, Tensor] = {}
    for split, data, most in (("train", splits.train, asked.train), ("test", splits.test, asked.test)):
        if len(data) > most:
            data = data.subset(balanced(data.labels, most, 0, "features"))
        found[split], found[f"{split}_labels"] = features(data, splits.spec, asked.size)
    mean, std = found["train"].mean(0), found["train"].std(0).clamp(min=1e-6)
    for split in ("train", "test"):
        found[split] = ((found[split] - mean) / std).contiguous()
    save_file(found, asked.file)
    print(f"{asked.file}: {tuple(found['train'].shape)} training and {tuple(found['test'].shape)} test features")


if __name__ == "__main__":
    main()
