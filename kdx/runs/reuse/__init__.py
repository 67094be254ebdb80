"""Whether a run's data and code are those that its result was made from."""
