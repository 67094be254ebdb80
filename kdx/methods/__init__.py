"""Learning scenes: each decides who runs, on which inputs, with which gradients."""
