"""kdx: config-driven experiments in knowledge distillation.

The public API is `kdx.__all__`. Its names are imported when they are first used, so that `import kdx` stays fast.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kdx.config.compose import compose as compose
    from kdx.core.batch import Batch as Batch
    from kdx.core.errors import UserError as UserError
    from kdx.core.method import Evaluator as Evaluator
    from kdx.core.method import Method as Method
    from kdx.core.outputs import Outputs as Outputs
    from kdx.core.outputs import Shapes as Shapes
    from kdx.core.outputs import Step as Step
    from kdx.core.schedule import Progress as Progress
    from kdx.core.spec import DataSpec as DataSpec
    from kdx.losses.base.term import Term as Term
    from kdx.runs.prepare import prepare as prepare
    from kdx.runs.results import Result as Result
    from kdx.runs.run import run as run

__version__ = "0.2.0.dev0"

_HOME = {
    "Batch": "kdx.core.batch",
    "DataSpec": "kdx.core.spec",
    "Evaluator": "kdx.core.method",
    "Method": "kdx.core.method",
    "Outputs": "kdx.core.outputs",
    "Progress": "kdx.core.schedule",
    "Result": "kdx.runs.results",
    "Shapes": "kdx.core.outputs",
    "Step": "kdx.core.outputs",
    "Term": "kdx.losses.base.term",
    "UserError": "kdx.core.errors",
    "compose": "kdx.config.compose",
    "prepare": "kdx.runs.prepare",
    "run": "kdx.runs.run",
}

__all__ = [
    "Batch",
    "DataSpec",
    "Evaluator",
    "Method",
    "Outputs",
    "Progress",
    "Result",
    "Shapes",
    "Step",
    "Term",
    "UserError",
    "__version__",
    "compose",
    "prepare",
    "run",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'kdx' has no attribute '{name}'")
    value = getattr(import_module(_HOME[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
