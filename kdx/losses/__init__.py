"""Agreement measures, one paper one file: pure functions to a value per example, and a thin term around each."""
