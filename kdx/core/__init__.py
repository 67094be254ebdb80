"""Words that every floor shares. Depends on torch alone."""
