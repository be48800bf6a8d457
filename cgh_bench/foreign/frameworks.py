"""The frameworks that protocols run in, and their protocol files."""

import ast
import hashlib
import importlib.util
import os
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cgh_bench.backbones.resnet import require_resnet
from cgh_bench.checkpoint import Checkpoint
from cgh_bench.core.errors import UserError, unknown
from cgh_bench.reading.candidate import COUNTER

NAMES_ITS_BASE = re.compile(r"^_base_\s*[=:]\s*['\"]?(\w+)\.", re.IGNORECASE | re.MULTILINE)
STATES_A_PROTOCOL = re.compile(r"^\s*weights_into\s*[=:]", re.IGNORECASE | re.MULTILINE)


@dataclass(frozen=True)
class Framework:
    """How one framework is run."""

    folder: str
    """Below `transfer_configs`: `train.py` and the protocol files."""
    suffix: str
    """Of the protocol files."""
    converter: str
    """The target that its weights are converted to."""
    modules: tuple[str, ...]
    """What must be importable."""
    interpreter_variable: str
    """Environment variable that may name another Python to run it with."""
    install: str
    """With `pip`, whosever that is; see `how_to_install`."""
    settings: Callable[[Checkpoint], dict[str, Any]]
    """What it must be told of a checkpoint, in its own words, to prepare images and build the trunk as needed."""
    folder_beside: str = ""
    """A folder of the environment that is on this framework's path only, as it would hide other packages."""
    has_counters: bool = True
    """Whether its weights include BatchNorm's counters of batches."""

    @property
    def python(self) -> str:
        """The interpreter that runs it: ours unless another is named."""
        return os.environ.get(self.interpreter_variable, sys.executable)

    @property
    def how_to_install(self) -> str:
        """What to do where it is not there, with the `pip` of the interpreter that would run it."""
        return self.install.replace("pip install", f"{self.python} -m pip install", 1)

    @property
    def environment(self) -> dict[str, str]:
        """The environment variables that it is run with."""
        beside = Path(sys.prefix, self.folder_beside)
        if not self.folder_beside or not beside.is_dir():
            return dict(os.environ)
        given = os.environ.get("PYTHONPATH")
        return {**os.environ, "PYTHONPATH": f"{given}{os.pathsep}{beside}" if given else str(beside)}

    @property
    def path(self) -> Path:
        """Its folder of `transfer_configs`, installed or in a checkout.

        Raises:
            UserError: it is in neither.
        """
        spec = importlib.util.find_spec(f"cgh_bench.transfer_configs.{self.folder}")
        if spec is None or not spec.submodule_search_locations:
            raise UserError(f"the package transfer_configs.{self.folder} is absent; install cgh-bench again")
        return Path(spec.submodule_search_locations[0])

    @property
    def protocols(self) -> dict[str, Path]:
        """Its protocol files by name: those in its folder that state `weights_into`."""
        files = sorted(self.path.glob(f"*{self.suffix}"))
        return {file.stem: file for file in files if STATES_A_PROTOCOL.search(file.read_text(encoding="utf-8"))}

    def tensors_given(self, checkpoint: Checkpoint) -> int:
        """How many tensors of the checkpoint are handed over."""
        return sum(self.has_counters or not name.endswith(COUNTER) for name in checkpoint.weights)


def openmmlab_settings(checkpoint: Checkpoint) -> dict[str, Any]:
    """Preprocessing and place of the stride for an mmengine configuration, whose images are BGR, 0 to 255."""
    given = checkpoint.preprocessing
    scale = 255 / given.input_range
    caffe = require_resnet(checkpoint.architecture, checkpoint.name).stride_in_1x1
    return {
        "model.data_preprocessor.mean": [scale * value for value in given.mean],
        "model.data_preprocessor.std": [scale * value for value in given.std],
        "model.data_preprocessor.bgr_to_rgb": given.channel_order == "RGB",
        "model.backbone.style": "caffe" if caffe else "pytorch",
    }


def _openmmlab(package: str) -> Framework:
    return Framework(
        folder="openmmlab",
        suffix=".py",
        converter=package,
        modules=("mmengine", "mmcv", package),
        interpreter_variable="CGH_MM_PYTHON",
        install="pip install onedl-mmengine onedl-mmcv onedl-mmdetection onedl-mmsegmentation ftfy regex",
        settings=openmmlab_settings,
    )


def detectron2_settings(checkpoint: Checkpoint) -> dict[str, Any]:
    """Preprocessing and trunk for a detectron2 configuration, whose images are of 0 to 255."""
    given = checkpoint.preprocessing
    architecture = require_resnet(checkpoint.architecture, checkpoint.name)
    scale = 255 / given.input_range
    groups, width = architecture.groups_and_width
    return {
        "INPUT.FORMAT": given.channel_order,
        "MODEL.PIXEL_MEAN": [round(scale * value, 6) for value in given.mean],
        "MODEL.PIXEL_STD": [round(scale * value, 6) for value in given.std],
        "MODEL.RESNETS.DEPTH": architecture.depth,
        "MODEL.RESNETS.NUM_GROUPS": groups,
        "MODEL.RESNETS.WIDTH_PER_GROUP": width,
        "MODEL.RESNETS.STRIDE_IN_1X1": architecture.stride_in_1x1,
        "MODEL.RESNETS.RES2_OUT_CHANNELS": 256 if architecture.has_bottlenecks else 64,
    }


FRAMEWORKS = {
    "mmdet": _openmmlab("mmdet"),
    "mmseg": _openmmlab("mmseg"),
    "detectron2": Framework(
        folder="detectron2",
        suffix=".yaml",
        converter="detectron2",
        modules=("detectron2",),
        interpreter_variable="CGH_D2_PYTHON",
        install="run `make providers` in a checkout, or with a C++ compiler "
        "pip install --no-build-isolation git+https://github.com/facebookresearch/detectron2",
        folder_beside="detectron2",
        has_counters=False,
        settings=detectron2_settings,
    ),
}


def find(name: str) -> Framework:
    """The framework of that name.

    Raises:
        UserError: there is none.
    """
    if name not in FRAMEWORKS:
        raise unknown("framework", name, FRAMEWORKS)
    return FRAMEWORKS[name]


def definition(framework: str, protocol: str) -> str:
    """Sixteen hex digits of what the protocol file says, and what it inherits; comments and empty lines do not count.

    Raises:
        UserError: the framework has no such protocol.
    """
    text = protocol_file(framework, protocol).read_text(encoding="utf-8")
    if find(framework).suffix == ".py":
        module = ast.parse(text)
        if ast.get_docstring(module) is not None:
            del module.body[0]
        text = ast.unparse(module)
    else:
        lines = (re.sub(r"(^|\s)#.*", "", line).rstrip() for line in text.splitlines())
        text = "\n".join(line for line in lines if line)
    text += "".join(definition(framework, base) for base in NAMES_ITS_BASE.findall(text))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def protocol_file(framework: str, protocol: str) -> Path:
    """Where the protocol is written down.

    Raises:
        UserError: the framework has no such protocol.
    """
    protocols = find(framework).protocols
    if protocol not in protocols:
        raise unknown(f"{framework} protocol", protocol, protocols)
    return protocols[protocol]


def require_installed(framework: str) -> None:
    """Check that the framework can be imported where it would run.

    Raises:
        UserError: it cannot; how to install it.
    """
    known = find(framework)
    python = known.python
    code = f"import importlib.util as u; print([m for m in {known.modules!r} if u.find_spec(m) is None])"
    try:
        done = subprocess.run([python, "-c", code], capture_output=True, text=True, check=True, env=known.environment)
    except (OSError, subprocess.CalledProcessError) as error:
        raise UserError(
            f"{known.interpreter_variable}={python} does not run ({error}); name a Python interpreter"
        ) from None
    missing: list[str] = ast.literal_eval(done.stdout.strip().splitlines()[-1])
    if missing:
        raise UserError(f"{framework} needs {', '.join(missing)}, absent from {python}; {known.how_to_install}")
