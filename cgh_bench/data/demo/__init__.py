"""The embedded demonstration data: images and scenes that are made, not photographed."""
