"""The comparison behind a certificate: each way in which a target can differ is caught."""

import dataclasses
import math

import pytest
import torch

from cgh_bench.backbones.resnet import STAGES
from cgh_bench.checkpoint import Preprocessing, random_checkpoint
from cgh_bench.converters.parity import TOLERANCE, Outputs, compare, source_outputs, verdict
from cgh_bench.core.errors import CheckFailed
from cgh_bench.reading.reference_script import probe_images

STAGE_NAMES = ("input", *STAGES)


def stages(seed: int = 0) -> dict[str, torch.Tensor]:
    torch.manual_seed(seed)
    return {name: torch.randn(2, 3, 4, 5) for name in STAGE_NAMES}


def told(source: dict[str, torch.Tensor], target: dict[str, torch.Tensor], **coverage: list[str]) -> str:
    return verdict(Outputs(target, "net", {}, **coverage), compare(source, target))


def test_equal_outputs_pass() -> None:
    assert told(stages(), stages(), used=["a"]) == ""


def test_the_measures_are_what_they_say() -> None:
    ours, theirs = stages(0), stages(1)
    a, b = ours["layer2"].flatten().tolist(), theirs["layer2"].flatten().tolist()
    found = next(d for d in compare(ours, theirs) if d.stage == "layer2")
    largest = max(abs(x - y) for x, y in zip(a, b, strict=True))
    assert found.max_abs == pytest.approx(largest)
    assert found.relative == pytest.approx(largest / max(map(abs, a)))
    dot = sum(x * y for x, y in zip(a, b, strict=True))
    assert found.cosine == pytest.approx(dot / math.hypot(*a) / math.hypot(*b))


@pytest.mark.parametrize("stage", STAGE_NAMES)
def test_every_stage_counts(stage: str) -> None:
    ours, theirs = stages(), stages()
    theirs[stage][1, 2, 3, 4] += 3 * TOLERANCE * float(ours[stage].abs().max())
    assert told(ours, theirs).startswith(f"{stage} differs by 3")


def test_not_a_number_is_a_difference() -> None:
    ours, theirs = stages(), stages()
    theirs["layer3"][0, 0, 0, 0] = torch.nan
    assert "layer3 differs by nan" in told(ours, theirs)


@pytest.mark.parametrize("change", [lambda s: s.pop("layer4"), lambda s: s.update(layer4=torch.ones(2, 3, 4, 4))])
def test_absent_and_misshapen_stages(change: object) -> None:
    theirs = stages()
    change(theirs)  # type: ignore[operator]
    with pytest.raises(CheckFailed, match="layer4 is"):
        compare(stages(), theirs)


@pytest.mark.parametrize("value", [0.0, torch.nan])
def test_outputs_that_prove_nothing(value: float) -> None:
    ours = stages() | {"layer4": torch.full((2, 3, 4, 5), value)}
    with pytest.raises(CheckFailed, match="cannot be compared"):
        compare(ours, ours)


@pytest.mark.parametrize("coverage", ["unused", "missing"])
def test_coverage_counts_even_if_outputs_agree(coverage: str) -> None:
    assert "1 tensors are" in told(stages(), stages(), **{coverage: ["conv1.weight"]})


def test_the_probe_tells_channels_and_directions_apart() -> None:
    """Whatever is swapped on the way in must be seen: channels, mirror images, rows for columns."""
    pixels = probe_images().float()
    means = pixels.mean(dim=(0, 2, 3))
    assert all(abs(float(means[a] - means[b])) > 5 for a, b in [(0, 1), (0, 2), (1, 2)])
    for changed in (pixels.flip(1), pixels.flip(2), pixels.flip(3), pixels.flip(0)):
        assert float((changed - pixels).abs().max()) > 0.2 * float(pixels.max())
    assert torch.equal(probe_images(), probe_images())


def test_the_source_is_the_checkpoint_itself() -> None:
    checkpoint = dataclasses.replace(random_checkpoint("resnet18"), preprocessing=Preprocessing("BGR", 255.0))
    found = source_outputs(checkpoint, probe_images())
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    torch.testing.assert_close(found.stages["input"], (probe_images().flip(1).float() - mean) / std)
    assert tuple(found.stages) == ("input", *STAGES)
