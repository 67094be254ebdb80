"""Losses between networks that learn at the same time."""
