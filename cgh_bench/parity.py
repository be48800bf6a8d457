"""Proof of a conversion: the same pixels through the source and through the target framework's own network."""

import json
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import safetensors
import torch
from torch import Tensor

from cgh_bench import frameworks
from cgh_bench.backbone import STAGES
from cgh_bench.checkpoint import Checkpoint
from cgh_bench.errors import CheckFailed, UserError
from cgh_bench.weights_file import open_weights

TOLERANCE = 1e-4
"""Largest difference of a stage relative to its largest value, float32."""
STAGE_NAMES = ("input", *STAGES)
SECONDS = 600


@dataclass(frozen=True)
class Outputs:
    """What a network made of the probe images."""

    stages: Mapping[str, Tensor]
    """`input` (after preprocessing) and the output of each stage, (B, C, H, W)."""
    network: str
    """The class that was built."""
    versions: Mapping[str, str]
    used: Sequence[str] = ()
    """Tensors of the file that are in the network, bit for bit."""
    unused: Sequence[str] = ()
    """Tensors of the file that are not."""
    missing: Sequence[str] = ()
    """Tensors of the network that the file has not."""
    seconds_of_import: float = 0.0
    """Until the target's packages were there."""


@dataclass(frozen=True)
class Difference:
    """One stage, source against target."""

    stage: str
    shape: tuple[int, ...]
    max_abs: float
    relative: float
    """`max_abs` over the source's largest absolute value."""
    cosine: float

    @property
    def problem(self) -> str:
        """Why the stage does not agree, or nothing."""
        if not self.relative <= TOLERANCE:  # NaN too
            return f"{self.stage} differs by {self.relative:.1e} of its largest value (allowed {TOLERANCE:.0e})"
        return ""


def probe_images() -> Tensor:
    """Two fixed RGB images (2, 3, 96, 128), uint8: noise over ramps that differ by channel and direction."""
    generator = torch.Generator().manual_seed(0)
    noise = torch.randint(0, 96, (2, 3, 96, 128), generator=generator)
    down, right = torch.linspace(0, 1, 96).view(96, 1), torch.linspace(0, 1, 128).view(1, 128)
    ramps = torch.stack([150 * down + 0 * right, 90 * right + 0 * down, 40 * down * right])
    return (noise + ramps).to(torch.uint8)


def source_outputs(checkpoint: Checkpoint, pixels: Tensor) -> Outputs:
    """The canonical trunk's own outputs for RGB `pixels` (B, 3, H, W), uint8."""
    prepared = checkpoint.preprocessing(pixels.float() / 255)
    with torch.inference_mode():
        stages = {"input": prepared, **checkpoint.backbone(copy=False).pyramid(prepared)}
    return Outputs(stages, "cgh_bench.backbone.Backbone", {"torch": torch.__version__}, tuple(checkpoint.weights))


def coverage(path: Path, network: Mapping[str, Tensor]) -> dict[str, list[str]]:
    """Which tensors of the file at `path` are in `network` bit for bit, which are not, and which it has beside them."""
    used: list[str] = []
    unused: list[str] = []
    for name, tensor in _tensors(path):
        (used if name in network and torch.equal(tensor, network[name]) else unused).append(name)
    given = {*used, *unused}
    return {"used": used, "unused": unused, "missing": [name for name in network if name not in given]}


def _tensors(path: Path) -> Iterator[tuple[str, Tensor]]:
    """One after the other where the format allows it, as the networks are in memory already."""
    if path.suffix != ".safetensors":
        yield from open_weights(path).tensors.items()
        return
    with safetensors.safe_open(path, "pt") as file:
        for name in file.keys():  # noqa: SIM118 (not a mapping)
            yield name, file.get_tensor(name)


def compare(source: Mapping[str, Tensor], target: Mapping[str, Tensor]) -> list[Difference]:
    """The difference of every stage.

    Raises:
        CheckFailed: a stage is absent or of another shape, or the source's outputs cannot tell anything (constant or
            not finite).
    """
    differences = []
    for stage in STAGE_NAMES:
        ours = source[stage].double().contiguous()
        if stage not in target or target[stage].shape != ours.shape:
            found = tuple(target[stage].shape) if stage in target else "nothing"
            raise CheckFailed(f"{stage} is {tuple(ours.shape)} in the source and {found} in the target")
        if not torch.isfinite(ours).all() or ours.max() == ours.min():
            raise CheckFailed(f"{stage} of the source is constant or not finite: such weights prove nothing")
        theirs = target[stage].double()
        max_abs = float((ours - theirs).abs().max())
        cosine = float(torch.nn.functional.cosine_similarity(ours.flatten(), theirs.flatten(), dim=0))
        differences.append(Difference(stage, tuple(ours.shape), max_abs, max_abs / float(ours.abs().max()), cosine))
    return differences


def verdict(outputs: Outputs, differences: Sequence[Difference]) -> str:
    """Nothing if the target computes what the source does from all of its tensors; else what is wrong, in one line."""
    for names, complaint in ((outputs.unused, "not used by the target"), (outputs.missing, "lacking in the file")):
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
    """What the framework's own network, built from `fragment` in its own process, makes of `pixels`.

    Raises:
        UserError: the framework is not installed.
        CheckFailed: it could not build the network from the files.
    """
    frameworks.require_installed(framework)
    known = frameworks.find(framework)
    with tempfile.TemporaryDirectory() as folder:
        images, out = Path(folder, "images.pt"), Path(folder, "outputs.pt")
        torch.save(pixels, images)
        command = [known.python, str(known.path / "forward.py"), f"--framework={framework}", f"--weights={weights}"]
        command += [f"--fragment={fragment}", f"--images={images}", f"--out={out}"]
        environment = {**known.environment, "CUDA_VISIBLE_DEVICES": ""}
        try:
            done = subprocess.run(
                command, capture_output=True, text=True, timeout=SECONDS, env=environment, check=False
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise UserError(f"{framework} did not answer ({error}); see `cgh-bench doctor`") from None
        if done.returncode or not out.exists():
            last = (done.stderr.strip().splitlines() or ["it printed nothing"])[-1]
            raise CheckFailed(f"{framework} could not build its network from {weights.name}: {last}")
        answer = torch.load(out, map_location="cpu", weights_only=True)
    return Outputs(answer["stages"], **json.loads(answer["report"]))
