"""Digits in three domains, with made-up photographs."""

from kdx.data.sources.digits import Digits
from kdx.data.sources.domains import Domains
from kdx.data.sources.synthetic import Synthetic

REGIME = {"fraction": 1.0, "fraction_seed": 0, "val_fraction": 0.0, "val_seed": 0, "train_subset": 500}


def photos_of(shape: tuple[int, int, int]) -> Synthetic:
    """20 training and 13 test images of random colours."""
    settings = {"num_classes": 10, "train_size": 20, "test_size": 13, "noise": 0.25, "seed": 0}
    return Synthetic(name="synthetic", input_shape=shape, mean=(0.5,) * 3, std=(0.25,) * 3, **settings, **REGIME)


DIGITS = Digits(name="digits", num_classes=10, input_shape=(1, 8, 8), mean=(0.3,), std=(0.4,), **REGIME)
PHOTOS = photos_of((3, 12, 11))
ALL = Domains(
    name="digits_domains",
    num_classes=10,
    input_shape=(3, 8, 8),
    mean=(0.3,) * 3,
    std=(0.4,) * 3,
    source=DIGITS,
    domains=["grey", "colour", "blended"],
    shares=None,
    photos=PHOTOS,
    domain_seed=0,
    **REGIME,
)
