"""Losses of open-vocabulary detectors."""
