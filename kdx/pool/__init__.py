"""Many trainings: each once, in this process or in several."""
