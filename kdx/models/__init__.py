"""Networks that return `Outputs`: the CIFAR literature's, small ones, and any of timm or torchvision."""
