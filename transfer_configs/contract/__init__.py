"""What the processes of all frameworks share. Its modules import torch and NumPy, which every framework needs.

`carried` and `simple_pyramid`, for protocols with a carried backbone, import our backbones too.
"""

PARENT = "CGH_PARENT"
"""The environment variable with the id of the process that a run must not outlive."""
