"""Networks of the CIFAR distillation literature, with the same module names, so that published checkpoints load."""
