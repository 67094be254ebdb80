"""The loop and what it needs: updates, clock, log, checkpoints. It names no method."""
