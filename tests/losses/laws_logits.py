"""Terms on logits that the laws hold for; a new one joins by a line."""

import loss_references as reference
from law_case import Case

from kdx.losses.cross_entropy import CrossEntropy
from kdx.losses.dist import DIST
from kdx.losses.dkd import DKD
from kdx.losses.kd import KD, SoftCrossEntropy
from kdx.losses.logit_mse import LogitMSE
from kdx.losses.logit_standardization import LogitStandardization
from kdx.losses.nkd import NKD

TERMS = {
    "ce": Case(lambda: CrossEntropy(0.0), reference.cross_entropy(0.0), ""),
    "ce smoothed": Case(lambda: CrossEntropy(0.1), reference.cross_entropy(0.1), ""),
    "kd": Case(lambda: KD(4.0, "batchmean"), reference.kd(4.0), "zero"),
    "kd mean": Case(lambda: KD(2.0, "mean"), reference.kd(2.0, divisor=5), "zero"),
    "soft ce": Case(lambda: SoftCrossEntropy(3.0, "batchmean"), reference.soft_cross_entropy(3.0), "minimal"),
    "dkd": Case(lambda: DKD(1.0, 8.0, 4.0), reference.dkd(1.0, 8.0, 4.0), "zero"),
    "tckd": Case(lambda: DKD(1.0, 0.0, 1.0), reference.dkd(1.0, 0.0, 1.0), "zero"),
    "nckd": Case(lambda: DKD(0.0, 1.0, 1.0), reference.dkd(0.0, 1.0, 1.0), "zero"),
    "logit mse": Case(lambda: LogitMSE("half_sum"), reference.logit_mse(1 / 2), "zero"),
    "logit mse mean": Case(lambda: LogitMSE("mean"), reference.logit_mse(1 / 5), "zero"),
    "dist": Case(lambda: DIST(2.0, 1.0, 4.0), reference.dist(2.0, 1.0, 4.0), "zero"),
    "lskd": Case(lambda: LogitStandardization(KD(2.0, "batchmean")), reference.standardized_kd(2.0), "zero"),
    "nkd": Case(lambda: NKD(1.5, 2.0), reference.nkd(1.5, 2.0), ""),
}
