"""Wrappers that turn networks into teachers."""
