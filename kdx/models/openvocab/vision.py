"""A small vision-language model: embeds crops of images near the embeddings of class names."""

from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from kdx.core.functional import unit
from kdx.core.ranges import Count, Positive, PositiveInt
from kdx.core.seed import generator, seeded
from kdx.models.openvocab.text import name_embeddings

CHUNK = 64  # images at a time; another number would round differently


class CropNet(nn.Module):
    """Three convolutions of stride 2 and a linear layer: crops [N, 3, S, S] to embeddings [N, D] of length 1."""

    def __init__(self, width: int, text: Tensor, side: int):
        super().__init__()
        sizes = [3, width, 2 * width, 4 * width]
        layers: list[nn.Module] = []
        for inputs, outputs in pairwise(sizes):
            layers += [nn.Conv2d(inputs, outputs, 3, 2, 1), nn.ReLU()]
        self.body, self.side = nn.Sequential(*layers), side
        self.project = nn.Linear(4 * width, text.shape[1], bias=False)
        self.text = text

    def forward(self, crops: Tensor) -> Tensor:
        return unit(self.project(self.body(crops).mean((2, 3))), 1)

    @torch.no_grad()
    def embed(self, images: Tensor, boxes: Tensor) -> Tensor:
        """Embeddings [N, K, D] of the crops of images uint8 [N, H, W, C] in boxes [N, K, 4]."""
        parts = zip(images.split(CHUNK), boxes.split(CHUNK), strict=True)
        return torch.cat([self(cut(i, b, self.side)).unflatten(0, b.shape[:2]) for i, b in parts])


def cut(images: Tensor, boxes: Tensor, side: int) -> Tensor:
    """Crops [N * K, C, side, side], in [-1, 1], of images uint8 [N, H, W, C] in boxes [N, K, 4]."""
    from torchvision.ops import roi_align

    pixels = images.permute(0, 3, 1, 2).float() / 127.5 - 1
    return roi_align(pixels, list(boxes.float()), side, sampling_ratio=2, aligned=True)


@dataclass(frozen=True, kw_only=True)
class MiniVision:
    """Settings of a `CropNet` that learns from crops of objects of all classes: it stands for a model like CLIP.

    Its loss is SigLIP's without a bias, as a detector's is: each crop and each name are a binary problem. Crops are
    tight or loose. How well it recognises objects follows from `steps`, and is measured and stored with its embeddings.

    Attributes:
        steps: Steps of Adam.
        batch_size: Crops in a step.
        lr: Learning rate.
        width: Channels of the first convolution.
        side: Height and width of a crop.
        loosest: Largest ratio of the crop's side to the object's; the smallest is 0.9.
        scale: Factor of the cosines.
        prompt, encoder: How class names become embeddings, see `name_embeddings`.
        seed: Seed of weights and batches.

    References:
        Zhai et al., "Sigmoid Loss for Language Image Pre-Training", 2023. https://arxiv.org/abs/2303.15343
    """

    steps: PositiveInt
    batch_size: PositiveInt
    lr: Positive
    width: PositiveInt
    side: PositiveInt
    loosest: Positive
    scale: Positive
    prompt: str
    encoder: str
    seed: Count

    def learned(self, names: tuple[str, ...], images: Tensor, boxes: Tensor, labels: Tensor) -> CropNet:
        """The model, after it has learned; see `kdx.data.proposals.VisionLanguage`."""
        text = name_embeddings(names, self.prompt, self.encoder)
        owner, place = (labels >= 0).nonzero(as_tuple=True)
        objects, classes = boxes[owner, place], labels[owner, place]
        draws = generator(self.seed, "mini vision", "crops")
        with seeded(self.seed, "mini vision"), torch.enable_grad():
            net = CropNet(self.width, text, self.side)
            optimizer = torch.optim.Adam(net.parameters(), lr=self.lr)
            for _ in range(self.steps):
                chosen = torch.randint(len(owner), (self.batch_size,), generator=draws)
                grown = 0.9 + (self.loosest - 0.9) * torch.rand(self.batch_size, 1, generator=draws)
                box = objects[chosen]
                centre, half = (box[:, :2] + box[:, 2:]) / 2, grown * (box[:, 2:] - box[:, :2]) / 2
                crops = cut(images[owner[chosen]], torch.cat([centre - half, centre + half], 1)[:, None], self.side)
                logits = self.scale * net(crops) @ text.T
                wanted = F.one_hot(classes[chosen], len(names)).float()
                loss = F.binary_cross_entropy_with_logits(logits, wanted, reduction="none").sum(1).mean()
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
        return net.requires_grad_(False)

    def accuracy(self, model: CropNet, images: Tensor, boxes: Tensor, labels: Tensor) -> float:
        """Share of the objects whose tight crop is closest to the name of its class."""
        real = labels >= 0
        found = model.embed(images, boxes)[real] @ model.text.T
        return float((found.argmax(1) == labels[real]).double().mean())
