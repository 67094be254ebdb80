"""Every public function of losses, metrics and core has an example, and every example runs."""

import doctest
import importlib
import inspect
import pkgutil
from types import ModuleType

import pytest
import torch

import kdx.core
import kdx.losses
import kdx.metrics
from kdx.core.seed import get_rng_state, set_rng_state

ROOMS = (kdx.losses, kdx.metrics, kdx.core)
NAMES = [
    module.name
    for room in ROOMS
    for module in pkgutil.walk_packages(room.__path__, f"{room.__name__}.")
    if not module.ispkg
]


@pytest.fixture(params=NAMES)
def module(request: pytest.FixtureRequest) -> ModuleType:
    return importlib.import_module(request.param)


def test_the_examples_run(module: ModuleType):
    before = get_rng_state()
    for example in doctest.DocTestFinder().find(module, extraglobs={"torch": torch}):
        torch.manual_seed(0)
        result = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE).run(example)
        assert not result.failed, f"the example of {example.name} is wrong"
    set_rng_state(before)


def test_every_public_function_has_an_example(module: ModuleType):
    functions = [
        value
        for name, value in vars(module).items()
        if inspect.isfunction(inspect.unwrap(value) if callable(value) else value)
        and value.__module__ == module.__name__
        and not name.startswith("_")
    ]
    without = [function.__name__ for function in functions if ">>>" not in (function.__doc__ or "")]
    assert not without, f"{module.__file__}: add an Example to {', '.join(without)}"
