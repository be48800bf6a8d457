"""What runs inside detectron2, in a process of its own, and its protocol files."""
