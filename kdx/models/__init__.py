"""Networks, all of which return `Outputs`: those of the literature, small ones, and any of timm or torchvision."""
