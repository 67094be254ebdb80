"""Terms on features and relations that the laws hold for; a new one joins by a line."""

import loss_references as reference
from law_case import Case

from kdx.losses.at import AT
from kdx.losses.fitnet import FitNet
from kdx.losses.nst import NST
from kdx.losses.pkt import PKT
from kdx.losses.rkd import RKDAngle, RKDDistance
from kdx.losses.sp import SP
from kdx.losses.vid import VID

STAGES = ["stage1", "stage2", "stage3"]
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
}
