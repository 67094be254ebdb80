"""A loss of one's own: the angle between the logits of student and teacher."""

from torch import Tensor

from kdx import Batch, Outputs, Progress, Term


def logit_cosine(student_logits: Tensor, teacher_logits: Tensor, scale: float) -> Tensor:
    """`scale (1 - cos(z_s, z_t))` of the logits, each centred over the classes.

    Args:
        student_logits: [B, C].
        teacher_logits: [B, C]; gets no gradient.
        scale: Factor of the distance.

    Returns:
        [B], from 0 to `2 scale`.
    """
    mine, theirs = (z - z.mean(1, keepdim=True) for z in (student_logits, teacher_logits.detach()))
    cosine = (mine * theirs).sum(1) / (mine.norm(dim=1) * theirs.norm(dim=1)).clamp(min=1e-12)
    return scale * (1 - cosine)


class LogitCosine(Term):
    """Binds `logit_cosine` to the logits of both networks.

    Args:
        scale: Factor of the distance; a key of the method's YAML file.
    """

    def __init__(self, scale: float):
        super().__init__()
        self.scale = scale

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch, progress: Progress) -> Tensor:
        return logit_cosine(student.logits, teacher.logits, self.scale)
