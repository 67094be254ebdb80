"""Terms around another term."""
