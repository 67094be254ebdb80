"""Wrappers that make networks into teachers."""
