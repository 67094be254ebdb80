"""Terms that read logits, one paper a file."""
