"""Methods: which networks run, on which inputs, with which gradients."""
