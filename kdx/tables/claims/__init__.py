"""Claims about a table, written in a study's YAML, and their verdicts computed from the numbers of single runs."""
