"""The commands of `kdx`."""
