"""Terms that read intermediate features or input gradients, one paper a file."""
