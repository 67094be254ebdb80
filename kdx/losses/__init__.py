"""Losses, one paper a file: pure functions that return a value per example, and a thin term around each."""
