"""Networks that learn at the same time and from each other, without a teacher."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Literal

import torch
from torch import Tensor, nn

from kdx.core.batch import Batch
from kdx.core.errors import UserError
from kdx.core.method import Method
from kdx.core.outputs import Outputs, Shapes, Step, Turn
from kdx.core.ranges import PartialFraction, Positive
from kdx.core.schedule import Progress, Schedule, Weight
from kdx.core.spec import DataSpec
from kdx.core.tree import Tree
from kdx.losses.logits.cross_entropy import CrossEntropy
from kdx.losses.online.peer_term import PeerTerm
from kdx.methods.term_sum import check_names, temperature_report, temperatures_in_use
from kdx.models.branch import Branch, Branched
from kdx.models.probe import probe

Inputs = Literal["same", "own"]


class Mutual(Method):
    """Runs the student and its peers on the batch; each learns from the labels and from the others.

    With `shared`, the peers are branches of the student: their last stages run on the output of its first stages. The
    deliverable is the student alone, a plain network.

    In a joint step, or with one optimiser per network, all networks see the same outputs. In turns, each network sees
    the outputs of the already updated networks before it.

    Args:
        student: A network that returns `Outputs`: member 0, the deliverable.
        peers: Further networks, of any architecture with the student's classes.
        spec: Facts of the training data.
        exchange: The loss between the networks.
        weights: A number or a schedule for "ce", which is summed over the members, and for the exchange's terms.
        temperature: The temperature of the exchange; None for methods without one. A schedule is logged.
        label_smoothing: Share of the label's mass that is spread over all classes.
        shared: The last stage that all members share, such as "stage2" or "all_but_last"; None for whole networks.
        scale_trunk: Whether the gradient that enters the shared stages is divided by the number of members.
        inputs: "same" gives all members the same view of each example, "own" gives each its own view.

    Raises:
        UserError: There are no peers, weights and terms have different names, or the networks do not fit.

    References:
        Zhang, Xiang, Hospedales, Lu, "Deep Mutual Learning", 2018. https://arxiv.org/abs/1706.00384
    """

    uses_teacher = False
    frozen = ()
    has_peers = True

    def __init__(
        self,
        student: nn.Module,
        peers: Sequence[nn.Module],
        spec: DataSpec,
        exchange: PeerTerm,
        weights: Mapping[str, Weight],
        temperature: Positive | Schedule | None,
        label_smoothing: PartialFraction | Schedule,
        shared: str | None,
        scale_trunk: bool,
        inputs: Inputs,
    ):
        super().__init__()
        if not peers:
            raise UserError("mutual learning needs at least one peer, such as method.peers=[same]")
        check_names({"ce", *exchange.names}, weights)
        if scale_trunk and shared is None:
            raise UserError("scale_trunk divides the gradient of shared stages, but method.shared is null")
        if shared is not None and inputs == "own":
            raise UserError("members that share stages see the same inputs: choose method.inputs=same")
        self.student = student
        self.weights, self.temperatures = dict(weights), temperatures_in_use(temperature, {"exchange": exchange})
        self.scale_trunk, self.inputs = scale_trunk, inputs
        self.num_views = len(peers) + 1 if inputs == "own" else 1
        shapes = [probe(student, spec.inputs), *(probe(peer, spec.inputs) for peer in peers)]
        try:
            _same_classes(shapes)
            shared = shapes[0].inner_stages("student")[-1] if shared == "all_but_last" else shared
            if shared is not None:
                peers = [_branch(peer, shared, shapes[0], own) for peer, own in zip(peers, shapes[1:], strict=True)]
            exchange.build(shapes, shared, spec)
        except ValueError as error:
            raise UserError(f"these networks cannot learn from each other: {error}") from error
        self.shared = shared
        self.peers = nn.ModuleList(peers)
        self.exchange = exchange
        self.ce = CrossEntropy(label_smoothing=label_smoothing)

    def models(self) -> Mapping[str, nn.Module]:
        peers = [Branched(self.student, p) if isinstance(p, Branch) else p for p in self.peers]
        together = {"ensemble": PeerEnsemble(self)} if self.exchange.combines else {}
        return {"student": self.student, **{f"peer{i}": peer for i, peer in enumerate(peers, 1)}, **together}

    def parties(self) -> Mapping[str, Sequence[nn.Module]]:
        if self.shared is not None or any(p.requires_grad for p in self.exchange.parameters()):
            return {}
        return {"student": (self.student,), **{f"peer{i}": (peer,) for i, peer in enumerate(self.peers, 1)}}

    def outputs(self, inputs: Sequence[Tree]) -> list[Outputs]:
        """Outputs of each member for its inputs, in full precision."""
        student = self.student(inputs[0])
        if self.shared is None:
            return [student.float(), *(peer(x).float() for peer, x in zip(self.peers, inputs[1:], strict=True))]
        trunk = student.feature(self.shared)
        if self.scale_trunk and trunk.requires_grad:
            # the hook of a tensor that several branches read receives the sum of their gradients
            trunk.register_hook(lambda gradient: gradient / (len(self.peers) + 1))
        return [student.float(), *(branch(trunk).float() for branch in self.peers)]

    def forward(self, batch: Batch, progress: Progress) -> Step:
        members = self.outputs(self._inputs(batch))
        terms = self._terms(members, range(len(members)), batch, progress)
        return Step(terms, temperature_report(self.temperatures, progress), members[0].detach())

    def turns(self, batch: Batch, progress: Progress) -> Iterator[Turn]:
        inputs = self._inputs(batch)
        members = self.outputs(inputs)
        before = members[0].detach()
        networks = [self.student, *self.peers]
        for i, party in enumerate(self.parties()):
            seen = [member if j == i else member.detach() for j, member in enumerate(members)]
            terms = self._terms(seen, (i,), batch, progress)
            yield Turn(
                party, Step(terms) if i else Step(terms, temperature_report(self.temperatures, progress), before)
            )
            if i < len(self.peers):
                # batch norms have counted this batch already
                with torch.no_grad(), kept_buffers(networks[i]):
                    members[i] = networks[i](inputs[i]).float()

    def _inputs(self, batch: Batch) -> Sequence[Tree]:
        """The inputs of each member."""
        if self.inputs == "same":
            return [batch.inputs] * (len(self.peers) + 1)
        if len(batch.views) < len(self.peers):
            raise UserError(
                f"{len(self.peers) + 1} networks with method.inputs=own need as many views of each example, but the "
                f"augmentation makes {len(batch.views) + 1}; choose augmentation=two_views or two_shifts for two "
                "networks, or method.inputs=same"
            )
        return [batch.inputs, *batch.views[: len(self.peers)]]

    def _terms(
        self, members: Sequence[Outputs], learners: Sequence[int], batch: Batch, progress: Progress
    ) -> dict[str, Tensor]:
        with torch.autocast(batch.device.type, enabled=False):
            labels = [self.ce(members[i], members[i], batch, progress) for i in learners]
            values = {"ce": torch.stack(labels).sum(0), **self.exchange(members, learners, batch, progress)}
        return {name: value.mean() for name, value in values.items()}


class PeerEnsemble(nn.Module):
    """All members as one network, combined by their exchange; for evaluation."""

    def __init__(self, method: Mutual):
        super().__init__()
        self._method = (method,)  # not a submodule, which would be a cycle

    def forward(self, x: Tensor) -> Outputs:
        (method,) = self._method
        members = method.outputs([x] * (len(method.peers) + 1))
        return Outputs(method.exchange.ensemble(members), {}, tuple(members))


@contextmanager
def kept_buffers(net: nn.Module) -> Iterator[None]:
    """Restore a network's buffers after the block, which may run it in training mode."""
    before = [(buffer, buffer.clone()) for buffer in net.buffers()]
    try:
        yield
    finally:
        with torch.no_grad():
            for buffer, value in before:
                buffer.copy_(value)


def _same_classes(shapes: Sequence[Shapes]) -> None:
    for i, own in enumerate(shapes):
        if own.logits != shapes[0].logits:
            raise ValueError(f"peer{i} has {own.logits[-1]} classes and the student {shapes[0].logits[-1]}")


def _branch(peer: nn.Module, role: str, student: Shapes, own: Shapes) -> Branch:
    trunk, theirs = student.feature(role, "student"), own.feature(role, "peer")
    if trunk != theirs:
        raise ValueError(
            f"the student's '{role}' has the shape {trunk} and a peer's {theirs}; shared stages must have the same"
        )
    return Branch(peer, role, trunk)
