"""Terms of detectors: their own losses, and distillation on maps and regions."""
