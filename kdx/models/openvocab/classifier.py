"""Class names as a classifier of regions, with weight transfer."""

from torch import Tensor, nn
from torch.nn import functional as F

from kdx.core.functional import unit

SLOPE = 0.1  # of the leaky ReLUs of the transfer


class TextClassifier(nn.Module):
    """Logits of regions: scaled cosines between the region's embedding and those of class names; background is 0.

    A linear projection W embeds a region. With weight transfer, W is frozen and another projection is computed from
    it, `W' = fc2(lrelu(fc1(W)))`, row by row, and a residual branch of the region's vector is added; `distilled` still
    uses W. The transfer's parameters exist in either case, so that weights travel between the stages of training.

    Args:
        text: Embeddings of the class names, [C, D].
        width: Length of a region's vector.
        scale: Factor of the cosines.
        weight_transfer: Whether regions are classified by the transferred projection.
        hidden: Width of the transfer's hidden layer.
        residual: Width of the residual branch's hidden layer.

    References:
        Rasheed et al., "Bridging the Gap between Object and Image-level Representations for Open-Vocabulary
        Detection", 2022. https://arxiv.org/abs/2207.03482

    Example:
        >>> net = TextClassifier(torch.eye(3, 8), 4, 50.0, False, 6, 6)
        >>> net(torch.randn(5, 4)).shape, float(net(torch.randn(5, 4))[:, 3].abs().max())
        (torch.Size([5, 4]), 0.0)
    """

    text: Tensor

    def __init__(self, text: Tensor, width: int, scale: float, weight_transfer: bool, hidden: int, residual: int):
        super().__init__()
        dimension = text.shape[1]
        self.register_buffer("text", text)
        self.scale, self.weight_transfer = scale, weight_transfer
        self.project = nn.Linear(width, dimension, bias=False)
        self.transfer = nn.Sequential(nn.Linear(width, hidden), nn.LeakyReLU(SLOPE), nn.Linear(hidden, width))
        self.branch = nn.Sequential(nn.Linear(width, residual), nn.LeakyReLU(SLOPE), nn.Linear(residual, dimension))
        self.project.requires_grad_(not weight_transfer)
        for part in (self.transfer, self.branch):
            part.requires_grad_(weight_transfer)

    def embed(self, vectors: Tensor) -> Tensor:
        """Embeddings [N, D], of length 1, that regions [N, width] are classified by."""
        if not self.weight_transfer:
            return self.distilled(vectors)
        return unit(F.linear(vectors, self.transfer(self.project.weight)) + self.branch(vectors), 1)

    def distilled(self, vectors: Tensor) -> Tensor:
        """Embeddings [N, D], of length 1, that are compared with those of a vision-language model."""
        return unit(self.project(vectors), 1)

    def forward(self, vectors: Tensor) -> Tensor:
        """Logits [N, C + 1] of regions [N, width]; the last column, of the background, is 0."""
        return F.pad(self.scale * self.embed(vectors) @ self.text.to(vectors.dtype).T, (0, 1))
