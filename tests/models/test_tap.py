import copy
import gc
import pickle
import weakref

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from kdx.models.tap import Tapped, plain
from kdx.models.teachers.frozen import Frozen


class Plain(nn.Module):
    """A plain network that overwrites `conv2`'s output in place."""

    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 4, 3, padding=1)
        self.bn = nn.BatchNorm2d(4)
        self.conv2 = nn.Conv2d(4, 5, 3, padding=1)
        self.act = nn.ReLU(inplace=True)
        self.fc = nn.Linear(5, 6)

    def forward(self, x):
        x = F.relu(self.bn(self.conv1(x)))
        return self.fc(self.act(self.conv2(x)).mean((2, 3)))


def tapped(**taps: str) -> Tapped:
    torch.manual_seed(0)
    return Tapped(Plain(), taps, head="fc", strict=True)


X = torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("train", [True, False])
def test_features_are_those_of_the_submodules_by_hand(train):
    model = tapped(stem="conv1", norm="bn", last="act").train(train)
    twin = copy.deepcopy(model.net)
    out = model(X)
    stem = twin.conv1(X)
    norm = twin.bn(stem)
    last = twin.conv2(norm.relu()).relu()
    assert torch.equal(out.features["stem"], stem)
    assert torch.equal(out.features["norm"], norm)
    assert torch.equal(out.features["last"], last)
    assert torch.equal(out.features["pooled"], last.mean((2, 3)))
    assert torch.equal(out.logits, twin.fc(last.mean((2, 3))))
    assert list(out.features) == ["stem", "norm", "last", "pooled"]


def test_a_feature_overwritten_in_place_is_copied():
    model = tapped(pre="conv2").eval()
    twin = copy.deepcopy(model.net)
    for _ in range(2):
        pre = model(X).features["pre"]
        assert (pre < 0).any()
        assert torch.equal(pre, twin.conv2(twin.bn(twin.conv1(X)).relu()))


def test_a_feature_overwritten_in_training_mode_is_copied_from_the_first_call_on():
    model = tapped(pre="conv2").train()
    assert (model(X).features["pre"] < 0).any()


def test_a_feature_that_only_training_overwrites_is_refused_until_it_is_known():
    class Fickle(Plain):
        def forward(self, x):
            y = self.conv2(F.relu(self.bn(self.conv1(x))))
            return self.fc((y.relu_() if self.training else y.relu()).mean((2, 3)))

    model = Tapped(Fickle(), {"pre": "conv2"}, head="fc", strict=True).train()
    with pytest.raises(ValueError, match="changes the feature pre in place"):
        model(X)
    assert (model(X).features["pre"] < 0).any()


def test_gradients_reach_every_parameter_through_logits_and_features():
    model = tapped(norm="bn")
    out = model(X)
    (out.logits.square().sum() + out.features["norm"].square().sum()).backward()
    assert all(p.grad is not None for p in model.parameters())


def test_a_wrong_path_names_close_ones():
    with pytest.raises(ValueError, match="no module 'conv3'; similar paths: conv[12], conv[12]"):
        tapped(stage1="conv3")
    with pytest.raises(ValueError, match="no module 'head'"):
        Tapped(Plain(), {}, head="head", strict=True)


def test_a_module_that_does_not_run_is_refused_or_left_out():
    net = Plain()
    net.spare = nn.Linear(2, 2)
    with pytest.raises(ValueError, match="module 'spare', tapped for 'x'"):
        Tapped(net, {"x": "spare"}, head="fc", strict=True)(X)
    assert list(Tapped(net, {"x": "spare"}, head="fc", strict=False)(X).features) == ["pooled", "last"]


def test_only_tapped_modules_carry_hooks():
    model = tapped(norm="bn")
    model(X)
    hooks = {n: len(m._forward_hooks) + len(m._forward_pre_hooks) for n, m in model.net.named_modules()}
    assert {n: k for n, k in hooks.items() if k} == {"bn": 1, "fc": 1}


def test_nothing_is_kept_between_calls():
    model = tapped(norm="bn")
    out = model(X)
    ref = weakref.ref(out.features["norm"])
    del out
    gc.collect()
    assert ref() is None


def test_an_error_inside_leaves_nothing_behind():
    model = tapped(norm="bn").eval()
    with pytest.raises(RuntimeError):
        model(torch.randn(1, 1, 8, 8))
    model.net(X)  # called directly, it records nothing
    assert not model._tape.found and not model._tape.open


@pytest.mark.parametrize("clone", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))], ids=["deepcopy", "pickle"])
def test_copies_work_and_are_independent(clone):
    model = tapped(norm="bn").eval()
    other = clone(model)
    before = model(X)
    assert torch.equal(other(X).features["norm"], before.features["norm"])
    nn.init.zeros_(other.net.bn.weight)
    assert (other(X).features["norm"] == 0).all()
    assert torch.equal(model(X).features["norm"], before.features["norm"])


def test_a_copy_of_the_plain_network_records_nothing():
    model = tapped(norm="bn").eval()
    alone = copy.deepcopy(model.net)
    assert torch.equal(alone(X), model(X).logits)
    assert not model._tape.found


def test_plain_takes_every_wrapper_off():
    model = tapped()
    assert plain(Frozen(model, own=None, given=None)) is model.net
    assert set(plain(model).state_dict()) == set(Plain().state_dict())
    assert model.head is model.net.fc


def test_works_frozen_and_in_inference_mode():
    teacher = Frozen(tapped(norm="bn"), own=None, given=None)
    assert not teacher(X).features["norm"].requires_grad
    with torch.inference_mode():
        assert teacher(X).features["norm"].shape == (4, 4, 8, 8)


@pytest.mark.parametrize(
    ("head", "inputs"), [(nn.Linear(6, 3), (2, 6)), (nn.Linear(6, 3), (2, 5, 6)), (nn.Conv2d(6, 3, 1), (2, 6, 4, 4))]
)
def test_pooled_is_a_vector_whatever_the_head_reads(head, inputs):
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.head = head

        def forward(self, x):
            y = self.head(x)
            return y.mean((2, 3)) if y.dim() == 4 else y.mean(1) if y.dim() == 3 else y

    x = torch.randn(inputs)
    out = Tapped(Net(), {}, head="head", strict=True)(x)
    assert out.features["pooled"].shape == (2, 6)
    assert out.logits.shape == (2, 3)
    if isinstance(head, nn.Linear):
        assert torch.allclose(head(out.features["pooled"]), out.logits, atol=1e-6)


def test_logits_of_a_pair_are_its_first_tensor_and_two_named_tensors_are_refused():
    class Pair(Plain):
        def forward(self, x):
            return super().forward(x), None

    class Named(Plain):
        def forward(self, x):
            return {"a": x, "b": super().forward(x)}

    pair = Pair().eval()
    assert torch.equal(Tapped(pair, {}, head="fc", strict=True)(X).logits, pair(X)[0])
    with pytest.raises(ValueError, match="Named returned a dict with a, b, which has no 'logits'"):
        Tapped(Named(), {}, head="fc", strict=True)(X)
    named = Named().eval()
    assert torch.equal(Tapped(named, {}, head="fc", strict=True, output="b")(X).logits, named(X)["b"])
