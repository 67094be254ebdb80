"""Terms on the relations between the examples of a batch or of a training set, one paper a file."""
