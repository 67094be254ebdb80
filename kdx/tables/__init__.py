"""Statistics and tables over many runs."""
