"""The parts of a composed distiller, and the combinations that cannot be written.

A combination is refused where its value does not depend on the student, so that it has no gradient, or where it equals
another, simpler one. Every other combination has its minimum where the student equals the teacher.
"""

from dataclasses import dataclass
from typing import Literal

Attention = Literal["none", "spatial", "channel", "energy", "mask"]
Scope = Literal["none", "pool2", "pool4", "patches2", "patches4", "channels", "examples"]
Normalise = Literal[
    "none",
    "flatten",
    "by_channel",
    "unit",
    "unit_channels",
    "unit_positions",
    "unit_examples",
    "softmax_channels",
    "softmax_positions",
    "standardise",
    "min_max",
]
Distance = Literal["l1", "mse", "smooth_l1", "euclidean", "cosine", "pearson", "pearson_examples", "pearson_both", "kl"]

SOFTMAX = ("softmax_channels", "softmax_positions")
ALONG_POSITIONS = ("by_channel", "unit_positions", "softmax_positions")
ALONG_BOTH = ("flatten", "unit")
LAYOUTS = ("flatten", "by_channel")  # they only choose the axis of the distance
AXIS_FREE = ("l1", "mse", "smooth_l1", "pearson_examples")  # distances for which that axis does not matter
SMALLEST_AXIS = {"cosine": 2, "pearson": 3, "pearson_both": 3, "kl": 2}
GRID_ONLY = ("pool2", "pool4", "patches2", "patches4")
BATCH_DISTANCES = ("pearson_examples", "pearson_both")
BATCH_NORMALISE = ("unit_examples", "standardise")


@dataclass(frozen=True, kw_only=True)
class Chain:
    """Transforms, distance and temperature of a distiller.

    Attributes:
        attention: First slot: weights or removes positions and channels.
        scope: Second slot: the units that are compared, such as patches or pairs of examples.
        normalise: Third slot: the scale of the numbers, and the axis along which the distance compares them.
        distance: The distance.
        temperature: T of the softmax; None where there is none.
    """

    attention: Attention
    scope: Scope
    normalise: Normalise
    distance: Distance
    temperature: float | None

    @property
    def softmax(self) -> bool:
        return self.normalise in SOFTMAX

    @property
    def relates_examples(self) -> bool:
        """Whether the value of an example depends on other examples of the batch."""
        return self.scope == "examples" or self.normalise in BATCH_NORMALISE or self.distance in BATCH_DISTANCES

    @property
    def compares_channels(self) -> bool:
        """Whether both sides need the same channels."""
        return self.attention != "energy" and self.scope != "examples"

    @property
    def compares_positions(self) -> bool:
        """Whether both sides need the same height and width."""
        return self.scope not in ("examples", "channels") or self.attention == "mask"


def wrong(chain: Chain) -> str | None:
    """Why a chain cannot be written for any feature; None if it can.

    Example:
        >>> wrong(Chain(attention="none", scope="none", normalise="none", distance="kl", temperature=None))
        'distance=kl compares distributions: normalise must be softmax_channels or softmax_positions'
    """
    a, s, n, d = chain.attention, chain.scope, chain.normalise, chain.distance
    if chain.softmax != (chain.temperature is not None):
        need = "needs a temperature" if chain.softmax else "has no softmax, so temperature must be null"
        return f"normalise={n} {need}"
    if chain.temperature is not None and not chain.temperature > 0:
        return f"temperature must be above 0, found {chain.temperature:g}"
    if d == "kl" and not chain.softmax:
        return f"distance=kl compares distributions: normalise must be {SOFTMAX[0]} or {SOFTMAX[1]}"
    if n in LAYOUTS and d in AXIS_FREE:
        return f"normalise={n} chooses the axis of the distance, and distance={d} has none: write normalise=none"
    if s == "examples" and a == "mask":
        return "attention=mask needs maps of one size, and scope=examples compares each network's own maps"
    if s == "examples" and n in ALONG_POSITIONS + ALONG_BOTH:
        return f"scope=examples leaves no positions for normalise={n}"
    if a == "energy" and s == "channels":
        return "attention=energy leaves one channel, and scope=channels compares pairs of channels"
    one_channel = a == "energy" and s in ("none", "pool2", "pool4")
    if one_channel and (n in ("unit_channels", "softmax_channels") or (n == "none" and d in SMALLEST_AXIS)):
        return f"attention=energy leaves one channel: normalise={n} with distance={d} has no gradient"
    return None


def wrong_for_vectors(chain: Chain) -> str | None:
    """Why a chain cannot be written for logits and other vectors; None if it can.

    Example:
        >>> parts = dict(attention="none", normalise="none", distance="mse", temperature=None)
        >>> wrong_for_vectors(Chain(scope="pool2", **parts))
        'scope=pool2 needs a map with positions'
    """
    if chain.attention not in ("none", "channel"):
        return f"attention={chain.attention} needs a map with positions"
    if chain.scope not in ("none", "examples"):
        return f"scope={chain.scope} needs a map with positions"
    if chain.normalise in ALONG_POSITIONS + ALONG_BOTH:
        return f"normalise={chain.normalise} needs a map with positions"
    return wrong(chain)


def wrong_for_size(chain: Chain, channels: int, grid: tuple[int, int]) -> str | None:
    """Why a chain cannot be used on maps of a size; None if it can.

    Args:
        chain: A chain that is not `wrong`.
        channels: Channels that are compared.
        grid: Height and width that are compared.

    Example:
        >>> parts = dict(attention="none", normalise="none", distance="mse", temperature=None)
        >>> wrong_for_size(Chain(scope="pool4", **parts), 8, (2, 2))
        'scope=pool4 cannot divide maps of 2 x 2'
    """
    height, width = grid
    if chain.scope in GRID_ONLY:
        cells = int(chain.scope[-1])
        if min(grid) < cells or (chain.scope.startswith("patches") and (height % cells or width % cells)):
            return f"scope={chain.scope} cannot divide maps of {height} x {width}"
    if chain.scope == "examples":
        return None  # the axis has the size of the batch
    channels = 1 if chain.attention == "energy" else channels
    positions = height * width
    if chain.scope.startswith("pool"):
        positions = (height // int(chain.scope[-1])) * (width // int(chain.scope[-1]))
    if chain.scope.startswith("patches"):
        parts = int(chain.scope[-1]) ** 2
        channels, positions = channels * positions // parts, parts
    if chain.scope == "channels":
        positions = channels
    along = positions if chain.normalise in ALONG_POSITIONS else channels
    along = channels * positions if chain.normalise in ALONG_BOTH else along
    least = 2 if chain.softmax or (chain.normalise.startswith("unit") and chain.normalise != "unit_examples") else 1
    least = max(least, next((size for kind, size in SMALLEST_AXIS.items() if kind == chain.distance), 1))
    if chain.attention == "spatial" and height * width < 2:
        return "attention=spatial needs more than one position"
    if chain.attention == "channel" and channels < 2:
        return "attention=channel needs more than one channel"
    if chain.normalise == "min_max" and channels * positions < 3:
        return f"normalise=min_max needs 3 or more numbers, and these features give {channels * positions}"
    if along < least:
        return (
            f"normalise={chain.normalise} with distance={chain.distance} compares rows of {least} or more numbers, "
            f"and these features give {along}"
        )
    return None
