"""Noise of a student's minibatch gradients, and how much of it a teacher's gradients remove."""

from torch import Tensor

from kdx.core.metric import Metric

DESCRIBED = (
    Metric(name="variance", label="gradient variance", digits=4, better="lower", shown=True),
    Metric(name="remaining", label="variance left", unit="%", digits=2, better="lower", shown=True),
    Metric(name="bias", label="squared bias", digits=4, better="lower", shown=True),
    Metric(name="correlation", label="noise correlation", digits=3, better="higher", shown=True),
    Metric(name="weight_noise", label="best weight by noise", digits=3, shown=True),
    Metric(name="weight_bound", label="best weight by bound", digits=4, shown=True),
    Metric(name="cosine", label="cosine to KD's gradient", digits=4, better="higher", shown=True),
)


def noise(student: Tensor, teacher: Tensor, weight: float, rate_times_curvature: float | None) -> dict[str, float]:
    """Facts of the noise of `student - weight * teacher` over minibatches.

    Args:
        student: Gradients at the student's weights, [n, P], one of each of n minibatches.
        teacher: Gradients at the teacher's weights on the same minibatches, [n, P].
        weight: Weight of the teacher's gradient.
        rate_times_curvature: Learning rate times the constant of strong convexity, for "weight_bound"; None leaves it
            out.

    Returns:
        "variance": mean |g - mean g|^2 of the student; "remaining": the share of it that stays in the combination;
        "bias": |mean h|^2 of the teacher; "correlation": of the two noises; "weight_noise": the weight c / E|h|^2, with
        c the covariance of the noises, which minimises the second moment of the combined noise; "weight_bound":
        c / (E|h|^2 + bias / rate_times_curvature), which minimises a bound on the distance to the optimum. Values
        without a definition (0 / 0) are left out.

    Example:
        >>> g = torch.tensor([[1.0, 0.0], [-1.0, 0.0]])
        >>> noise(g, g, 1.0, None)
        {'variance': 1.0, 'remaining': 0.0, 'bias': 0.0, 'correlation': 1.0, 'weight_noise': 1.0}
    """
    g, h = student.double(), teacher.double()
    mean = h.mean(0)
    a, b = g - g.mean(0), h - mean
    variance, other = (float(t.square().sum(1).mean()) for t in (a, b))
    shared, bias, second = float((a * b).sum(1).mean()), float(mean.square().sum()), float(h.square().sum(1).mean())
    found = {"variance": variance}
    if variance > 0:
        found["remaining"] = float((a - weight * b).square().sum(1).mean()) / variance
    found["bias"] = bias
    if variance > 0 and other > 0:
        found["correlation"] = shared / (variance * other) ** 0.5
    if second > 0:
        found["weight_noise"] = shared / second
        if rate_times_curvature is not None:
            found["weight_bound"] = shared / (second + bias / rate_times_curvature)
    return found
