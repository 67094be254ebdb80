"""Contracts, values and functions that every package shares; depends on torch and the standard library alone."""
