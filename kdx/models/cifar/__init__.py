"""The networks of the CIFAR distillation literature, with its module names, so that its checkpoints load strictly."""
