"""A search over composed distillers."""
