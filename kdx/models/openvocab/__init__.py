"""Open-vocabulary detection: class names as a classifier, and a small vision-language model."""
