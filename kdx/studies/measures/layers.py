"""Similarity of the layers of students and a teacher."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isnan
from typing import ClassVar

import torch
from torch import nn

from kdx.core.metric import Metric
from kdx.metrics.cka import CKA
from kdx.studies.measures.base import Examples, Scores, must_be_there


@dataclass(frozen=True, kw_only=True)
class LayerSimilarity:
    """Linear CKA of each layer of each network with each layer of the teacher, a grid per network.

    Attributes:
        teacher: Network whose layers are the columns.
        roles: Features of all networks.

    References:
        Kornblith, Norouzi, Lee, Hinton, "Similarity of Neural Network Representations Revisited", 2019.
        https://arxiv.org/abs/1905.00414
    """

    notes: ClassVar[Sequence[str]] = (
        "rows: a network and its layer; columns: the teacher's layers; unbiased linear CKA of features averaged over "
        "positions; the row of the network itself: mean over layers of the same name",
    )

    teacher: str
    roles: Sequence[str]

    @property
    def metrics(self) -> Sequence[Metric]:
        shown = [Metric(name=r, label=r, digits=3, better="higher", shown=True) for r in self.roles]
        return [Metric(name="same layer", label="same layer", digits=3, better="higher", shown=True), *shown]

    @torch.no_grad()
    def __call__(self, networks: Mapping[str, nn.Module], batches: Examples) -> Scores:
        must_be_there(self.teacher, networks, "teacher")
        students = [name for name in networks if name != self.teacher]
        grids = defaultdict[tuple[str, str, str], CKA](CKA)
        for batch in batches:
            features = {}
            for name, net in networks.items():
                outputs = net(batch.inputs)
                features[name] = {role: outputs.feature(role) for role in self.roles}
            for name in students:
                for ours in self.roles:
                    for theirs in self.roles:
                        grids[name, ours, theirs].update(features[name][ours], features[self.teacher][theirs])
        scores: Scores = {}
        for name in students:
            found = {at[1:]: cka.compute()["cka"] for at, cka in grids.items() if at[0] == name}
            same = [found[role, role] for role in self.roles]
            scores[name] = {} if any(map(isnan, same)) else {"same layer": sum(same) / len(same)}
            for ours in self.roles:
                row = {theirs: found[ours, theirs] for theirs in self.roles}
                scores[f"{name}, {ours}"] = {theirs: value for theirs, value in row.items() if not isnan(value)}
        return scores
