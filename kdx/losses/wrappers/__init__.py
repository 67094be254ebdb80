"""Terms that wrap another term."""
