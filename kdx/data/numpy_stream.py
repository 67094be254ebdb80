"""NumPy's global random stream, registered in `kdx.core.seed`: seeded, saved and restored with those of torch.

`kdx.engine.trainer` and `kdx.runs.build` import this module, so that parts of a run that draw from NumPy resume
exactly.
"""

from typing import Any

import numpy as np
import torch

from kdx.core.seed import register_stream


class NumpyStream:
    """The legacy global generator, which `np.random.rand` and its like use."""

    def seed(self, seed: int) -> None:
        np.random.seed(seed % 2**32)

    def get_state(self) -> Any:
        kind, keys, position, has_gauss, cached = np.random.get_state()
        return [str(kind), torch.from_numpy(np.asarray(keys).copy()), int(position), int(has_gauss), float(cached)]

    def set_state(self, state: Any) -> None:
        kind, keys, position, has_gauss, cached = state
        np.random.set_state((kind, keys.numpy(), position, has_gauss, cached))


register_stream("numpy", NumpyStream())
