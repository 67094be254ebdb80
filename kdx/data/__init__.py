"""Data sets, their regimes, augmentation and loaders. All randomness is a function of (seed, epoch, index)."""
