"""Detectors: any backbone of timm with a feature pyramid, and torchvision's heads, behind `Outputs`."""
