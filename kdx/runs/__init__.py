"""One training: from a prepared config to a result on disk."""
