"""Data sets for detection and segmentation that the user fetches: where their files lie, one file each, in LAYOUTS."""
