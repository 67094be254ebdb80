"""Features of networks: where they are captured, how their axes lie, and which classifier reads them."""
