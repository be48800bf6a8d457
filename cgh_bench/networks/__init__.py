"""The networks that architectures build, as PyTorch modules: one file per family, behind one contract (`base`)."""
