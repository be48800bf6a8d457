"""Features through the contract against timm's bare forward pass: images a second, the ratio in interleaved rounds.

python benchmarks/backbones.py [--out benchmarks/results/backbones.json]
"""

import argparse
import json
import statistics
import time
from pathlib import Path

import timm
import torch

from cgh_bench import backbones

NAMES = ("convnext_tiny", "swin_tiny_patch4_window7_224", "vit_small_patch16_224")
BATCH = 8
ROUNDS = 9


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "backbones.json")
    out = parser.parse_args().out
    torch.set_num_threads(1)
    results = {name: measured(name) for name in NAMES}
    document = {"torch": torch.__version__, "timm": timm.__version__, "batch": BATCH, "rounds": ROUNDS, **results}
    out.write_text(json.dumps(document, indent=1) + "\n")
    print(json.dumps(document, indent=1))


@torch.inference_mode()
def measured(name: str) -> dict[str, float]:
    """The median of the rounds' ratios, and the processor time of either side's best round."""
    architecture = backbones.named(name)
    ours = architecture.build().eval()
    bare = timm.create_model(name, num_classes=0).eval()
    bare.load_state_dict(ours.state_dict())
    images = torch.randn(BATCH, 3, 224, 224)
    targets = [architecture.targets("layer4")]
    torch.testing.assert_close(ours.pooled_all(images, targets)[0], bare(images))
    spent: list[tuple[float, float]] = []
    for number in range(ROUNDS):
        sides = [lambda: bare(images), lambda: ours.pooled_all(images, targets)]
        order = (0, 1) if number % 2 else (1, 0)
        seconds = [0.0, 0.0]
        for side in order:
            started = time.process_time()  # other processes' work does not count
            sides[side]()
            seconds[side] = time.process_time() - started
        spent.append((seconds[0], seconds[1]))
    return {
        "ratio": round(statistics.median(theirs / mine for theirs, mine in spent), 3),
        "bare_images_per_second": round(BATCH / min(theirs for theirs, _ in spent), 1),
        "images_per_second": round(BATCH / min(mine for _, mine in spent), 1),
    }


if __name__ == "__main__":
    main()
