"""From overrides to a checked, resolved config with an identity."""
