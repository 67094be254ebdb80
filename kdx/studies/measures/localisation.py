"""Whether students look where their teacher looks."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import permutations
from typing import ClassVar

import torch
from torch import Tensor, nn

from kdx.core.batch import Batch
from kdx.core.errors import UserError
from kdx.core.metric import Metric
from kdx.metrics.localisation import grad_cam, map_cosine
from kdx.studies.measures.base import Examples, Scores, must_be_there, pair


@dataclass(frozen=True, kw_only=True)
class Localisation:
    """Similarity of Grad-CAM maps of the labelled class to the teacher's, and the win rate between students.

    Attributes:
        teacher: Network whose maps are the reference.
        role: The feature of each network that the maps are of, a map [B, C, h, w].

    References:
        Ojha, Li, Sundara Rajan, Liang, Lee, "What Knowledge Gets Distilled in Knowledge Distillation?", 2023.
        https://arxiv.org/abs/2205.16004
    """

    metrics: ClassVar[Sequence[Metric]] = (
        Metric(name="similarity", label="similarity", digits=4, better="higher", shown=True),
        Metric(name="win rate", label="win rate", unit="%", digits=2, shown=True),
    )
    notes: ClassVar[Sequence[str]] = (
        "similarity: mean cosine of the network's and the teacher's Grad-CAM of the labelled class",
        "A / B: the win rate is the share of examples where A's map is nearer to the teacher's than B's, equal ones by "
        "half; 50 % for two independent networks",
    )

    teacher: str
    role: str

    def __call__(self, networks: Mapping[str, nn.Module], batches: Examples) -> Scores:
        must_be_there(self.teacher, networks, "teacher")
        students = [name for name in networks if name != self.teacher]
        sums, seen = defaultdict[tuple[str, str], float](float), 0
        for batch in batches:
            seen += len(batch)
            cams = {name: self._map(name, net, batch) for name, net in networks.items()}
            near = {name: map_cosine(cams[name], cams[self.teacher]) for name in students}
            for name in students:
                sums[name, "similarity"] += float(near[name].sum())
            for one, other in permutations(students, 2):
                wins = (near[one] > near[other]).double() + 0.5 * (near[one] == near[other]).double()
                sums[pair(one, other), "win rate"] += float(wins.sum())
        scores: Scores = defaultdict(dict)
        for (row, column), value in sums.items():
            scores[row][column] = value / seen
        return dict(scores)

    def _map(self, name: str, net: nn.Module, batch: Batch) -> Tensor:
        images = batch.input_tensor
        with torch.enable_grad():
            outputs = net(images.detach().requires_grad_())
            feature = outputs.feature(self.role)
            if feature.ndim != 4:
                raise UserError(
                    f"study.measure.role: '{self.role}' of '{name}' is no map [B, C, h, w], its shape is "
                    f"{list(feature.shape)}"
                )
            scores = outputs.logits.gather(1, batch.labels[:, None])[:, 0]
            return grad_cam(feature, scores, (images.shape[2], images.shape[3]))
