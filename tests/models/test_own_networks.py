"""A plain module that returns a tensor serves as a network."""

import copy
import pickle

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kdx.core.outputs import Outputs
from kdx.core.spec import Images
from kdx.models.own import as_network, tapped_model
from kdx.models.probe import probe
from kdx.models.small import MLP
from kdx.models.tap import Tapped, plain
from kdx.models.weights import load_weights, save_weights

INPUTS = Images((3, 8, 8), (0.0,) * 3, (1.0,) * 3)
X = torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(1))


class Plain(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 4, 3, stride=2, padding=1)
        self.conv2 = nn.Conv2d(4, 5, 3, stride=2, padding=1)
        self.fc = nn.Linear(5, 6)

    def forward(self, x):
        return self.fc(F.relu(self.conv2(F.relu(self.conv1(x)))).mean((2, 3)))


class HeadFirst(Plain):
    """Its last linear layer in the order of definition is not its classifier."""

    def __init__(self):
        super().__init__()
        self.late = nn.Linear(3, 5)

    def forward(self, x):
        return self.fc(F.relu(self.late(x.mean((2, 3)))))


class Postprocessed(Plain):
    def forward(self, x):
        return 2 * super().forward(x)


class Function(nn.Module):
    def forward(self, x):
        return x.flatten(1)[:, :6]


class Aware(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(192, 6)

    def forward(self, x: Tensor) -> "Outputs":
        return Outputs(self.fc(x.flatten(1)))


class Unannotated(Aware):
    def forward(self, x):
        return Outputs(self.fc(x.flatten(1)))


@pytest.mark.parametrize("kind", [Plain, HeadFirst, Postprocessed, Function])
def test_logits_are_those_of_the_module(kind):
    torch.manual_seed(0)
    module = kind()
    network = as_network(copy.deepcopy(module))
    probe(network, INPUTS)
    for train in (True, False):
        assert torch.equal(network.train(train)(X).logits, module.train(train)(X))


def test_the_classifier_is_found_and_its_input_is_pooled():
    torch.manual_seed(0)
    network = as_network(Plain())
    out = network(X)
    assert network.head is plain(network).fc
    assert torch.equal(network.head(out.features["pooled"]), out.logits)
    assert list(out.features) == ["stage0", "stage1", "pooled"]
    assert torch.equal(out.features["stage0"], plain(network).conv1(X))


@pytest.mark.parametrize("kind", [HeadFirst, Postprocessed, Function])
def test_a_layer_whose_output_is_not_the_networks_is_no_classifier(kind):
    torch.manual_seed(0)
    network = as_network(kind())
    assert "pooled" not in probe(network, INPUTS).features
    assert getattr(network, "head", None) is None
    assert "pooled" not in network(X).features


def test_networks_that_return_outputs_are_left_alone():
    nets = [Aware(), MLP(hidden=[3], dropout=0.0, activation="relu", num_classes=6, input_shape=[3, 8, 8])]
    nets.append(Tapped(Plain(), {}, "fc", strict=True))
    assert all(as_network(net) is net for net in nets)


def test_outputs_without_an_annotation_are_refused_with_the_remedy():
    with pytest.raises(ValueError, match="annotate its forward as -> Outputs"):
        as_network(Unannotated())(X)


def test_what_is_no_module_is_refused():
    with pytest.raises(ValueError, match=r"must be a torch.nn.Module, .* gave a int"):
        as_network(3)  # pyright: ignore[reportArgumentType]


def test_weights_on_disk_are_the_plain_modules(tmp_path):
    torch.manual_seed(0)
    network, twin = as_network(Plain()), Plain()
    save_weights(tmp_path / "w.safetensors", network, {})
    load_weights(twin, tmp_path / "w.safetensors")
    assert torch.equal(twin(X), network(X).logits)
    load_weights(as_network(Plain()), tmp_path / "w.safetensors")


def test_a_copy_and_a_pickle_work_alike():
    torch.manual_seed(0)
    network = as_network(Plain())
    for other in (copy.deepcopy(network), pickle.loads(pickle.dumps(network))):
        assert torch.equal(other(X).features["pooled"], network(X).features["pooled"])


def test_taps_and_head_can_be_named():
    torch.manual_seed(0)
    network = tapped_model(HeadFirst(), {"stage1": "late"}, "fc")
    out = network(X)
    assert torch.equal(network.head(out.features["pooled"]), out.logits)
    assert torch.equal(out.features["stage1"].relu(), out.features["pooled"])
    with pytest.raises(ValueError, match="has no module 'fcc'; similar paths: fc"):
        tapped_model(Plain(), {}, "fcc")
