"""Augmentation: from stored bytes to normalised batches."""
