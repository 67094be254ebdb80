"""Distillers composed of an input, transforms and a distance."""
