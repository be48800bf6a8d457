#!/usr/bin/env python
"""Write the index by which a bare file of timm is told: cgh_bench/reading/timm_index.json. Takes half an hour.

python tools/timm_index.py
"""

import json
from collections import defaultdict

import timm

from cgh_bench.backbones.base import _skeleton
from cgh_bench.backbones.timm import Timm
from cgh_bench.core.files import write_text
from cgh_bench.reading.timms import INDEX, classifier, fingerprint


def main() -> None:
    """Build every network without memory, and write which have which tensors."""
    networks: dict[str, list[str]] = defaultdict(list)
    classifiers = set()
    for name in Timm.names():
        architecture = Timm(name)
        networks[fingerprint(architecture.shapes)].append(name)
        classifiers |= {(), tuple(sorted(classifier(architecture)))}
        _skeleton.cache_clear()
    found = {"timm": timm.__version__, "classifiers": sorted(classifiers), "networks": dict(sorted(networks.items()))}
    write_text(INDEX, json.dumps(found, indent=0, separators=(",", ":")) + "\n")


if __name__ == "__main__":
    main()
