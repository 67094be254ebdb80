"""Runs started by an agent of W&B's sweeps: each `kdx train` must show one run to W&B's server."""

from kdx.config.identity import identity
from kdx.config.schema import RunConfig
from kdx.engine.record.log import recorded
from kdx.runs.build import make
from kdx.runs.export import folder_of
from kdx.runs.folder import RECORD
from kdx.runs.results import finished


def show_again(config: RunConfig) -> None:
    """Log the record and result of a finished run to W&B again; does nothing if the run is not finished."""
    result = None if config.fresh else finished(folder_of(config))
    if result is None:
        return
    record = result.folder / RECORD
    past = recorded(record) if record.exists() else []
    plain = config.plain()
    view = make(config.logger).view(result.folder, identity(plain), result.folder.name, plain, past)
    if view is not None:
        view.close({**result.data["metrics"]["last"], "folder": str(result.folder)})
