"""The contract of a term, and the checks, layers and numerics that several terms share."""
