"""Protocols as configuration files of other frameworks, and the code that runs them in those frameworks' processes.

Started by `cgh_bench.foreign`, one process per run: see `__main__.py`. `contract/` is shared by all frameworks.
"""

import time

STARTED = time.monotonic()
"""When this process began to import; certificates leave the time of imports out."""
