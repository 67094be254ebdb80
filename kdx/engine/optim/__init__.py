"""Optimizer steps: gradients, updates, learning rates, weight averages."""
