"""Networks as people write them: each has one property that training, export or resuming can stumble over."""

from collections import OrderedDict, namedtuple
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrizations, parametrize
from torch.nn.utils import weight_norm as old_weight_norm

CLASSES = 4


class Base(nn.Module):
    """An ordinary network for images [B, 1, 8, 8]."""

    def __init__(self, num_classes: int = CLASSES):
        super().__init__()
        self.conv = nn.Conv2d(1, 5, 3, stride=2, padding=1)
        self.fc = nn.Linear(5, num_classes)

    def body(self, x: Tensor) -> Tensor:
        return F.relu(self.conv(x)).mean((2, 3))

    def forward(self, x):
        return self.fc(self.body(x))


# ---- precision ----


class Half(Base):
    """Float16 inside, on float32 inputs."""

    def __init__(self):
        super().__init__()
        self.half()

    def forward(self, x):
        return super().forward(x.half())


class BFloat16(Base):
    def __init__(self):
        super().__init__()
        self.bfloat16()

    def forward(self, x):
        return super().forward(x.bfloat16())


class Float64(Base):
    def __init__(self):
        super().__init__()
        self.double()

    def forward(self, x):
        return super().forward(x.double())


class HalfWithoutCast(Base):
    def __init__(self):
        super().__init__()
        self.half()


class Complex(Base):
    """A complex filter whose response's magnitude is classified."""

    def __init__(self):
        super().__init__()
        self.filter = nn.Parameter(torch.randn(64, 6, dtype=torch.complex64))
        self.out = nn.Linear(6, CLASSES)

    def forward(self, x):
        return self.out((x.flatten(1).to(torch.complex64) @ self.filter).abs())


class ComplexLogits(Complex):
    def forward(self, x):
        return self.fc(self.body(x)).to(torch.complex64)


# ---- parameters ----


class Tied(nn.Module):
    """Two layers that share a matrix, and one that is used twice."""

    def __init__(self):
        super().__init__()
        self.up, self.again = nn.Linear(64, 64), nn.Linear(64, 64)
        self.again.weight = self.up.weight
        self.fc = nn.Linear(64, CLASSES)

    def forward(self, x):
        return self.fc(F.relu(self.again(F.relu(self.up(x.flatten(1))))))


class OldWeightNorm(Base):
    def __init__(self):
        super().__init__()
        self.fc = old_weight_norm(self.fc)


class WeightNorm(Base):
    def __init__(self):
        super().__init__()
        self.fc = parametrizations.weight_norm(self.fc)


class OldSpectralNorm(Base):
    def __init__(self):
        super().__init__()
        self.fc = nn.utils.spectral_norm(self.fc)


class SpectralNorm(Base):
    def __init__(self):
        super().__init__()
        self.fc = parametrizations.spectral_norm(self.fc)


class Symmetric(nn.Module):
    def forward(self, x):
        return x.triu() + x.triu(1).mT


class Parametrized(Base):
    def __init__(self):
        super().__init__()
        self.mix = nn.Linear(5, 5)
        parametrize.register_parametrization(self.mix, "weight", Symmetric())

    def forward(self, x):
        return self.fc(self.mix(self.body(x)))


class Lazy(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.norm = nn.LazyConv2d(5, 3, stride=2), nn.LazyBatchNorm2d()
        self.fc = nn.LazyLinear(CLASSES)

    def forward(self, x):
        return self.fc(F.relu(self.norm(self.conv(x))).flatten(1))


class Late(Base):
    """Creates a layer in its first forward."""

    def forward(self, x):
        x = self.body(x)
        if not hasattr(self, "late"):
            self.late = nn.Linear(x.shape[1], 5)
        return self.fc(self.late(x))


class Frozen(Base):
    def __init__(self):
        super().__init__()
        self.requires_grad_(False)


class FrozenBody(Base):
    """Only the classifier learns."""

    def __init__(self):
        super().__init__()
        self.conv.requires_grad_(False)


class NoParameters(nn.Module):
    def forward(self, x):
        return x.flatten(1)[:, :CLASSES]


class Detached(Base):
    def forward(self, x):
        return super().forward(x).detach()


class Meta(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(64, CLASSES, device="meta")

    def forward(self, x):
        return self.fc(x.flatten(1))


# ---- state ----


class CopiedState(Base):
    """A running mean in a buffer that the state dict leaves out."""

    def __init__(self):
        super().__init__()
        self.register_buffer("centre", torch.zeros(5), persistent=False)

    def forward(self, x):
        x = self.body(x)
        if self.training:
            self.centre = 0.9 * self.centre + 0.1 * x.detach().mean(0)
        return self.fc(x - self.centre)


class AttributeState(Base):
    """A running mean in a plain attribute."""

    def __init__(self):
        super().__init__()
        self.centre = torch.zeros(5)

    def forward(self, x):
        x = self.body(x)
        if self.training:
            self.centre = 0.9 * self.centre + 0.1 * x.detach().mean(0)
        return self.fc(x - self.centre)


class RandomProjection(Base):
    """A fixed random matrix that no file holds."""

    def __init__(self):
        super().__init__()
        self.projection = torch.randn(5, 5)

    def forward(self, x):
        return self.fc(self.body(x) @ self.projection)


class Counter(Base):
    """A counter in an attribute, which changes no output yet."""

    def __init__(self):
        super().__init__()
        self.calls = 0

    def forward(self, x):
        self.calls += self.training
        return super().forward(x) * (1.0 if self.calls < 1000 else 0.5)


class FixedBuffer(Base):
    """A constant that is recomputed, and so needs no file; and the last features, kept for display."""

    def __init__(self):
        super().__init__()
        self.register_buffer("weights", torch.linspace(0.5, 1, 5), persistent=False)

    def forward(self, x):
        self.shown = self.body(x)
        return self.fc(self.shown * self.weights)


class Infinite(Base):
    """A mask of -inf, as attention has it."""

    def __init__(self):
        super().__init__()
        self.register_buffer("mask", torch.zeros(5, 5).masked_fill(torch.ones(5, 5).triu(1).bool(), -torch.inf))

    def forward(self, x):
        return self.fc(self.body(x) @ self.mask.softmax(1))


class Integers(Base):
    """Integer and boolean buffers that training changes."""

    def __init__(self):
        super().__init__()
        self.register_buffer("seen", torch.zeros(CLASSES, dtype=torch.int64))
        self.register_buffer("used", torch.zeros(5, dtype=torch.bool))

    def forward(self, x):
        x = self.body(x)
        if self.training:
            self.used |= (x > 0).any(0)
            self.seen += len(x)
        return self.fc(x * (1 + 0.1 * self.used)) + 1e-4 * self.seen


class ExtraState(Base):
    """Extra state of a module, which is no tensor."""

    def __init__(self):
        super().__init__()
        self.record = {"steps": 0, "scale": 1.0, "order": [1, 2]}

    def get_extra_state(self):
        return self.record

    def set_extra_state(self, state):
        self.record = state

    def forward(self, x):
        if self.training:
            steps = self.record["steps"] + 1
            self.record = {**self.record, "steps": steps, "scale": 1.0 + 0.01 * steps}
        return super().forward(x) * self.record["scale"]


class ObjectState(Base):
    """Extra state that only pickle can hold."""

    def get_extra_state(self):
        return Base

    def set_extra_state(self, state):
        pass


class ExtraTensor(Base):
    def __init__(self):
        super().__init__()
        self.bias = torch.zeros(CLASSES)

    def get_extra_state(self):
        return self.bias

    def set_extra_state(self, state):
        self.bias = state

    def forward(self, x):
        out = super().forward(x)
        if self.training:
            self.bias = self.bias + 0.01 * out.detach().mean(0)
        return out - self.bias


# ---- modes and inputs ----


class ChangesInput(Base):
    def forward(self, x):
        return super().forward(x.mul_(0.5))


class ChangesData(Base):
    """In place, past the version counter."""

    def forward(self, x):
        x.data.add_(1.0)
        return super().forward(x)


class AlwaysDrops(Base):
    """Dropout that ignores eval()."""

    def forward(self, x):
        return self.fc(F.dropout(self.body(x), 0.5))


class IgnoresEval(Base):
    """A norm that stays in training mode."""

    def __init__(self):
        super().__init__()
        self.norm = nn.BatchNorm1d(5)

    def train(self, mode=True):
        return super().train(True)

    def forward(self, x):
        return self.fc(self.norm(self.body(x)))


class OtherWidthInTraining(Base):
    def forward(self, x):
        out = super().forward(x)
        return torch.cat([out, out], 1) if self.training else out


class FixedBatch(Base):
    def forward(self, x):
        return super().forward(x.view(16, 1, 8, 8))


class FixedSize(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(3 * 32 * 32, CLASSES)

    def forward(self, x):
        return self.fc(x.flatten(1))


class Channels(Base):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 5, 3)


class ManyOutputs(Base):
    def __init__(self):
        super().__init__(1000)


class FewOutputs(Base):
    def __init__(self):
        super().__init__(2)


class MapOfLogits(Base):
    def forward(self, x):
        return super().forward(x)[:, :, None, None]


# ---- outputs ----


class Pair(Base):
    def forward(self, x):
        x = self.body(x)
        return self.fc(x), x


class TupleInTraining(Base):
    """Like torchvision's GoogLeNet."""

    def __init__(self):
        super().__init__()
        self.auxiliary = nn.Linear(5, CLASSES)
        self.fc = nn.Linear(5, CLASSES)

    def forward(self, x):
        x = self.body(x)
        return (self.fc(x), self.auxiliary(x)) if self.training else self.fc(x)


class List(Base):
    def forward(self, x):
        return [super().forward(x)]


class Dict(Base):
    def forward(self, x):
        x = self.body(x)
        return {"embedding": x, "logits": self.fc(x)}


class Ordered(Base):
    """One tensor under another name."""

    def forward(self, x):
        return OrderedDict(out=super().forward(x))


class Vague(Base):
    """Two tensors, neither called logits."""

    def forward(self, x):
        x = self.body(x)
        return {"a": x, "b": self.fc(x)}


@dataclass
class ModelOutput:
    loss: Tensor | None
    logits: Tensor


class Answering(Base):
    """As language models return their outputs."""

    def forward(self, x):
        return ModelOutput(None, super().forward(x))


Named = namedtuple("Named", ["hidden", "logits"])


class NamedOutputs(Base):
    def forward(self, x):
        x = self.body(x)
        return Named(x, self.fc(x))


# ---- modules ----


class Nested(nn.Module):
    """Networks in a list, in a dict."""

    def __init__(self):
        super().__init__()
        self.experts = nn.ModuleList([Base(), nn.ModuleDict({"inner": Base()})["inner"]])

    def forward(self, x):
        return sum(expert(x) for expert in self.experts)


class CompiledPart(Base):
    def __init__(self):
        super().__init__()
        self.part = torch.compile(nn.Sequential(nn.Linear(5, 5), nn.ReLU()), backend="eager")

    def forward(self, x):
        return self.fc(self.part(self.body(x)))


class Scriptable(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(1, 5, 3, stride=2)
        self.fc = nn.Linear(5, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.conv(x).relu().mean([2, 3]))


def scripted() -> nn.Module:
    return torch.jit.script(Scriptable())


_shared: list[nn.Module] = []


def shared() -> nn.Module:
    """One module object at each call."""
    if not _shared:
        _shared.append(Base())
    return _shared[0]


_body = nn.Conv2d(1, 5, 3, stride=2, padding=1)


class SharesBody(Base):
    """All instances share one layer."""

    def __init__(self):
        super().__init__()
        self.conv = _body


class Broken(nn.Module):
    def __init__(self):
        raise KeyError("backbone")


class LargeLast(Base):
    """Batch norm of vectors, which fails on one example."""

    def __init__(self):
        super().__init__()
        self.norm = nn.BatchNorm1d(5)

    def forward(self, x):
        return self.fc(self.norm(self.body(x)))
