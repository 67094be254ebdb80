"""Takes one training step on made-up examples, so that its errors appear before anything loads or trains."""

from typing import Any

from kdx.config.schema import RunConfig
from kdx.core.errors import UserError
from kdx.core.method import Method
from kdx.core.schedule import Progress
from kdx.core.spec import DataSpec
from kdx.data.views.augment import MultiView
from kdx.runs.build import Light
from kdx.runs.checks.cuda_graph import made_up
from kdx.runs.checks.networks import short_reason

STEPS_PER_EPOCH = 100  # of the hypothetical run


def check_step(config: RunConfig, light: Light, method: Method, update: Any, spec: DataSpec) -> None:
    """Take one step of the run's update.

    Args:
        config: Prepared.
        light: Its light parts.
        method: The method with its networks; the step changes it.
        update: The run's update of the method.
        spec: Facts of the training data.

    Raises:
        UserError: The step fails.
    """
    views = int(isinstance(light.augmentation, MultiView))
    epochs = float(light.settings.schedule_epochs or 1.0)
    try:
        update(made_up(spec, views), Progress(0, max(1, round(epochs * STEPS_PER_EPOCH)), epochs))
    except (UserError, ValueError) as error:
        raise UserError(f"a step of method={config.choices['method']} fails: {error}") from error
    except Exception as error:
        raise UserError(f"a step of method={config.choices['method']} fails: {short_reason(error)}") from error
    finally:
        method.zero_grad(set_to_none=True)
