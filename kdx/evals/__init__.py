"""Measurements of trained networks, each a class that the config names and schedules."""
