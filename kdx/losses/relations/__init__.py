"""Terms that relate the examples of a batch, one paper a file."""
