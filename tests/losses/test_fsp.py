import pytest
import torch
from law_case import CLASSES, SPEC

from kdx.core.outputs import Shapes
from kdx.losses.features.fsp import FSP, flow


def test_the_flow_of_a_map_into_itself_is_its_gram_matrix():
    maps = torch.randn(2, 3, 4, 4).double()
    flat = maps.flatten(2)
    torch.testing.assert_close(flow(maps, maps), flat @ flat.mT / 16)


def test_the_larger_map_is_pooled():
    shallow, deep = torch.randn(2, 3, 4, 4).double(), torch.randn(2, 5, 2, 2).double()
    pooled = torch.nn.functional.avg_pool2d(shallow, 2)
    assert flow(shallow, deep).shape == (2, 5, 3)
    torch.testing.assert_close(flow(shallow, deep), flow(pooled, deep))


def test_the_memory_format_does_not_matter():
    shallow, deep = torch.randn(2, 3, 4, 4).double(), torch.randn(2, 5, 4, 4).double()
    other = (x.to(memory_format=torch.channels_last) for x in (shallow, deep))
    torch.testing.assert_close(flow(*other), flow(shallow, deep))


def test_refuses_other_widths_and_a_single_map():
    with pytest.raises(ValueError, match="at least two roles"):
        FSP(["stage1"])
    student = Shapes((CLASSES,), {"stage1": (3, 4, 4), "stage2": (4, 2, 2)})
    teacher = Shapes((CLASSES,), {"stage1": (3, 4, 4), "stage2": (6, 2, 2)})
    with pytest.raises(ValueError, match="the student's 'stage2' has 4 and the teacher's 'stage2' 6"):
        FSP(["stage1", "stage2"]).build(student, teacher, SPEC)
