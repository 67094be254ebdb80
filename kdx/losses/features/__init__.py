"""Terms on intermediate features, one paper a file."""
