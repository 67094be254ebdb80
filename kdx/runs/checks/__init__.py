"""Checks of a config before anything loads or trains."""
