"""The contract of a term, and helpers that several terms share."""
