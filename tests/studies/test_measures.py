"""Measurements of trained networks against loops over examples, and the laws that controls rest on."""

import math
from collections.abc import Iterator
from copy import deepcopy
from itertools import permutations

import matplotlib.image
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from kdx.core.batch import Batch
from kdx.core.errors import UserError
from kdx.core.outputs import Outputs
from kdx.core.seed import generator
from kdx.core.spec import DataSpec, Images
from kdx.data.views.jitter import ColorJitter, RandomCrop, RandomShift
from kdx.models.attack import PGD
from kdx.studies.measures.attacks import AdversarialTransfer
from kdx.studies.measures.base import Drawn, Measurement, pair
from kdx.studies.measures.cues import CueConflicts
from kdx.studies.measures.groups import Groups
from kdx.studies.measures.invariance import Invariance
from kdx.studies.measures.layers import LayerSimilarity
from kdx.studies.measures.localisation import Localisation
from kdx.studies.measures.overlap import RegionOverlap, plane
from kdx.studies.measures.plane import LossPlane
from kdx.tasks.classes import Classes

CLASSES, EXAMPLES, SIDE = 4, 17, 6
MEAN, STD = (0.4, 0.5, 0.6), (0.2, 0.25, 0.3)


class Conv(nn.Module):
    """A convolution, ReLU, a mean over positions and a classifier, in float64."""

    def __init__(self, seed: int, width: int = 3):
        super().__init__()
        g = torch.Generator().manual_seed(seed)
        self.conv = nn.Parameter(torch.randn(width, 3, 3, 3, generator=g, dtype=torch.float64))
        self.fc = nn.Parameter(torch.randn(CLASSES, width, generator=g, dtype=torch.float64))
        # the examples lie around this point, so that each class is predicted
        self.centre = torch.zeros(width, dtype=torch.float64)

    def forward(self, inputs: Tensor) -> Outputs:
        features = F.conv2d(inputs, self.conv, padding=1).relu()
        pooled = features.mean((2, 3))
        return Outputs((pooled - self.centre) @ self.fc.T, {"stage1": features, "pooled": pooled})


class Split:
    """Batches of 5 with a short last one, each example with a group."""

    def __init__(self, classes: int = CLASSES):
        g = torch.Generator().manual_seed(3)
        self.values = torch.rand(EXAMPLES, 3, SIDE, SIDE, generator=g, dtype=torch.float64)
        self.mean, self.std = (torch.tensor(of, dtype=torch.float64).view(1, 3, 1, 1) for of in (MEAN, STD))
        self.inputs = (self.values - self.mean) / self.std
        self.labels = torch.arange(EXAMPLES) % classes
        self.groups = torch.arange(EXAMPLES) % 3 % 2
        self.spec = DataSpec(Classes(CLASSES), Images((3, SIDE, SIDE), MEAN, STD), EXAMPLES)

    def __iter__(self) -> Iterator[Batch]:
        for rows in torch.arange(EXAMPLES).split(5):
            batch = Batch.of_classes(self.inputs[rows], self.labels[rows], rows)
            yield batch.with_targets(group=self.groups[rows])


NETS = {"teacher": Conv(1), "a": Conv(2), "b": Conv(3)}
for of in NETS.values():
    of.centre = of(Split().inputs).features["pooled"].mean(0).detach()


def guess(net: nn.Module, image: Tensor) -> int:
    row = net(image[None]).logits[0].tolist()
    return row.index(max(row))


def test_localisation_is_a_loop_over_examples_and_positions():
    split = Split()
    found = Localisation(teacher="teacher", role="stage1")(NETS, split)

    def cam(net: Conv, image: Tensor, label: int) -> list[float]:
        features = F.conv2d(image[None], net.conv, padding=1).relu()[0]
        # the logit is the mean over positions times the classifier's row, so each gradient is that row / positions
        weights = [float(net.fc.detach()[label, c]) / SIDE**2 for c in range(3)]
        flat = features.flatten(1).tolist()
        return [max(0.0, sum(w * flat[c][i] for c, w in enumerate(weights))) for i in range(SIDE**2)]

    def cosine(one: list[float], other: list[float]) -> float:
        lengths = math.hypot(*one) * math.hypot(*other)
        return sum(p * q for p, q in zip(one, other, strict=True)) / lengths if lengths else 0.0

    near = {"a": [], "b": []}
    for image, label in zip(split.inputs, split.labels.tolist(), strict=True):
        cams = {name: cam(net, image, label) for name, net in NETS.items()}
        for name, of in near.items():
            of.append(cosine(cams[name], cams["teacher"]))
    for name, of in near.items():
        assert found[name]["similarity"] == pytest.approx(sum(of) / EXAMPLES, abs=1e-9)
    for one, other in permutations(near):
        wins = sum((x > y) + 0.5 * (x == y) for x, y in zip(near[one], near[other], strict=True))
        assert found[pair(one, other)] == {"win rate": wins / EXAMPLES}
    assert 0 < found["a / b"]["win rate"] < 1


def test_win_rates_of_a_pair_add_up_to_one_and_equal_students_win_half():
    found = Localisation(teacher="teacher", role="stage1")({**NETS, "a too": NETS["a"]}, Split())
    assert found["a / a too"]["win rate"] == 0.5
    assert found["a / b"]["win rate"] + found["b / a"]["win rate"] == pytest.approx(1)
    itself = Localisation(teacher="teacher", role="stage1")({**NETS, "copy": NETS["teacher"]}, Split())
    assert itself["copy / a"]["win rate"] > 0.8 and itself["copy"]["similarity"] > itself["a"]["similarity"]


def test_localisation_needs_a_map_and_a_teacher():
    with pytest.raises(UserError, match=r"study\.measure\.role: 'pooled' of 'teacher' is no map"):
        Localisation(teacher="teacher", role="pooled")(NETS, Split())
    with pytest.raises(UserError, match=r"study\.measure\.teacher: there is no network 'techer'"):
        Localisation(teacher="techer", role="stage1")(NETS, Split())


ATTACK = PGD(radius=0.3, step_size=0.1, steps=4, start="centre")


def test_adversarial_transfer_is_a_loop_over_steps_and_examples():
    split = Split()
    found = AdversarialTransfer(attack=ATTACK, sources=["teacher", "b"])(NETS, split)
    for source in ("teacher", "b"):
        fooled = {name: 0 for name in NETS}
        for image, label in zip(split.inputs, split.labels, strict=True):
            moved, ball = image, 0.3 / split.std[0]
            for _ in range(4):
                moved = moved.detach().requires_grad_()
                loss = F.cross_entropy(NETS[source](moved[None]).logits, label[None])
                step = moved.detach() + torch.autograd.grad(loss, moved)[0].sign() * 0.1 / split.std[0]
                low, high = (0 - split.mean[0]) / split.std[0], (1 - split.mean[0]) / split.std[0]
                moved = step.clamp(image - ball, image + ball).clamp(low, high)
            if guess(NETS[source], moved) != guess(NETS[source], image):
                for name, net in NETS.items():
                    fooled[name] += guess(net, moved) != guess(net, image)
        assert 0 < fooled["a"] < fooled[source] < EXAMPLES
        for name in NETS:
            of = EXAMPLES if name == source else fooled[source]
            assert found[name][f"by {source}"] == pytest.approx(fooled[name] / of)
    right = sum(guess(NETS["a"], x) == y for x, y in zip(split.inputs, split.labels.tolist(), strict=True))
    assert found["a"]["accuracy"] == right / EXAMPLES


def test_a_copy_of_the_source_is_fooled_whenever_the_source_is():
    found = AdversarialTransfer(attack=ATTACK, sources=["teacher"])({**NETS, "copy": NETS["teacher"]}, Split())
    assert found["copy"]["by teacher"] == 1.0


CHANGES = {
    "jitter": ColorJitter(brightness=0.9, contrast=0.9, saturation=0.9, hue=0.5),
    "crop": RandomCrop(scale=0.5),
    "shift": RandomShift(pixels=3),
}


def test_invariance_compares_each_prediction_before_and_after_the_change():
    split = Split()
    found = Invariance(changes=CHANGES, seed=4)(NETS, split)
    for change, of in CHANGES.items():
        g = generator(4, "invariance", change)
        moved = torch.cat([of.change(split.values[rows], g) for rows in torch.arange(EXAMPLES).split(5)])
        moved = (moved - split.mean) / split.std
        for name, net in NETS.items():
            same = sum(guess(net, x) == guess(net, y) for x, y in zip(split.inputs, moved, strict=True))
            assert found[name][f"under {change}"] == same / EXAMPLES
    assert any(row[f"under {change}"] < 1 for row in found.values() for change in CHANGES)


def test_a_network_that_ignores_its_inputs_is_invariant():
    class Constant(nn.Module):
        def forward(self, inputs: Tensor) -> Outputs:
            return Outputs(torch.tensor([[1.0, 0, 0, 0]]).expand(len(inputs), 4))

    found = Invariance(changes=CHANGES, seed=0)({"constant": Constant(), "a": NETS["a"]}, Split())
    assert all(found["constant"][f"under {change}"] == 1.0 for change in CHANGES)


def test_cue_conflicts_are_counted_by_the_class_of_phase_and_of_amplitude():
    split = Split()

    class Oracle(nn.Module):
        """Knows each image's phases (of the shape) or amplitudes (of the texture), and says its class."""

        def __init__(self, part: str):
            super().__init__()
            self.part = part

        def forward(self, inputs: Tensor) -> Outputs:
            def kept(images: Tensor) -> Tensor:
                spectrum = torch.fft.rfft2(images)
                return spectrum / spectrum.abs().clamp(min=1e-9) if self.part == "shape" else spectrum.abs()

            given = kept(inputs * split.std + split.mean).flatten(1)
            known = kept(split.values).flatten(1)
            nearest = (given[:, None] - known[None]).abs().sum(2).argmin(1)
            return Outputs(F.one_hot(split.labels[nearest], CLASSES).double())

    found = CueConflicts(seed=0)({"shape": Oracle("shape"), "texture": Oracle("texture"), "a": NETS["a"]}, split)
    # clamping to [0, 1] disturbs few of the images
    assert found["shape"]["shape bias"] > 0.8 and found["texture"]["shape bias"] < 0.2
    for name in ("shape", "texture", "a"):
        shape, texture = found[name]["shape"], found[name]["texture"]
        assert found[name]["shape bias"] == pytest.approx(shape / (shape + texture)) and shape + texture <= 1
    assert found["shape / texture"]["agreement"] == found["texture / shape"]["agreement"] < 0.3


def test_groups_are_counted_apart():
    split = Split()
    found = Groups(target="group", names=["first", "second"])(NETS, split)
    for name, net in NETS.items():
        accuracy = []
        for number, group in enumerate(("first", "second")):
            rows = [i for i in range(EXAMPLES) if int(split.groups[i]) == number]
            accuracy.append(sum(guess(net, split.inputs[i]) == int(split.labels[i]) for i in rows) / len(rows))
            assert found[name][group] == accuracy[-1]
        assert found[name]["spread"] == max(accuracy) - min(accuracy)
    with pytest.raises(UserError, match="has the groups 0 to 1, but there are 1 names"):
        Groups(target="group", names=["all"])(NETS, split)


def test_region_overlap_is_a_loop_over_planes_and_points():
    split = Split()
    found = RegionOverlap(planes=3, points=4, margin=0.5, seed=2)(NETS, split)
    g, same, points = generator(2, "planes"), dict.fromkeys(permutations(NETS, 2), 0), 0
    for _ in range(3):
        x, y, z = (split.inputs[i] for i in torch.randperm(EXAMPLES, generator=g)[:3])
        first = y - x
        along = float(((z - x) * first).sum() / (first * first).sum())
        second = (z - x) - along * first
        low, high = min(0, along), max(1, along)
        for j in range(4):
            for i in range(4):
                a = low - 0.5 * (high - low) + 2 * (high - low) * i / 3
                point = x + a * first + (-0.5 + 2 * j / 3) * second
                points += 1
                for one, other in same:
                    same[one, other] += guess(NETS[one], point) == guess(NETS[other], point)
    for (one, other), count in same.items():
        assert found[pair(one, other)]["overlap"] == pytest.approx(count / points)
    assert 0 < found["a / b"]["overlap"] < 1


def test_a_plane_contains_its_three_examples():
    g = torch.Generator().manual_seed(0)
    corners = torch.randn(3, 2, 5, generator=g, dtype=torch.float64)
    grid = plane(corners, 7, 0.0).flatten(1)
    flat = corners.flatten(1)
    # a plane: three examples and any point have rank 2 around the first
    assert int(torch.linalg.matrix_rank(torch.cat([grid, flat]) - flat[0])) == 2
    low, high = grid.amin(0), grid.amax(0)
    assert bool(((flat >= low - 1e-9) & (flat <= high + 1e-9)).all())


def test_layer_similarity_is_cka_of_each_pair_of_layers():
    split = Split()
    found = LayerSimilarity(teacher="teacher", roles=["stage1", "pooled"])(NETS, split)

    def unbiased(k: Tensor, m: Tensor) -> float:
        n = len(k)
        k, m = k - torch.diag(k.diag()), m - torch.diag(m.diag())
        first = (k @ m).trace() + k.sum() * m.sum() / (n - 1) / (n - 2) - 2 / (n - 2) * (k @ m).sum()
        return float(first.detach()) / n / (n - 3)

    def gram(net: nn.Module, role: str) -> Tensor:
        feature = net(split.inputs).features[role]
        x = feature.mean((2, 3)) if feature.ndim == 4 else feature
        return x @ x.T

    for name in ("a", "b"):
        for ours in ("stage1", "pooled"):
            for theirs in ("stage1", "pooled"):
                k, m = gram(NETS[name], ours), gram(NETS["teacher"], theirs)
                value = max(0.0, unbiased(k, m) / math.sqrt(unbiased(k, k) * unbiased(m, m)))
                assert found[f"{name}, {ours}"][theirs] == pytest.approx(value, abs=1e-9)
        same = [found[f"{name}, {role}"][role] for role in ("stage1", "pooled")]
        assert found[name]["same layer"] == pytest.approx(sum(same) / 2)


def test_the_loss_plane_is_the_loss_of_networks_with_summed_weights(tmp_path):
    split = Split()
    measure = LossPlane(corners=["teacher", "a", "b"], temperature=2.0, points=3, margin=0.2, steps=3)

    def loss(weights: dict[str, float]) -> float:
        net = Conv(0)
        net.centre = NETS["teacher"].centre  # no weight, so it is the teacher's throughout
        with torch.no_grad():
            for name in ("conv", "fc"):
                getattr(net, name).copy_(sum(w * getattr(NETS[of], name) for of, w in weights.items()))
            q, p = (n(split.inputs).logits.div(2).softmax(1) for n in (net, NETS["teacher"]))
        return 4 * float((p * (p / q).log()).sum(1).mean())

    nets = {name: deepcopy(net) for name, net in NETS.items()}
    for net in nets.values():
        net.centre = NETS["teacher"].centre
    found = measure(nets, split)
    assert found["teacher"]["loss"] == pytest.approx(0, abs=1e-12) and found["teacher"]["agreement"] == 1.0
    assert found["a"]["loss"] == pytest.approx(loss({"a": 1.0}))
    for one, other in (("teacher", "a"), ("teacher", "b"), ("a", "b")):
        inner = [loss({one: 1 - t, other: t}) for t in (0.25, 0.5, 0.75)]
        ends = max(loss({one: 1.0}), loss({other: 1.0}))
        assert found[pair(one, other)]["barrier"] == pytest.approx(max(inner) - ends)
        squares = sum(((getattr(NETS[one], n) - getattr(NETS[other], n)) ** 2).sum() for n in ("conv", "fc"))
        assert found[pair(one, other)]["distance"] == pytest.approx(float(squares) ** 0.5)
    measure.draw(NETS, split, tmp_path / "plane.png")
    assert matplotlib.image.imread(tmp_path / "plane.png").std() > 0.05
    with pytest.raises(UserError, match="are of different architectures"):
        measure({**NETS, "b": Conv(3, width=5)}, split)


def test_measurements_leave_the_networks_as_they_were():
    before = {name: [p.clone() for p in net.parameters()] for name, net in NETS.items()}
    LossPlane(corners=["teacher", "a", "b"], temperature=1.0, points=2, margin=0.1, steps=1)(NETS, Split())
    AdversarialTransfer(attack=ATTACK, sources=["a"])(NETS, Split())
    for name, net in NETS.items():
        assert all(torch.equal(p, q) and p.grad is None for p, q in zip(net.parameters(), before[name], strict=True))


def test_each_measurement_is_one_and_the_plane_alone_is_drawn():
    each = [Groups(target="g", names=["x"]), CueConflicts(seed=0), LayerSimilarity(teacher="t", roles=["r"])]
    assert all(isinstance(measure, Measurement) and not isinstance(measure, Drawn) for measure in each)
    assert isinstance(LossPlane(corners=[], temperature=1.0, points=1, margin=0.0, steps=1), Drawn)
