"""Numbers of many runs: statistics, tables and their files."""
