"""Detection in detectron2, in a process of its own."""

import warnings

warnings.simplefilter("ignore")  # detectron2 uses pkg_resources and old names of torch
