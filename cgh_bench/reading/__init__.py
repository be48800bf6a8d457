"""Any checkpoint file to the canonical weights: opened without running it, recognised, proven whole."""
