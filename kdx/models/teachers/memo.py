"""A teacher that caches its outputs for each view of the training set."""

from collections.abc import Sequence
from typing import Self

import numpy as np
import torch
from torch import Tensor, nn

from kdx.core.batch import Batch
from kdx.core.errors import UserError
from kdx.core.outputs import Outputs
from kdx.core.tree import Tree, map_tree
from kdx.models.teachers.black_box import BlackBoxTeacher
from kdx.models.teachers.memo_table import MemoTable

MIN_BATCH = 16  # smallest batch that the network runs on; below it, a CPU sums in another order


class Memo(nn.Module):
    """Look up a teacher's outputs by view, and run the teacher on the views that are missing.

    Pad-4 crop and flip make 9 * 9 * 2 = 162 views of an image, so the outputs form a finite table. The augmentation is
    the full one; no views are fixed in advance. In float32 on a CPU the result equals the teacher's bit for bit if the
    network gives an example the same bits in any batch of 16 or more: missing views are padded to a batch of 16, and
    batches below 16 bypass the table. Convolutions satisfy this, and so do linear layers, except narrow ones of few
    classes on some processors; the run's results record whether it held. In float16, each logit has 11 bits.

    CIFAR-100 takes 50,000 * 162 * 100 numbers, 1.6 GB in float16. After E epochs a share 1 - (161/162)^E of it is
    filled, so a run of 240 epochs saves 48 % of the teacher's forward passes, and four runs that share a memo 83 %.
    ImageNet takes 2 kB a view: 300 views of each image, by `augmentation.cycle=300`, are 770 GB, and 30 are 77 GB.
    Keeping only the largest logits would not do: at temperature 4 the tail carries what is distilled.

    Args:
        teacher: The teacher; evaluators get its own outputs.
        roles: Roles of the features to cache besides the logits; vectors [B, D].
        sizes: Number of logits, then the size of each feature in order.
        table: The cache, with a row for each view.
    """

    def __init__(self, teacher: nn.Module, roles: Sequence[str], sizes: Sequence[int], table: MemoTable):
        super().__init__()
        self.net = BlackBoxTeacher(teacher, roles)
        self.sizes, self.table = list(sizes), table
        self.hits, self.misses = 0, 0
        self.train(False)

    def train(self, mode: bool = True) -> Self:
        """Stay in evaluation mode."""
        return super().train(False)

    def forward(self, x: Tree) -> Outputs:
        """Run the teacher itself, for inputs that are not views of the training set; with all features."""
        return self.net.teacher(x)

    @torch.no_grad()
    def of(self, batch: Batch) -> Outputs:
        """The logits and the cached features of a training batch.

        Raises:
            ValueError: The batch has no view numbers.
        """
        if batch.view is None:
            raise ValueError("teacher.memo caches outputs by view, and this batch has no view numbers")
        if len(batch) < MIN_BATCH:
            self.misses += len(batch)
            return self.net(batch.inputs)
        rows = batch.view.numpy()
        values, known = self.table.read(rows)
        missing = np.flatnonzero(~known)
        self.hits += len(batch) - len(missing)
        self.misses += len(missing)
        if len(missing):
            fresh = self._run_teacher(batch.inputs, missing, np.flatnonzero(known))
            self.table.write(rows[missing], fresh)
            values[missing] = fresh
        logits, *features = torch.from_numpy(values).to(batch.device).float().split(self.sizes, 1)
        kept = {role: f.contiguous() for role, f in zip(self.net.roles, features, strict=True)}
        return Outputs(logits.contiguous(), kept)

    def _run_teacher(self, inputs: Tree, missing: np.ndarray, others: np.ndarray) -> np.ndarray:
        """Run the teacher on the missing inputs; returns the rows to store, [M, width]."""
        if len(others):
            chosen = np.concatenate([missing, others[: max(0, MIN_BATCH - len(missing))]])
            inputs = take_rows(inputs, torch.from_numpy(chosen))
        outputs = self.net(inputs)
        answers = torch.cat([outputs.logits, *outputs.features.values()], 1)[: len(missing)].float().cpu().numpy()
        with np.errstate(over="ignore"):  # reported below
            kept = answers.astype(self.table.dtype)
        if not np.isfinite(kept).all() and np.isfinite(answers).all():
            raise UserError("the teacher's outputs overflow float16; set teacher.memo_dtype=fp32")
        return kept


def take_rows(inputs: Tree, chosen: Tensor) -> Tree:
    """Select rows of a batch, in the batch's memory format."""
    return map_tree(lambda t: _rows(t, chosen), inputs)


def _rows(inputs: Tensor, chosen: Tensor) -> Tensor:
    last = inputs.dim() == 4 and inputs.is_contiguous(memory_format=torch.channels_last)
    some = inputs[chosen.to(inputs.device)]
    return some.contiguous(memory_format=torch.channels_last) if last else some
