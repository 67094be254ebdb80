"""The network of a finished run, used on other inputs and in other programs."""
