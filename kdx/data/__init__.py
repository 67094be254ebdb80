"""Data sets, their regimes, augmentation and loaders. Everything random is a function of (seed, epoch, index)."""
