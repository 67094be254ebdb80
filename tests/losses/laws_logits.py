"""Terms on logits that the laws hold for; a new one joins by a line."""

import logit_references as later
import loss_references as reference
import target_references as targets
from law_case import Case

from kdx.losses.base.weighting import Confidence, Constant, DropMembers, EntropyShare
from kdx.losses.logits.binary import BinaryCrossEntropy, BinaryKL, HardBinaryCrossEntropy
from kdx.losses.logits.cross_entropy import CrossEntropy
from kdx.losses.logits.ctkd import LearnedTemperature
from kdx.losses.logits.dist import DIST
from kdx.losses.logits.divergences import JensenShannon, ReverseKL, SymmetricKL, TotalVariation
from kdx.losses.logits.dkd import DKD
from kdx.losses.logits.ensemble import EachMember, EnsembleKD
from kdx.losses.logits.full_softmax import FullSoftmax
from kdx.losses.logits.kd import KD, SoftCrossEntropy
from kdx.losses.logits.labels import LabelCrossEntropy
from kdx.losses.logits.logit_mse import LogitMSE
from kdx.losses.logits.mlkd import ClassAlignment, InstanceAlignment, LeastConfident, SampleAlignment
from kdx.losses.logits.nkd import NKD
from kdx.losses.logits.ofa import OFA, OFAStages
from kdx.losses.logits.random_targets import RandomTargets
from kdx.losses.logits.regression import AbsoluteError, Huber, SquaredError
from kdx.losses.logits.tfkd import VirtualTeacher
from kdx.losses.logits.wsld import WSLD
from kdx.losses.wrappers.logit_standardization import LogitStandardization
from kdx.losses.wrappers.noise import NoisyLogits
from kdx.losses.wrappers.sdd import SDD

TERMS = {
    "ce": Case(lambda: CrossEntropy(0.0), reference.cross_entropy(0.0), ""),
    "ce smoothed": Case(lambda: CrossEntropy(0.1), reference.cross_entropy(0.1), ""),
    "kd": Case(lambda: KD(4.0, "batchmean"), reference.kd(4.0), "zero"),
    "kd mean": Case(lambda: KD(2.0, "mean"), reference.kd(2.0, divisor=5), "zero"),
    "soft ce": Case(lambda: SoftCrossEntropy(3.0, "batchmean"), reference.soft_cross_entropy(3.0), "minimal"),
    "dkd": Case(lambda: DKD(1.0, 8.0, 4.0), reference.dkd(1.0, 8.0, 4.0), "zero"),
    "tckd": Case(lambda: DKD(1.0, 0.0, 1.0), reference.dkd(1.0, 0.0, 1.0), "zero"),
    "nckd": Case(lambda: DKD(0.0, 1.0, 1.0), reference.dkd(0.0, 1.0, 1.0), "zero"),
    "ensemble of one": Case(lambda: EnsembleKD(4.0, "arithmetic", Constant(), "batchmean"), reference.kd(4.0), "zero"),
    "geometric ensemble of one": Case(
        lambda: EnsembleKD(2.0, "geometric", DropMembers(1), "mean"), reference.kd(2.0, divisor=5), "zero"
    ),
    "each of one": Case(
        lambda: EachMember(DKD(1.0, 8.0, 4.0), Confidence("cross_entropy"), "mean"),
        reference.dkd(1.0, 8.0, 4.0),
        "zero",
    ),
    "each of one over their number": Case(
        lambda: EachMember(KD(4.0, "batchmean"), EntropyShare(), "count"), reference.kd(4.0), "zero"
    ),
    "logit mse": Case(lambda: LogitMSE("half_sum"), reference.logit_mse(1 / 2), "zero"),
    "logit mse mean": Case(lambda: LogitMSE("mean"), reference.logit_mse(1 / 5), "zero"),
    "dist": Case(lambda: DIST(2.0, 1.0, 4.0), reference.dist(2.0, 1.0, 4.0), "zero"),
    "lskd": Case(lambda: LogitStandardization(KD(2.0, "batchmean")), reference.standardized_kd(2.0), "zero"),
    "noise of no size": Case(
        lambda: NoisyLogits(LogitMSE("half_sum"), "teacher", "multiplicative", "logit", "sample", 0.5, 0.0),
        reference.logit_mse(1 / 2),
        "zero",
    ),
    "nkd": Case(lambda: NKD(1.5, 2.0), reference.nkd(1.5, 2.0), ""),
    "reverse kl": Case(lambda: ReverseKL(4.0), later.reverse_kl(4.0), "zero"),
    "symmetric kl": Case(lambda: SymmetricKL(3.0), later.symmetric_kl(3.0), "zero"),
    "js": Case(lambda: JensenShannon(2.0), later.jensen_shannon(2.0), "zero"),
    "tv": Case(lambda: TotalVariation(2.0), later.total_variation(2.0), "zero"),
    "bce": Case(lambda: BinaryCrossEntropy(2.0, "mean"), later.binary_cross_entropy(2.0, divisor=5), ""),
    "bce sum": Case(lambda: BinaryCrossEntropy(1.0, "batchmean"), later.binary_cross_entropy(1.0, divisor=1), ""),
    "hard bce": Case(
        lambda: HardBinaryCrossEntropy(0.1, "mean"), targets.hard_binary_cross_entropy(0.1, divisor=5), ""
    ),
    "full softmax": Case(lambda: FullSoftmax([0, 1]), targets.full_softmax([0, 1]), ""),
    "binary kl": Case(lambda: BinaryKL(2.0, "mean"), later.binary_kl(2.0, divisor=5), "zero"),
    "mse": Case(lambda: SquaredError(), targets.squared_error, ""),
    "l1": Case(lambda: AbsoluteError(), targets.absolute_error, ""),
    "huber": Case(lambda: Huber(1.0), targets.huber(1.0), ""),
    "huber of small errors": Case(lambda: Huber(0.3), targets.huber(0.3), ""),
    "label ce": Case(lambda: LabelCrossEntropy("mean"), targets.label_cross_entropy(divisor=5), ""),
    "label ce sum": Case(lambda: LabelCrossEntropy("batchmean"), targets.label_cross_entropy(divisor=1), ""),
    "wsld": Case(lambda: WSLD(4.0), later.wsld(4.0), "", differentiable=False),
    "random targets": Case(lambda: RandomTargets(0.0, 0.15), later.random_targets(0.15), ""),
    "virtual teacher": Case(
        lambda: VirtualTeacher(0.9, 20.0, "distribution"), later.virtual_distribution(0.9, 20.0), ""
    ),
    "virtual teacher as shipped": Case(
        lambda: VirtualTeacher(0.99, 20.0, "probabilities"), later.virtual_probabilities(0.99, 20.0), ""
    ),
    "dkd ls": Case(
        lambda: LogitStandardization(DKD(1.0, 8.0, 2.0)), later.standardized(reference.dkd(1.0, 8.0, 2.0)), "zero"
    ),
    "ctkd": Case(
        lambda: KD(LearnedTemperature(1.0, 20.0, 1.0, 0.5), "batchmean"),
        reference.kd(1 + 20 * later.sigmoid(1)),
        "zero",
    ),
    "ofa soft ce": Case(lambda: OFA(1.0, 1.0), reference.soft_cross_entropy(1.0), "minimal"),
    "ofa": Case(lambda: OFA(1.5, 2.0), later.ofa(1.5, 2.0), ""),
    "ofa stages": Case(
        lambda: OFAStages({"stage2": 1.0, "stage3": 1.5}, 2.0),
        later.ofa_stages({"stage2": 1.0, "stage3": 1.5}, 2.0),
        "",
    ),
    "mlkd instances": Case(lambda: InstanceAlignment([4.0, 2.0]), later.instances([4.0, 2.0]), "zero"),
    "mlkd samples": Case(lambda: SampleAlignment([4.0, 2.0]), later.samples([4.0, 2.0]), "zero"),
    "mlkd classes": Case(lambda: ClassAlignment([4.0, 2.0], "all"), later.classes([4.0, 2.0], "all"), "zero"),
    "mlkd classes each": Case(lambda: ClassAlignment([4.0], "each"), later.classes([4.0], "each"), "zero"),
    "mlkd classes share": Case(lambda: ClassAlignment([4.0], "share"), later.classes([4.0], "share"), "zero"),
    "mlkd each": Case(
        lambda: LeastConfident(InstanceAlignment([3.0]), "each"),
        later.least_confident(later.instances([3.0]), "each"),
        "zero",
    ),
    "mlkd share": Case(
        lambda: LeastConfident(SampleAlignment([3.0]), "share"),
        later.least_confident(later.samples([3.0]), "share"),
        "zero",
    ),
    "mlkd ls": Case(
        lambda: LeastConfident(LogitStandardization(InstanceAlignment([2.0, 3.0])), "each"),
        later.least_confident(later.standardized(later.instances([2.0, 3.0])), "each"),
        "zero",
    ),
    "sdd": Case(
        lambda: SDD(KD(4.0, "batchmean"), [1, 2, 4], 2.0), later.sdd(later.kd_row(4.0), [1, 2, 4], 2.0), "zero"
    ),
    "sdd whole": Case(lambda: SDD(KD(2.0, "batchmean"), [1], 1.0), later.sdd(later.kd_row(2.0), [1], 1.0), "zero"),
}
