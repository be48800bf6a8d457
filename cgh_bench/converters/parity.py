"""Verification of a conversion: the same pixels through the source and through the target framework's own network."""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING

import safetensors

from cgh_bench.checkpoint import Checkpoint
from cgh_bench.core.errors import CheckFailed, UserError
from cgh_bench.core.files import scratch
from cgh_bench.foreign import frameworks

if TYPE_CHECKING:
    from torch import Tensor

TOLERANCE = 1e-4
"""Largest difference of a stage relative to its largest value, float32."""
SECONDS = 600


@dataclass(frozen=True)
class Outputs:
    """The outputs of a network for the probe images."""

    stages: Mapping[str, Tensor]
    """`input` (after preprocessing) and the output of each stage, (B, C, H, W), or block of a ViT, (B, tokens, D)."""
    network: str
    """The class that was built."""
    versions: Mapping[str, str]
    used: Sequence[str] = ()
    """Tensors of the file that are in the network, bit for bit."""
    unused: Sequence[str] = ()
    """Tensors of the file that are not."""
    missing: Sequence[str] = ()
    """Tensors of the network that are missing in the file."""
    seconds_of_import: float = 0.0
    """Time to import the target's packages."""


@dataclass(frozen=True)
class Difference:
    """The difference between source and target at one stage."""

    stage: str
    shape: tuple[int, ...]
    max_abs: float
    relative: float
    """`max_abs` over the source's largest absolute value."""
    cosine: float

    @property
    def problem(self) -> str:
        """Why the stage does not agree, or an empty string."""
        if not self.relative <= TOLERANCE:  # NaN too
            return f"{self.stage} differs by {self.relative:.1e} of its largest value (allowed {TOLERANCE:.0e})"
        return ""


def source_outputs(checkpoint: Checkpoint, pixels: Tensor) -> Outputs:
    """The canonical network's own outputs for RGB `pixels` (B, 3, H, W), uint8."""
    import torch

    prepared = checkpoint.preprocessing(pixels.float() / 255)
    backbone = checkpoint.backbone(copy=False)
    with torch.inference_mode():
        stages = {"input": prepared, **backbone.outputs(prepared)}
    network = f"{type(backbone).__module__}.{type(backbone).__name__}"
    return Outputs(stages, network, {"torch": torch.__version__}, tuple(checkpoint.weights))


def coverage(path: Path, network: Mapping[str, Tensor]) -> dict[str, list[str]]:
    """Which tensors of the file at `path` are in `network` bit for bit, which are not, and which it has beside them."""
    used: list[str] = []
    unused: list[str] = []
    for name, tensor in _tensors(path):
        (used if name in network and tensor.equal(network[name]) else unused).append(name)
    given = {*used, *unused}
    return {"used": used, "unused": unused, "missing": [name for name in network if name not in given]}


def _tensors(path: Path) -> Iterator[tuple[str, Tensor]]:
    """One after the other where the format allows it, as the networks are in memory already."""
    from cgh_bench.reading.weights_file import open_weights

    if path.suffix != ".safetensors":
        yield from open_weights(path).tensors.items()
        return
    with safetensors.safe_open(path, "pt") as file:
        for name in file.keys():  # noqa: SIM118 (not a mapping)
            yield name, file.get_tensor(name)


def compare(source: Mapping[str, Tensor], target: Mapping[str, Tensor]) -> list[Difference]:
    """The difference of every stage.

    Raises:
        CheckFailed: a stage is missing or has another shape, or the source's outputs are constant or not finite.
    """
    from torch.nn.functional import cosine_similarity

    differences = []
    for stage in source:
        ours = source[stage].double().contiguous()
        if stage not in target or target[stage].shape != ours.shape:
            found = tuple(target[stage].shape) if stage in target else "nothing"
            raise CheckFailed(f"{stage} is {tuple(ours.shape)} in the source and {found} in the target")
        if not ours.isfinite().all() or ours.max() == ours.min():
            raise CheckFailed(f"{stage} of the source is constant or not finite, so the outputs cannot be compared")
        theirs = target[stage].double()
        max_abs = float((ours - theirs).abs().max())
        cosine = float(cosine_similarity(ours.flatten(), theirs.flatten(), dim=0))
        differences.append(Difference(stage, tuple(ours.shape), max_abs, max_abs / float(ours.abs().max()), cosine))
    return differences


def verdict(outputs: Outputs, differences: Sequence[Difference]) -> str:
    """Empty if the target computes the same outputs from all tensors; otherwise what is wrong, in one line."""
    for names, complaint in ((outputs.unused, "not used by the target"), (outputs.missing, "missing in the file")):
        if names:
            return f"{len(names)} tensors are {complaint} ({', '.join(names[:3])})"
    return next((difference.problem for difference in differences if difference.problem), "")


def as_json(outputs: Outputs, differences: Sequence[Difference]) -> dict[str, object]:
    """The measured part of a certificate."""
    return {
        "network": outputs.network,
        "versions": dict(outputs.versions),
        "seconds_of_import": round(outputs.seconds_of_import, 2),
        "coverage": {
            "used": len(outputs.used),
            "unused": list(outputs.unused),
            "missing": list(outputs.missing),
        },
        "tolerance": TOLERANCE,
        "stages": [asdict(difference) | {"shape": list(difference.shape)} for difference in differences],
    }


def foreign_outputs(framework: str, weights: Path, fragment: Path, pixels: Tensor) -> Outputs:
    """The outputs of the framework's own network, built from `fragment` in its own process, for `pixels`.

    Raises:
        CheckFailed: it could not build the network from the files.
    """
    known = frameworks.find(framework)
    command = [*known.command("forward"), f"--framework={framework}", f"--fragment={fragment}"]
    return _ask(framework, command, weights, pixels, known.environment)


def require_package(package: str) -> None:
    """Refuse a proof by a `package` of our own environment that is not installed."""
    if importlib.util.find_spec(package) is None:
        raise UserError(f"verification needs {package}: pip install {package}, or pass --no-verify")


def library_outputs(converter: str, package: str, weights: Path, pixels: Tensor) -> Outputs:
    """What the network of a `package` of our own environment makes of `pixels`: `network_outputs` of the `converter`.

    In a process of its own, so that its memory is not ours.

    Raises:
        CheckFailed: it could not build the network from the files.
    """
    command = [sys.executable, "-P", "-m", __name__, f"--converter={converter}"]
    command.append(f"--started={time.time()}")
    return _ask(package, command, weights, pixels, dict(os.environ))


def _ask(who: str, command: list[str], weights: Path, pixels: Tensor, environment: dict[str, str]) -> Outputs:
    """Run a process that takes `--weights --images --out` and leaves its outputs and its report in `out`."""
    import torch

    with scratch() as folder:
        images, out = folder / "images.pt", folder / "outputs.pt"
        torch.save(pixels, images)
        files = [f"--weights={weights}", f"--images={images}", f"--out={out}"]
        environment = {**environment, "CUDA_VISIBLE_DEVICES": ""}
        try:
            done = subprocess.run(
                [*command, *files], capture_output=True, text=True, timeout=SECONDS, env=environment, check=False
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise UserError(f"{who} did not answer ({error}); see `cgh-bench doctor`") from None
        if done.returncode or not out.exists():
            last = (done.stderr.strip().splitlines() or ["it printed nothing"])[-1]
            raise CheckFailed(f"{who} could not build its network from {weights.name}: {last}")
        answer = torch.load(out, map_location="cpu", weights_only=True)
    return Outputs(answer["stages"], **json.loads(answer["report"]))


def main() -> None:
    """The process of a certificate of a library of our own environment (timm, transformers).

    `--images` is a uint8 tensor (B, 3, H, W), RGB; `--out` gets {"stages": {"input", …: tensor}, "report": JSON}.
    """
    import torch

    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--converter", required=True)
    for name in ("weights", "images", "out"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    parser.add_argument("--started", type=float, required=True, help="when the process was, by the clock")
    options = parser.parse_args()
    seconds_before = time.time() - options.started
    network_outputs = importlib.import_module(f"cgh_bench.converters.{options.converter}").network_outputs
    found: Outputs = network_outputs(options.weights, torch.load(options.images, weights_only=True))
    report = {field.name: getattr(found, field.name) for field in fields(found) if field.name != "stages"}
    report["seconds_of_import"] += seconds_before
    torch.save({"stages": dict(found.stages), "report": json.dumps(report)}, options.out)


if __name__ == "__main__":
    main()
