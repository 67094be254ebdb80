"""The record of a run, its views, and the metrics of training."""
