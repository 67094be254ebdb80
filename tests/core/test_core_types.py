import pytest
import torch

from kdx.core.batch import Batch
from kdx.core.outputs import Outputs, Shapes, find_role


def batch(size: int, soft: bool, views: int) -> Batch:
    rows = torch.arange(size)
    return Batch.of_classes(
        rows[:, None].float(),
        rows % 3,
        rows + 100,
        rows[:, None].float() + 0.5 if soft else None,
        tuple(rows[:, None] + 1000.0 * (v + 1) for v in range(views)),
        rows + 7 if soft else None,
    )


@pytest.mark.parametrize("size", [1, 5, 8])
@pytest.mark.parametrize("chunks", [1, 2, 3, 8])
@pytest.mark.parametrize("soft, views", [(False, 0), (True, 2)])
def test_chunks_are_the_batch_in_order(size: int, chunks: int, soft: bool, views: int):
    whole = batch(size, soft, views)
    parts = whole.chunk(chunks)
    sizes = [len(p) for p in parts]
    assert len(parts) == min(chunks, size) and sum(sizes) == size and max(sizes) - min(sizes) <= 1
    for field in ("inputs", "labels", "index"):
        assert torch.equal(torch.cat([getattr(p, field) for p in parts]), getattr(whole, field))
    assert all(len(p.views) == views and (p.soft_labels is not None) == soft for p in parts)
    for v in range(views):
        assert torch.equal(torch.cat([p.views[v] for p in parts]), whole.views[v])
    if soft:
        assert torch.equal(torch.cat([p.soft_labels for p in parts]), whole.soft_labels)
        assert torch.equal(torch.cat([p.view for p in parts]), whole.view)
    else:
        assert all(p.view is None for p in parts)
    assert (whole.to("cpu").view is None) != soft


def test_the_last_stage_is_the_deepest():
    assert find_role("last", ["stage10", "stage2", "pooled", "stage11.preact"], "student") == "stage10"
    assert find_role("last", ["last", "pooled"], "student") == "last"
    with pytest.raises(ValueError, match="teacher has no feature with role 'stage3'; it has: stage1, pooled"):
        find_role("stage3", ["stage1", "pooled"], "teacher")
    with pytest.raises(ValueError, match="it has: none"):
        find_role("last", [], "teacher")
    assert Shapes((5,), {"stage1": (4, 8, 8), "stage2": (8, 4, 4)}).feature("last") == (8, 4, 4)


def test_outputs_are_detached_and_raised_to_full_precision_throughout():
    leaf = torch.ones(2, 3, requires_grad=True)
    low = (leaf * 2).bfloat16()
    whole = Outputs(low, {"pooled": low, "index": torch.ones(2, dtype=torch.int64)}, (Outputs(low, {"pooled": low}),))
    full = whole.float()
    for outputs in (full, *full.members):
        assert outputs.logits.dtype == outputs.feature("pooled").dtype == torch.float32
        assert outputs.logits.requires_grad
    assert full.features["index"].dtype == torch.int64
    loose = full.detach()
    assert not any(o.logits.requires_grad or o.feature("pooled").requires_grad for o in (loose, *loose.members))


def test_a_feature_in_half_precision_is_converted_once_and_only_when_it_is_read():
    leaf = torch.randn(4, 3, requires_grad=True)
    low = {"read": leaf.bfloat16(), "left": leaf.bfloat16()}
    full = Outputs(leaf.bfloat16(), low).float()
    assert list(full.features) == ["read", "left"] and len(full.features) == 2
    with torch.no_grad():
        assert not full.feature("read").requires_grad  # and does not stay so
    first = full.feature("read")
    assert first.requires_grad and full.feature("read") is first and first.equal(low["read"].float())
    apart = full.detach()
    assert apart.feature("read").dtype == torch.float32 and not apart.feature("read").requires_grad
    assert apart.feature("left").equal(low["left"].float())
