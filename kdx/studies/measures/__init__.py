"""Measurements of trained networks; see `kdx.studies.networks`."""
