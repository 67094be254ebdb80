"""Augmentation: from stored bytes to a normalised batch."""
