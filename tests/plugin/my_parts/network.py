"""A network of one's own: a plain module that returns a tensor and knows nothing of kdx."""

import torch
from torch import Tensor, nn


class PlainCNN(nn.Module):
    """Two convolutions, the mean over positions, a linear classifier.

    Args:
        width: Channels of both convolutions.
        num_classes: C.
        in_channels: Channels of the input.
    """

    def __init__(self, width: int, num_classes: int, in_channels: int):
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, width, 3, padding=1)
        self.conv2 = nn.Conv2d(width, width, 3, stride=2, padding=1)
        self.classifier = nn.Linear(width, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.conv2(torch.relu(self.conv1(x))))
        return self.classifier(x.mean((2, 3)))
