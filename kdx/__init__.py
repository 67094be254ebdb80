"""kdx: config-driven experiments in knowledge distillation.

The public API is `kdx.__all__`. Its names are imported when they are first used, so that `import kdx` stays fast.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kdx.config.compose import compose as compose
    from kdx.core.errors import UserError as UserError
    from kdx.core.method import Evaluator as Evaluator
    from kdx.core.method import Method as Method
    from kdx.core.schedule import Progress as Progress
    from kdx.core.types import Batch as Batch
    from kdx.core.types import DataSpec as DataSpec
    from kdx.core.types import Outputs as Outputs
    from kdx.core.types import Shapes as Shapes
    from kdx.core.types import Step as Step
    from kdx.losses.base.term import Term as Term
    from kdx.runs.prepare import prepare as prepare
    from kdx.runs.results import Result as Result
    from kdx.runs.run import run as run

__version__ = "0.1.0"

_HOME = {
    "Batch": "kdx.core.types",
    "DataSpec": "kdx.core.types",
    "Evaluator": "kdx.core.method",
    "Method": "kdx.core.method",
    "Outputs": "kdx.core.types",
    "Progress": "kdx.core.schedule",
    "Result": "kdx.runs.results",
    "Shapes": "kdx.core.types",
    "Step": "kdx.core.types",
    "Term": "kdx.losses.base.term",
    "UserError": "kdx.core.errors",
    "compose": "kdx.config.compose",
    "prepare": "kdx.runs.prepare",
    "run": "kdx.runs.run",
}

__all__ = [*_HOME, "__version__"]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'kdx' has no attribute '{name}'")
    value = getattr(import_module(_HOME[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
