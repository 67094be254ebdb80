"""The space of distillers: genotypes, random draws, crossover and mutation."""

import itertools
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from random import Random
from typing import Any

from kdx.config.schema import Node
from kdx.core.errors import UserError
from kdx.core.ranges import Positive
from kdx.losses.composed.rules import SOFTMAX, Attention, Chain, Distance, Normalise, Scope, wrong, wrong_for_vectors

LOGITS = "logits"
TRIES = 1000
SLOTS = ("input", "attention", "scope", "normalise", "distance", "temperature", "weight")


@dataclass(frozen=True, kw_only=True)
class Genotype:
    """A distiller as one option of each slot.

    Attributes:
        input: Name of an input of the space.
        attention, scope, normalise, distance, temperature: As in `kdx.losses.composed.rules.Chain`.
        weight: Weight of the term.
    """

    input: str
    attention: Attention
    scope: Scope
    normalise: Normalise
    distance: Distance
    temperature: float | None
    weight: float

    @property
    def chain(self) -> Chain:
        return Chain(**{field.name: getattr(self, field.name) for field in fields(Chain)})

    def __str__(self) -> str:
        at = "" if self.temperature is None else f" T={self.temperature:g}"
        steps = [self.input, self.attention, self.scope, self.normalise + at, self.distance]
        return f"{' > '.join(step for step in steps if step != 'none')} x {self.weight:g}"


@dataclass(frozen=True, kw_only=True)
class Space:
    """The options of each slot. Only combinations that can be written are drawn.

    Attributes:
        inputs: Roles of each input by its name; "logits" for the logits, null for all stages but the stem.
        vectors: Inputs without positions; transforms of positions are not drawn for them.
        attention, scope, normalise, distance: Options, see `kdx.losses.composed.rules`.
        temperature: Temperatures of a softmax.
        weight: Weights of the term; the cross-entropy with the labels has the weight 1.

    Raises:
        UserError: A slot has no option, or `vectors` names an unknown input.
    """

    inputs: Mapping[str, Sequence[str] | str | None]
    vectors: Sequence[str]
    attention: Sequence[Attention]
    scope: Sequence[Scope]
    normalise: Sequence[Normalise]
    distance: Sequence[Distance]
    temperature: Sequence[Positive]
    weight: Sequence[Positive]

    def __post_init__(self):
        for slot in SLOTS:
            if not self.options(slot):
                raise UserError(f"study.space.{'inputs' if slot == 'input' else slot} needs at least one option")
        if strange := sorted(set(self.vectors) - set(self.inputs)):
            raise UserError(f"study.space.vectors: '{strange[0]}' is no input; inputs: {', '.join(self.inputs)}")

    def options(self, slot: str) -> Sequence[Any]:
        """The options of a slot of a genotype."""
        return list(self.inputs) if slot == "input" else list(getattr(self, slot))

    def valid(self, genotype: Genotype) -> bool:
        """Whether the space has this genotype, and it can be written."""
        for slot in SLOTS:
            option = getattr(genotype, slot)
            if option not in self.options(slot) and not (slot == "temperature" and option is None):
                return False
        refuse = wrong_for_vectors if genotype.input in self.vectors else wrong
        return refuse(genotype.chain) is None

    def _combinations(self, name: str) -> Iterator[Genotype]:
        """Valid genotypes of an input, all with the same weight."""
        temperatures = [*self.temperature, None]
        slots = [temperatures if slot == "temperature" else self.options(slot) for slot in SLOTS[1:-1]]
        for values in itertools.product(*slots):
            made = Genotype(input=name, weight=self.weight[0], **dict(zip(SLOTS[1:], values, strict=False)))
            if self.valid(made):
                yield made

    def size(self) -> int:
        """Number of valid genotypes."""
        return len(self.weight) * sum(1 for name in self.inputs for _ in self._combinations(name))

    @property
    def complete(self) -> bool:
        """Whether each input has a valid combination."""
        return all(next(self._combinations(name), None) is not None for name in self.inputs)

    def draw(self, rng: Random) -> Genotype:
        """A valid genotype: an input, all alike, then any of the input's valid combinations.

        Raises:
            UserError: An input has no valid combination among 1,000 draws.
        """
        chosen = rng.choice(self.options("input"))
        for _ in range(TRIES):
            drawn = {slot: rng.choice(self.options(slot)) for slot in SLOTS[1:]}
            found = self.settled(Genotype(input=chosen, **drawn), rng)
            if self.valid(found):
                return found
        raise UserError("study.space: no combination of these options can be written; give the slots more options")

    def cross(self, one: Genotype, other: Genotype, rng: Random) -> Genotype:
        """A child with each slot from either parent; `one` where no such child is valid."""
        for _ in range(TRIES):
            child = self.settled(Genotype(**{slot: getattr(rng.choice((one, other)), slot) for slot in SLOTS}), rng)
            if self.valid(child):
                return child
        return one

    def mutate(self, genotype: Genotype, rng: Random) -> Genotype:
        """A valid neighbour: the input, one transform, the distance, the temperature and the weight are each drawn
        anew with probability 1/2, and at least one of them changes."""
        for _ in range(TRIES):
            transform = rng.choice(("attention", "scope", "normalise"))
            drawn = {
                slot: rng.choice(self.options(slot))
                for slot in ("input", transform, "distance", "temperature", "weight")
                if rng.random() < 0.5
            }
            child = self.settled(replace(genotype, **drawn), rng)
            if child != genotype and self.valid(child):
                return child
        return self.draw(rng)

    def settled(self, genotype: Genotype, rng: Random) -> Genotype:
        """The genotype with a temperature exactly where it has a softmax."""
        if genotype.normalise not in SOFTMAX:
            return replace(genotype, temperature=None)
        at = rng.choice(self.temperature) if genotype.temperature is None else genotype.temperature
        return replace(genotype, temperature=at)

    def term(self, genotype: Genotype) -> Node:
        """The node of the distiller's term."""
        roles = self.inputs[genotype.input]
        return {
            "_target_": "kdx.losses.composed.composed.Composed",
            "roles": roles if roles is None or isinstance(roles, str) else list(roles),
            "align": "none" if roles == LOGITS else "channels",
            **asdict(genotype.chain),
        }

    def overrides(self, genotype: Genotype) -> list[str]:
        """Overrides that give `method=kdzero` the distiller."""
        term = {key: value for key, value in self.term(genotype).items() if key != "_target_"}
        written = [f"method.terms.found.{key}={json.dumps(value)}" for key, value in term.items()]
        return [*written, f"method.weights.found={float(genotype.weight)}"]

    def method(self, genotype: Genotype) -> Node:
        """The node of a method with the distiller beside the labels."""
        return {
            "_target_": "kdx.methods.distill.Distill",
            "temperature": None,
            "terms": {
                "ce": {"_target_": "kdx.losses.logits.cross_entropy.CrossEntropy", "label_smoothing": 0.0},
                "found": self.term(genotype),
            },
            "weights": {"ce": 1.0, "found": float(genotype.weight)},
        }
