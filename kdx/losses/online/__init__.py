"""Terms of networks that train together, one paper a file."""
