"""Terms on features and relations that the laws hold for; a new one joins by a line."""

import math

import feature_references as maps
import loss_references as reference
import torch
from law_case import TEACHER, Case
from torch import Tensor, nn

from kdx.core.outputs import Outputs, Shapes
from kdx.core.spec import DataSpec
from kdx.losses.base.pairs import Paired, Size
from kdx.losses.features.ab import AB
from kdx.losses.features.at import AT
from kdx.losses.features.catkd import CATKD
from kdx.losses.features.cwd import CWD
from kdx.losses.features.fitnet import FitNet
from kdx.losses.features.fsp import FSP
from kdx.losses.features.ft import FT
from kdx.losses.features.ickd import ICKD
from kdx.losses.features.kdsvd import KDSVD
from kdx.losses.features.map_mse import MapMSE
from kdx.losses.features.mgd import MGD
from kdx.losses.features.nst import NST
from kdx.losses.features.ofd import OFD
from kdx.losses.features.reviewkd import ReviewKD
from kdx.losses.features.semckd import SemCKD
from kdx.losses.features.skd import SKD
from kdx.losses.features.srrl import SRRL
from kdx.losses.features.vid import VID
from kdx.losses.logits.cross_entropy import CrossEntropy
from kdx.losses.relations.cc import CC, NeighbourCC
from kdx.losses.relations.crd import CRD
from kdx.losses.relations.pkt import PKT
from kdx.losses.relations.rkd import RKDAngle, RKDDistance
from kdx.losses.relations.sp import SP
from kdx.losses.wrappers.staged import Staged

STAGES = ["stage1", "stage2", "stage3"]
LEVELS = [*STAGES, "pooled"]


class Narrowed(Paired):
    """Shows a term that needs equal channels as many of the teacher's as the student has."""

    def maps(self, student: Shapes, teacher: Shapes | None) -> list[tuple[Size, Size]]:
        return [(a, (a[0], *b[1:])) for a, b in super().maps(student, teacher)]

    def features(self, student: Outputs, teacher: Outputs) -> list[tuple[Tensor, Tensor]]:
        return [(a, b[:, : a.shape[1]]) for a, b in super().features(student, teacher)]


class NarrowFSP(Narrowed, FSP): ...


class NarrowKDSVD(Narrowed, KDSVD): ...


class NarrowMSE(Narrowed, MapMSE): ...


class SettledCRD(CRD):
    """Every other class is a negative and the memory rests, so that nothing is left to chance."""

    def build(self, student: Shapes, teacher: Shapes | None, spec: DataSpec) -> None:
        super().build(student, teacher, spec)
        self.log_constants.fill_(math.log(300.0))
        self.eval()


class SecondStageFT(FT):
    """The paraphraser has had its turn, and the translator's batch norms rest: three of them on a dead map of one
    example would multiply its gradient by 3e7 before the loss has a say."""

    def build(self, student: Shapes, teacher: Shapes | None, spec: DataSpec) -> None:
        super().build(student, teacher, spec)
        self.translator.eval()

    def parameters(self, recurse: bool = True):
        return self.translator.parameters(recurse)


NORMS = {role: nn.BatchNorm2d(shape[0]) for role, shape in TEACHER.items() if len(shape) == 3}
for norm in NORMS.values():
    drawn = torch.Generator().manual_seed(1)
    norm.weight.data = torch.randn(norm.num_features, generator=drawn).double()
    norm.bias.data = torch.randn(norm.num_features, generator=drawn).double()


class NormedOFD(OFD):
    """Has the batch norms from here."""

    def attach(self, student: nn.Module, teacher: nn.Module | None) -> None:
        self._norms = (NORMS,)


TERMS = {
    "fitnet half": Case(lambda: FitNet("stage2", "stage2"), reference.fitnet("stage2"), ""),
    "fitnet equal": Case(lambda: FitNet("stage3", "stage3"), reference.fitnet("stage3"), ""),
    "fitnet vector": Case(lambda: FitNet("pooled", "pooled"), reference.fitnet("pooled"), ""),
    "at": Case(lambda: AT(STAGES, 2.0), reference.at(STAGES, 2.0), "zero"),
    "at power": Case(lambda: AT(["stage2"], 1.5), reference.at(["stage2"], 1.5), "zero"),
    "sp": Case(lambda: SP("stage3", "stage3"), reference.over_features("stage3", reference.sp), "zero"),
    "rkd distance": Case(
        lambda: RKDDistance("pooled", "pooled"), reference.over_features("pooled", reference.rkd_distance), "zero"
    ),
    "rkd angle": Case(
        lambda: RKDAngle("pooled", "pooled"), reference.over_features("pooled", reference.rkd_angle), "zero"
    ),
    "pkt": Case(lambda: PKT("pooled", "pooled"), reference.over_features("pooled", reference.pkt), "value"),
    "nst": Case(lambda: NST(STAGES), reference.nst(STAGES), "zero"),
    "vid": Case(lambda: VID(STAGES, 5.0), reference.vid(STAGES), ""),
    "vid as published": Case(lambda: VID(STAGES, 5.0, bias=False), reference.vid(STAGES), ""),
    "cc": Case(lambda: CC("pooled", "pooled", 0.4, 2), reference.over_features("pooled", maps.cc_rbf(0.4, 2)), "zero"),
    "cc neighbours": Case(lambda: NeighbourCC("pooled", "pooled", 3), maps.neighbour_cc, "", permutes=False),
    "crd": Case(lambda: SettledCRD("pooled", "pooled", 7, 1000, 0.3, 0.5), maps.crd(0.3, 80), ""),
    "fsp": Case(lambda: NarrowFSP(STAGES), maps.fsp(STAGES), "zero"),
    "ab": Case(lambda: AB(STAGES, 1.0), maps.ab(STAGES, 1.0), ""),
    "ofd": Case(lambda: NormedOFD(STAGES), maps.ofd(STAGES, NORMS), ""),
    "kdsvd": Case(lambda: NarrowKDSVD(STAGES, 1), maps.kdsvd(STAGES), "zero"),
    "reviewkd": Case(lambda: ReviewKD(LEVELS, 512), maps.reviewkd(LEVELS), ""),
    "catkd": Case(lambda: CATKD("final", "final", 2), maps.catkd(2), "zero"),
    "catkd as published": Case(
        lambda: CATKD("final", "final", 2, normalize=False, bias=False), maps.catkd(2, False, False), "zero"
    ),
    "ickd": Case(lambda: ICKD("stage2", "stage2"), maps.embedded_ickd("stage2"), ""),
    "ickd as published": Case(lambda: ICKD("stage2", "stage2", "torch"), maps.embedded_ickd("stage2"), ""),
    "cwd": Case(lambda: CWD("stage2", "stage2", 4.0), maps.each("stage2", maps.cwd(4.0)), ""),
    "cwd same": Case(lambda: CWD("final", "final", 4.0), maps.each("final", maps.cwd(4.0)), "zero"),
    "mgd": Case(lambda: MGD("stage2", "stage2", "channels", 0.0), maps.each("stage2", maps.mgd), ""),
    "semckd": Case(
        lambda: SemCKD(["stage1", "stage3"], STAGES, 8, 2, 0.5),
        maps.semckd(["stage1", "stage3"], STAGES, 8, 0.5),
        "",
        permutes=False,
    ),
    "skd": Case(lambda: SKD("stage2", "stage2", 8), maps.each("stage2", maps.skd(8)), "zero"),
    "skd of a grid": Case(lambda: SKD("stage1", "stage1", 2), maps.each("stage1", maps.skd(2)), "zero"),
    "srrl map": Case(lambda: SRRL("final", "pooled", 1.0, 2.0), maps.srrl("final", 1.0, 2.0), ""),
    "srrl vector": Case(lambda: SRRL("pooled", "pooled", 1.0, 1.0), maps.srrl("pooled", 1.0, 1.0), ""),
    "ft": Case(lambda: SecondStageFT("stage2", "stage2", 0.5, "attention", 0), maps.ft("stage2", "attention"), ""),
    "ft whole": Case(lambda: SecondStageFT("stage3", "stage3", 0.5, "whole", 0), maps.ft("stage3", "whole"), ""),
    "map mse": Case(lambda: NarrowMSE("stage2", "stage2"), maps.each("stage2", maps.map_mse, narrow=True), "zero"),
    "during": Case(lambda: Staged(CrossEntropy(0.0), 0, 2), reference.cross_entropy(0.0), ""),
}
