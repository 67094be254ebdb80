"""Mixup and CutMix: mixing the samples of a batch."""

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch

from kdx.core.batch import UNLABELLED, Batch
from kdx.core.ranges import NonNegative, Probability
from kdx.core.seed import derive


@dataclass(frozen=True, kw_only=True)
class Mixing:
    """Mix each sample with the one at the mirrored position of its batch, by timm's Mixup.

    Unlike the other augmentations, the result depends on the rest of the batch, so it is a function of
    (data seed, epoch, step) and of the batch size.

    Attributes:
        mixup_alpha: Parameter of the Beta distribution of mixup's mixing ratio; 0 turns mixup off.
        cutmix_alpha: Parameter of the Beta distribution of CutMix's area; 0 turns CutMix off.
        prob: Probability of mixing.
        switch_prob: Probability of CutMix instead of mixup if both are on.
        mode: Draw the choice and the ratio for each sample (`elem`) or once per batch (`batch`, as in the papers).
        label_smoothing: Share of each label spread evenly over the classes.

    References:
        H. Zhang, M. Cisse, Y. Dauphin, D. Lopez-Paz. mixup: Beyond Empirical Risk Minimization. ICLR 2018.
        https://arxiv.org/abs/1710.09412
        S. Yun et al. CutMix: Regularization Strategy to Train Strong Classifiers with Localizable Features.
        ICCV 2019. https://arxiv.org/abs/1905.04899
    """

    mixup_alpha: NonNegative
    cutmix_alpha: NonNegative
    prob: Probability
    switch_prob: Probability
    mode: Literal["elem", "batch"]
    label_smoothing: Probability

    def __post_init__(self) -> None:
        if not self.mixup_alpha and not self.cutmix_alpha:
            raise ValueError("mixing needs mixup_alpha or cutmix_alpha above 0; to turn mixing off, set mixing to null")

    def apply(self, batch: Batch, num_classes: int, seed: int, epoch: int, step: int) -> Batch:
        """Return the mixed batch, with soft labels [B, C]; `batch.inputs` is changed in place.

        Samples are mixed in pairs; in a batch of odd size the last one stays unchanged. A mixed sample is labelled if
        both samples of its pair are; otherwise its soft label is all zeros.
        """
        from timm.data.mixup import Mixup, mixup_target

        mixup = Mixup(
            mixup_alpha=self.mixup_alpha,
            cutmix_alpha=self.cutmix_alpha,
            prob=self.prob,
            switch_prob=self.switch_prob,
            mode=self.mode,
            label_smoothing=self.label_smoothing,
            num_classes=num_classes,
        )
        paired = len(batch) - len(batch) % 2
        known = batch.labels >= 0
        labels = batch.labels.clamp(min=0)
        soft = mixup_target(labels, num_classes, smoothing=self.label_smoothing)
        if paired:
            # timm draws from NumPy's global generator only
            before = np.random.get_state()
            np.random.seed(derive(seed, "mixing", epoch, step) % 2**32)
            try:
                _, soft[:paired] = mixup(batch.input_tensor[:paired], labels[:paired])
            finally:
                np.random.set_state(before)
            known[:paired] &= known[:paired].flip(0)
        dominant = torch.where(known, torch.argmax(soft, 1), UNLABELLED)
        mixed = batch.with_targets(labels=dominant, soft_labels=soft * known[:, None])
        return replace(mixed, view=None)
