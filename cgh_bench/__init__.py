"""Is this pretrained backbone any good, and is it better than the others?"""

__version__ = "0.1.0"
