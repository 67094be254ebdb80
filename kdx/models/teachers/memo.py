"""A teacher that remembers what it said of each view."""

from collections.abc import Sequence
from typing import Self

import numpy as np
import torch
from torch import Tensor, nn

from kdx.core.errors import UserError
from kdx.core.types import Batch, Outputs
from kdx.models.teachers.limited import Limited
from kdx.models.teachers.memo_table import MemoTable

LEAST = 16  # examples that a network is run on at once; with fewer, a CPU's sums are taken in another order


class Memo(nn.Module):
    """Looks up what a teacher says of the views of a batch, and asks it about those it has not said yet.

    Pad-4 crop and flip make 9 * 9 * 2 = 162 views of an image, so the answers are a finite table: the same function
    of the same augmentation as the teacher itself, and not a few views frozen. In float32 on a CPU it is the same
    to the bit, where networks give an example the same bits in any batch of 16 or more: what is asked is padded to
    16, and batches below 16 go by the table. Convolutions do, and so do linear layers but for narrow ones of few
    classes on some processors; results say whether it held. In float16 it is the same to 11 bits of each logit.

    CIFAR-100 takes 50,000 * 162 * 100 numbers, 1.6 GB in float16; after E epochs a share 1 - (161/162)^E of it is
    filled, so a run of 240 epochs saves 48 % of its teacher's forwards, and four that share a memo 83 %. ImageNet takes
    2 kB a view: 300 views of each image, by `augmentation.cycle=300`, are 770 GB, and 30 are 77 GB. Keeping only
    the largest logits is no way out: at temperature 4 the tail is what is taught.

    Args:
        teacher: The teacher; evaluators get its own answers.
        roles: Features that are kept beside the logits; vectors [B, D].
        sizes: Number of logits, and of each feature in turn.
        table: Where answers are kept, with a row for each view.
    """

    def __init__(self, teacher: nn.Module, roles: Sequence[str], sizes: Sequence[int], table: MemoTable):
        super().__init__()
        self.net = Limited(teacher, roles)
        self.sizes, self.table = list(sizes), table
        self.found, self.asked = 0, 0
        self.train(False)

    def train(self, mode: bool = True) -> Self:
        """Does nothing: a teacher is in evaluation mode."""
        return super().train(False)

    def forward(self, x: Tensor) -> Outputs:
        """What the teacher says of inputs that are no view of the training set, all features included."""
        return self.net.teacher(x)

    @torch.no_grad()
    def of(self, batch: Batch) -> Outputs:
        """The logits and the kept features of a training batch.

        Raises:
            ValueError: The batch's inputs are not views by number.
        """
        if batch.view is None:
            raise ValueError("teacher.memo keeps answers by view, and these inputs are not views that have a number")
        if len(batch) < LEAST:
            self.asked += len(batch)
            return self.net(batch.inputs)
        rows = batch.view.numpy()
        values, known = self.table.read(rows)
        missing = np.flatnonzero(~known)
        self.found += len(batch) - len(missing)
        self.asked += len(missing)
        if len(missing):
            fresh = self._ask(batch.input_tensor, missing, np.flatnonzero(known))
            self.table.write(rows[missing], fresh)
            values[missing] = fresh
        logits, *features = torch.from_numpy(values).to(batch.device).float().split(self.sizes, 1)
        kept = {role: f.contiguous() for role, f in zip(self.net.roles, features, strict=True)}
        return Outputs(logits.contiguous(), kept)

    def _ask(self, inputs: Tensor, missing: np.ndarray, others: np.ndarray) -> np.ndarray:
        """The teacher's answers to some of the inputs, as they are kept, [M, width]."""
        if len(others):
            chosen = np.concatenate([missing, others[: max(0, LEAST - len(missing))]])
            inputs = some_of(inputs, torch.from_numpy(chosen))
        outputs = self.net(inputs)
        answers = torch.cat([outputs.logits, *outputs.features.values()], 1)[: len(missing)].float().cpu().numpy()
        with np.errstate(over="ignore"):  # told below
            kept = answers.astype(self.table.dtype)
        if not np.isfinite(kept).all() and np.isfinite(answers).all():
            raise UserError("the teacher's answers do not fit float16; say teacher.memo_dtype=fp32")
        return kept


def some_of(inputs: Tensor, chosen: Tensor) -> Tensor:
    """Examples by their places in the batch, laid out as the batch is."""
    last = inputs.dim() == 4 and inputs.is_contiguous(memory_format=torch.channels_last)
    some = inputs[chosen.to(inputs.device)]
    return some.contiguous(memory_format=torch.channels_last) if last else some
