"""RandAugment and TrivialAugment against torchvision, operation by operation and sample by sample."""

import pytest
import torch

from kdx.data.views.ops import OPERATIONS, SIGNED, magnitudes, operate
from kdx.data.views.policy import BINS, Policy

# tolerated share and size of byte differences from processors that round differently: blends truncate
BLEND, EXACT = (0.002, 1), (0.0, 0)
BOUNDS = dict(zip(OPERATIONS, (*[EXACT] * 6, *[BLEND] * 4, *[EXACT] * 2, BLEND, EXACT), strict=True))
NEAREST = OPERATIONS[1:6]


def torchvision_tables(ranges: str):
    from torchvision.transforms import v2

    kind = v2.RandAugment if ranges == "narrow" else v2.TrivialAugmentWide
    names = {"AutoContrast": "autocontrast", "ShearX": "shear_x", "ShearY": "shear_y"}
    names |= {"TranslateX": "translate_x", "TranslateY": "translate_y"}
    transform = kind()
    table = {names.get(n, n.lower()): (n, *v) for n, v in kind._AUGMENTATION_SPACE.items()}
    return transform, table


def natural(count: int, channels: int, height: int, width: int) -> torch.Tensor:
    g = torch.Generator().manual_seed(0)
    coarse = torch.rand(count, channels, 5, 5, generator=g)
    smooth = torch.nn.functional.interpolate(coarse, size=(height, width), mode="bicubic")
    noisy = smooth + 0.05 * torch.randn(smooth.shape, generator=g)
    return (noisy * 200 + 20).clamp(0, 255).to(torch.uint8)


@pytest.mark.parametrize("ranges", ["narrow", "wide"])
@pytest.mark.parametrize("size", [(3, 32, 32), (1, 28, 28), (3, 17, 24)])
def test_each_operation_is_torchvisions_at_each_magnitude(ranges, size):
    transform, table = torchvision_tables(ranges)
    images = natural(62, *size)
    strengths = magnitudes(ranges, BINS, *size[1:])
    for number, name in enumerate(OPERATIONS):
        key, levels, signed = table[name]
        assert signed == bool(SIGNED[number]), name
        level = torch.arange(62) % BINS
        sign = torch.where(torch.arange(62) >= BINS, -1.0, 1.0) if signed else torch.ones(62)
        out = operate(images, torch.full((62,), number), strengths[number, level] * sign)
        theirs = levels(BINS, *size[1:])
        for i in range(62):
            magnitude = 0.0 if theirs is None else float(theirs[level[i]]) * float(sign[i])
            # a source halfway between two pixels may round to either, so a slightly different magnitude is also right
            near = (1, 1 - 1e-5, 1 + 1e-5) if name in NEAREST else (1,)
            expected = [
                transform._apply_image_or_video_transform(
                    images[i], key, magnitude * factor, interpolation=transform.interpolation, fill=transform._fill
                )
                for factor in near
            ]
            apart = torch.stack([(out[i].int() - e.int()).abs() for e in expected]).amin(0)
            share, most = BOUNDS[name]
            assert float((apart > 0).float().mean()) <= share, (name, i, magnitude)
            assert int(apart.max()) <= most, (name, i, magnitude)


def test_each_sample_has_its_own_operations():
    policy = Policy(ranges="narrow", num_ops=2, magnitude=9)
    image = natural(1, 3, 32, 32).permute(0, 2, 3, 1)
    out = policy.apply(image.expand(64, -1, -1, -1), 255, policy.draw(64, torch.Generator().manual_seed(0)))
    assert len(out.unique(dim=0)) > 40


def test_a_policy_is_its_operations_in_a_row():
    policy = Policy(ranges="wide", num_ops=3, magnitude=None)
    images = natural(32, 3, 16, 16)
    drawn = policy.draw(32, torch.Generator().manual_seed(1))
    out = policy.apply(images.permute(0, 2, 3, 1), 255, drawn).permute(0, 3, 1, 2)
    table = magnitudes("wide", BINS, 16, 16)
    for i in range(32):
        one = images[i : i + 1]
        for op, level, sign in drawn[i].long():
            strength = table[op, level] * (-1 if SIGNED[op] and sign else 1)
            one = operate(one, op[None], strength[None])
        assert torch.equal(one[0], out[i])


def test_draws_are_even():
    drawn = Policy(ranges="wide", num_ops=1, magnitude=None).draw(28000, torch.Generator().manual_seed(0))[:, 0].long()
    for column, kinds in ((0, len(OPERATIONS)), (1, BINS), (2, 2)):
        counts = drawn[:, column].bincount(minlength=kinds)
        assert len(counts) == kinds and float((counts / 28000 * kinds - 1).abs().max()) < 0.15
    fixed = Policy(ranges="narrow", num_ops=2, magnitude=9).draw(10, torch.Generator())
    assert bool((fixed[:, :, 1] == 9).all())


def test_a_magnitude_off_the_scale_is_reported():
    with pytest.raises(ValueError, match=r"0\.\.30, got 31"):
        Policy(ranges="narrow", num_ops=2, magnitude=31)
