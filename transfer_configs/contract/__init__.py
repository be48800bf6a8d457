"""What the processes of all frameworks share. Its modules import torch and NumPy, which every framework needs."""

PARENT = "CGH_PARENT"
"""The environment variable with the id of the process that a run must not outlive."""
