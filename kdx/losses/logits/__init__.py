"""Terms on logits, one paper a file."""
