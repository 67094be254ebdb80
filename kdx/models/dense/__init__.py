"""Networks with an answer for each pixel."""
