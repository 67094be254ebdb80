"""Defaults that follow the networks keep the identities of runs that wrote the same stages out."""

import pytest

from kdx.config.compose import compose
from kdx.config.identity import identity
from kdx.runs.prepare import examine

STAGES = ("stage1", "stage2", "stage3")
LISTS = {
    "at": ["method.terms.at.roles=[stage1,stage2,stage3]"],
    "ofa": ["method.terms.stages.exponents={stage1:1.0,stage2:1.0,stage3:1.0}"],
}


def named(*overrides: str) -> str:
    return identity(examine(compose(["dataset=synthetic", *overrides])))


@pytest.mark.parametrize("method", LISTS)
@pytest.mark.parametrize(("student", "same"), [("resnet20", True), ("vgg8", False)])
def test_a_default_is_the_list_of_three_for_three_stages_alone(method: str, student: str, same: bool):
    networks = (f"method={method}", f"student={student}", f"teacher={student.replace('8', '13')}")
    assert (named(*networks) == named(*networks, *LISTS[method])) is same


def test_a_schedule_for_all_stages_is_that_schedule_for_each():
    linear = "{_target_:kdx.core.schedule.Linear,start:1.0,end:2.0,until:10.0}"
    each = ",".join(f"{stage}:{linear}" for stage in STAGES)
    networks = ("method=ofa", "student=resnet20", "teacher=resnet56")
    one, written = (f"method.terms.stages.exponents={value}" for value in (linear, f"{{{each}}}"))
    assert named(*networks, one) == named(*networks, written) != named(*networks)
