"""The frameworks that protocols run in, their processes, and their protocol files."""

import ast
import hashlib
import os
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cgh_bench import transfer_configs
from cgh_bench.core.errors import UserError, unknown

if TYPE_CHECKING:
    from cgh_bench.checkpoint import Checkpoint

CODE = Path(transfer_configs.__file__).parent
"""The folder with one folder per framework: its code, and its protocols in `protocols/`."""
LAUNCHER = CODE / "__main__.py"
"""Runs a module of that code in any Python; see there."""
NAMES_ITS_BASE = re.compile(r"^_base_\s*[=:]\s*['\"]?(\w+)\.", re.IGNORECASE | re.MULTILINE)


@dataclass(frozen=True)
class Framework:
    """How one framework is run."""

    folder: str
    """Its folder below `transfer_configs`."""
    suffix: str
    """The suffix of its protocol files."""
    converter: str
    """The conversion target whose weights it reads."""
    modules: tuple[str, ...]
    """The modules that must be importable, beside torch."""
    interpreter_variable: str
    """The environment variable that may name another Python to run it with."""
    install: str
    """How to install it with `pip`; see `how_to_install`."""
    settings: Callable[["Checkpoint"], dict[str, Any]]
    """The settings, under the framework's names, with which it prepares images and builds its own backbone."""
    preprocessing: Callable[["Checkpoint"], dict[str, Any]]
    """The part of these settings with which it prepares images: all that a carried backbone needs."""
    folder_beside: str = ""
    """A folder of the environment that is on this framework's path only, because it would hide other packages."""
    has_counters: bool = True
    """Whether its weights include BatchNorm's counters of batches."""

    @property
    def python(self) -> str:
        """The interpreter that runs it: ours, unless `interpreter_variable` names another."""
        return os.environ.get(self.interpreter_variable, sys.executable)

    @property
    def how_to_install(self) -> str:
        """How to install it, with the `pip` of the interpreter that would run it."""
        return self.install.replace("pip install", f"{self.python} -m pip install", 1)

    @property
    def environment(self) -> dict[str, str]:
        """The environment variables of its processes."""
        beside = Path(sys.prefix, self.folder_beside)
        if not self.folder_beside or not beside.is_dir():
            return dict(os.environ)
        given = os.environ.get("PYTHONPATH")
        return {**os.environ, "PYTHONPATH": f"{given}{os.pathsep}{beside}" if given else str(beside)}

    @property
    def path(self) -> Path:
        """The folder of its protocol files."""
        return CODE / self.folder / "protocols"

    @property
    def protocols(self) -> dict[str, Path]:
        """Its protocol files by name; none is read."""
        return {file.stem: file for file in sorted(self.path.glob(f"*{self.suffix}"))}

    def command(self, module: str) -> list[str]:
        """The command that runs a module of its folder in its interpreter, which need not have cgh_bench."""
        return [self.python, str(LAUNCHER), f"{self.folder}.{module}"]

    def tensors_given(self, checkpoint: "Checkpoint") -> int:
        """How many tensors of the checkpoint its weights contain."""
        from cgh_bench.backbones.resnet_names import COUNTER

        return sum(self.has_counters or not name.endswith(COUNTER) for name in checkpoint.weights)


def openmmlab_preprocessing(checkpoint: "Checkpoint") -> dict[str, Any]:
    """Preprocessing for an mmengine configuration, whose images are BGR, 0 to 255."""
    given = checkpoint.preprocessing
    scale = 255 / given.input_range
    return {
        "model.data_preprocessor.mean": [scale * value for value in given.mean],
        "model.data_preprocessor.std": [scale * value for value in given.std],
        "model.data_preprocessor.bgr_to_rgb": given.channel_order == "RGB",
    }


def openmmlab_settings(checkpoint: "Checkpoint") -> dict[str, Any]:
    """Preprocessing and position of the stride for an mmengine configuration."""
    from cgh_bench.backbones.resnet import require_resnet

    caffe = require_resnet(checkpoint.architecture, checkpoint.name).stride_in_1x1
    return {**openmmlab_preprocessing(checkpoint), "model.backbone.style": "caffe" if caffe else "pytorch"}


def _openmmlab(package: str) -> Framework:
    return Framework(
        folder="openmmlab",
        suffix=".py",
        converter=package,
        modules=("mmengine", "mmcv", package),
        interpreter_variable="CGH_MM_PYTHON",
        install="pip install onedl-mmengine onedl-mmcv onedl-mmdetection onedl-mmsegmentation ftfy regex",
        settings=openmmlab_settings,
        preprocessing=openmmlab_preprocessing,
    )


def detectron2_preprocessing(checkpoint: "Checkpoint") -> dict[str, Any]:
    """Preprocessing for a detectron2 configuration, whose images are 0 to 255."""
    given = checkpoint.preprocessing
    scale = 255 / given.input_range
    return {
        "INPUT.FORMAT": given.channel_order,
        "MODEL.PIXEL_MEAN": [round(scale * value, 6) for value in given.mean],
        "MODEL.PIXEL_STD": [round(scale * value, 6) for value in given.std],
    }


def detectron2_settings(checkpoint: "Checkpoint") -> dict[str, Any]:
    """Preprocessing and backbone for a detectron2 configuration."""
    from cgh_bench.backbones.resnet import require_resnet

    architecture = require_resnet(checkpoint.architecture, checkpoint.name)
    groups, width = architecture.groups_and_width
    return {
        **detectron2_preprocessing(checkpoint),
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
        preprocessing=detectron2_preprocessing,
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
    """Sixteen hex digits of the content of a protocol file and of the file that it is based on.

    Comments, layout, and the place of our own modules do not count.

    Raises:
        UserError: the framework has no such protocol, or its file cannot be read.
    """
    known, file = find(framework), protocol_file(framework, protocol)
    try:
        text = file.read_text(encoding="utf-8")
        text = _python_content(text) if known.suffix == ".py" else _yaml_content(text)
    except (OSError, ValueError, SyntaxError) as error:
        raise UserError(f"the {framework} protocol {protocol} cannot be read: {error} ({file}); fix the file") from None
    text = text.replace(f"{transfer_configs.__name__}.{known.folder}.", "")
    text += "".join(definition(framework, base) for base in NAMES_ITS_BASE.findall(text))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _python_content(text: str) -> str:
    module = ast.parse(text)
    if ast.get_docstring(module) is not None:
        del module.body[0]
    return ast.unparse(module)


def _yaml_content(text: str) -> str:
    lines = (re.sub(r"(^|\s)#.*", "", line).rstrip() for line in text.splitlines())
    return "\n".join(line for line in lines if line)


def protocol_file(framework: str, protocol: str) -> Path:
    """The file of a protocol.

    Raises:
        UserError: the framework has no such protocol.
    """
    protocols = find(framework).protocols
    if protocol not in protocols:
        raise unknown(f"{framework} protocol", protocol, protocols)
    return protocols[protocol]


def require_installed(framework: str) -> None:
    """Check that the framework, and torch, can be found by the interpreter that would run it.

    Raises:
        UserError: what is missing, and how to install it.
    """
    known = find(framework)
    python, needed = known.python, ("torch", *known.modules)
    code = f"import importlib.util as u; print([m for m in {needed!r} if u.find_spec(m) is None])"
    try:
        done = subprocess.run([python, "-c", code], capture_output=True, text=True, check=True, env=known.environment)
    except (OSError, subprocess.CalledProcessError) as error:
        raise UserError(
            f"{known.interpreter_variable}={python} cannot be run ({error}); set it to a Python interpreter"
        ) from None
    missing: list[str] = ast.literal_eval(done.stdout.strip().splitlines()[-1])
    if "torch" in missing:
        raise UserError(
            f"{framework} needs torch, which is not installed for {python}; install it "
            f"({python} -m pip install torch torchvision), or set {known.interpreter_variable} to another Python"
        )
    if missing:
        raise UserError(
            f"{framework} needs {', '.join(missing)}, not installed for {python}; to install: {known.how_to_install}"
        )
