"""Weights that a name leads to, fetched by their origin's own downloader into its own cache.

What a hub says of the weights (revision, licence, its own transform) is kept for the checkpoint's origin.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.error import URLError
from urllib.parse import urlsplit

from cgh_bench.core.errors import UserError, one_line, unknown
from cgh_bench.core.files import sha256
from cgh_bench.core.progress import is_shown
from cgh_bench.data.transform import EvalTransform
from cgh_bench.reading import names
from cgh_bench.reading.weights_file import WEIGHTS, WeightsFile, open_weights, shards

if TYPE_CHECKING:
    from cgh_bench.checkpoint import Origin


@dataclass(frozen=True)
class Fetched:
    """Weights that are on this machine now, and what the hub says of them."""

    name: str
    path: Path
    """A file, or a Hugging Face folder; for `hub:`, the name."""
    sha256: str = ""
    """The hash of the file with the weights, where `path` is a folder."""
    revision: str = ""
    """The commit that a repository's branch stood at."""
    licence: str = ""
    transform: EvalTransform | None = None
    """The hub's own way to cut images, where it is one that is known here."""
    in_memory: Mapping[str, Any] | None = field(default=None, repr=False)
    """The tensors, where the hub gives a network and no file."""

    def open(self, trust_pickle: bool = False) -> WeightsFile:
        """See `open_weights`."""
        if self.in_memory is not None:
            return WeightsFile(self.path, "torch.hub", self.in_memory, {})
        return open_weights(self.path, trust_pickle)

    def described(self, origin: "Origin") -> "Origin":
        """`origin` with what the hub says."""
        return replace(
            origin,
            path=self.name,
            sha256=self.sha256 or origin.sha256,
            revision=self.revision,
            licence=self.licence,
            transform=self.transform,
        )


def fetch(name: names.Name, text: str, trust_code: bool = False) -> Fetched:
    """What `name` (parsed from `text`) leads to, downloaded unless it is in the hub's cache.

    Args:
        name: of weights that are published.
        text: how the user wrote it.
        trust_code: let the code of a `hub:` repository run.

    Raises:
        UserError: there are no such weights, they are gated, their hash is another, their repository's code is not
            trusted, or there is no network: then which file to put where.
    """
    match name:
        case names.Timm():
            _require_timm(name.name)
            return _from_hugging_face(text, f"timm/{name.name}", name.revision)
        case names.HuggingFace():
            return _from_hugging_face(text, name.repo, name.revision)
        case names.Torchvision():
            return _from_torchvision(text, name)
        case names.Address():
            place = _torch_cache() / name.sha256[:16] / Path(urlsplit(name.url).path).name
            return Fetched(text.partition("#")[0], _download(name.url, place, name.sha256))
        case names.TorchHub():
            return _from_torch_hub(text, name, trust_code)
    raise AssertionError(f"{name} is on this machine")


# Hugging Face, which timm's weights are on too


def _from_hugging_face(text: str, repo: str, revision: str) -> Fetched:
    config = _file(text, repo, "config.json", revision)
    weights = next((path for file in WEIGHTS if (path := _weights(text, repo, file, revision))), None)
    if weights is None:
        raise UserError(f"{text}: the repository has none of {', '.join(WEIGHTS)}; download its weights and name them")
    processor = _file(text, repo, "preprocessor_config.json", revision, optional=True)
    card = _file(text, repo, "README.md", revision, optional=True)
    folder = weights.parent
    return Fetched(
        text,
        folder if config else weights,
        sha256(weights),
        revision=folder.name,
        licence=_licence(card),
        transform=hub_transform(_document(config), _document(processor)),
    )


def _weights(text: str, repo: str, file: str, revision: str) -> Path | None:
    """`file`, or the index of the files that it is spread over, which are fetched too."""
    if whole := _file(text, repo, file, revision):
        return whole
    if index := _file(text, repo, f"{file}.index.json", revision, optional=True):
        for part in shards(index):
            _file(text, repo, part, revision)
    return index


def _file(text: str, repo: str, file: str, revision: str, optional: bool = False) -> Path | None:
    """`file` of a repository in the Hub's cache, fetched where it is not there; None where the repository has none."""
    from huggingface_hub import errors, hf_hub_download

    try:
        return Path(hf_hub_download(repo, file, revision=revision or None, tqdm_class=_bar()))
    except errors.GatedRepoError:
        page = f"https://huggingface.co/{repo}"
        raise UserError(f"{text} is gated; accept its terms on {page}, then log in with `hf auth login`") from None
    except errors.RepositoryNotFoundError:
        raise UserError(f"{text}: no such repository on the Hugging Face Hub; if private, `hf auth login`") from None
    except errors.RevisionNotFoundError:
        raise UserError(f"{text}: the repository has no revision {revision}") from None
    except errors.HFValidationError as error:
        raise UserError(f"{text}: {one_line(error)}") from None
    except (errors.LocalEntryNotFoundError, errors.OfflineModeIsEnabled):
        if optional:
            return None
        raise UserError(
            f"{text}: {file} is not in the cache {_hugging_face_cache(repo)}, and there is no network; where there is "
            f"one, `hf download {repo} --local-dir FOLDER`, then copy FOLDER here and name it instead"
        ) from None
    except errors.EntryNotFoundError:
        return None


def _hugging_face_cache(repo: str) -> Path:
    from huggingface_hub import constants

    return Path(constants.HF_HUB_CACHE) / f"models--{repo.replace('/', '--')}"


@cache
def _silent_bar() -> Any:
    from tqdm import tqdm

    class Silent(tqdm):  # type: ignore[misc]
        """No bar."""

        def __init__(self, *values: Any, **options: Any) -> None:
            super().__init__(*values, **{**options, "disable": True})

    return Silent


def _bar() -> Any:
    return None if is_shown() else _silent_bar()


def _document(path: Path | None) -> Mapping[str, Any]:
    if path is None:
        return {}
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(f"{path} is not JSON ({error}); delete it to download it again") from None
    return found if isinstance(found, dict) else {}


def _licence(card: Path | None) -> str:
    """What the head of a model card says."""
    if card is None:
        return ""
    from huggingface_hub import metadata_load

    metadata = metadata_load(card) or {}
    return str(metadata.get("license_name") or metadata.get("license") or "")


def _require_timm(name: str) -> None:
    import timm

    known = timm.list_pretrained()
    if name in known:
        return
    tags = [each for each in known if each.partition(".")[0] == name]
    if tags:
        raise UserError(f"timm/{name} needs a tag: {', '.join(f'timm/{each}' for each in tags[:3])}")
    raise unknown("timm weights", name, known)


# transforms


def hub_transform(config: Mapping[str, Any], processor: Mapping[str, Any]) -> EvalTransform | None:
    """How a repository's own code cuts images, or None where that is unknown here.

    Args:
        config: timm's `config.json`, whose `pretrained_cfg` says it.
        processor: transformers' `preprocessor_config.json`, which says it otherwise.
    """
    card = config.get("pretrained_cfg")
    try:
        return _of_timm(card) if isinstance(card, Mapping) else _of_transformers(processor)
    except (KeyError, TypeError, ValueError):
        return None


def _of_timm(card: Mapping[str, Any]) -> EvalTransform | None:
    """`timm.data.create_transform` (timm/data/transforms_factory.py, `transforms_imagenet_eval`)."""
    side = int(card["input_size"][-1])
    mode, interpolation = card.get("crop_mode", "center"), card["interpolation"]
    if mode not in ("center", "squash") or interpolation not in ("bilinear", "bicubic"):
        return None
    resize = math.floor(side / float(card.get("crop_pct") or 0.875))
    return EvalTransform(resize, side, interpolation, squash=mode == "squash")


def _of_transformers(processor: Mapping[str, Any]) -> EvalTransform | None:
    """The image processors of transformers (`BaseImageProcessor`); ConvNeXt's has a `crop_pct` of its own."""
    interpolation = {2: "bilinear", 3: "bicubic"}.get(processor["resample"])
    if interpolation is None:
        return None
    size = processor["size"]
    resize, squash = _side(size), not isinstance(size, Mapping) or "shortest_edge" not in size
    if "crop_pct" in processor and resize < 384:
        return EvalTransform(int(resize / processor["crop_pct"]), resize, interpolation)  # type: ignore[arg-type]
    crop = _side(processor["crop_size"]) if processor.get("do_center_crop") else None
    if crop is None and not squash:
        return None  # images would keep their own shapes
    return EvalTransform(resize, crop or resize, interpolation, squash=squash)  # type: ignore[arg-type]


def _side(size: Any) -> int:
    if isinstance(size, Mapping):
        if size.get("height") != size.get("width"):
            raise ValueError("not a square")
        size = size.get("shortest_edge") or size["height"]
    return int(size)


# torch.hub and plain addresses


def _torch_cache() -> Path:
    import torch.hub

    return Path(torch.hub.get_dir()) / "checkpoints"


def _download(url: str, place: Path, hash_: str) -> Path:
    """The file at `url`, fetched to `place` unless it is there; its SHA-256 begins with `hash_`."""
    import torch.hub

    if not place.exists():
        place.parent.mkdir(parents=True, exist_ok=True)
        try:
            torch.hub.download_url_to_file(url, str(place), hash_, progress=is_shown())
        except RuntimeError as error:
            raise UserError(f"{url}: {error}; the file is not the expected one") from None
        except URLError as error:
            raise UserError(
                f"{url} cannot be downloaded ({error}); download it elsewhere and put it here: {place}"
            ) from None
    elif not sha256(place).startswith(hash_):
        raise UserError(f"{place} is not the file that was at {url} (its SHA-256 is another); remove it")
    return place


def _from_torchvision(text: str, name: names.Torchvision) -> Fetched:
    from torchvision import models
    from torchvision.transforms._presets import ImageClassification

    known = models.list_models(module=models)
    if name.arch not in known:
        raise unknown("network of torchvision", name.arch, known)
    weights = models.get_model_weights(name.arch)
    if name.weights not in weights.__members__:
        raise unknown(f"weights of torchvision's {name.arch}", name.weights, weights.__members__)
    chosen = weights[name.weights]
    file = Path(urlsplit(chosen.url).path).name
    hash_ = file.rpartition("-")[2].partition(".")[0]
    cut = chosen.transforms()
    assert isinstance(cut, ImageClassification), text
    return Fetched(
        text,
        _download(chosen.url, _torch_cache() / file, hash_),
        licence=str(chosen.meta.get("license", "")),
        transform=EvalTransform(cut.resize_size[0], cut.crop_size[0], cut.interpolation.value),
    )


def _from_torch_hub(text: str, name: names.TorchHub, trust_code: bool) -> Fetched:
    """The weights of the network that an entry builds. The repository's code runs, so the user must have said so."""
    if not trust_code:
        raise UserError(
            f"{text} would run code from https://github.com/{name.repo} on this machine; if you trust it, pass "
            "--trust-code (trust_code=True)"
        )
    import torch.hub

    repo = f"{name.repo}:{name.ref}" if name.ref else name.repo
    try:
        # What Hub's own check would ask the terminal, the user has said.
        network: Any = torch.hub.load(  # type: ignore[no-untyped-call]
            repo, name.entry, trust_repo=True, skip_validation=True, verbose=False
        )
    except (URLError, RuntimeError, OSError, ImportError, ValueError) as error:
        place = Path(torch.hub.get_dir()) / f"{name.repo.replace('/', '_')}_{name.ref or 'main'}"
        raise UserError(
            f"{text} cannot be loaded ({one_line(error)}); without a network a checkout is expected in "
            f"{place}, its weights in {_torch_cache()}"
        ) from None
    if not isinstance(network, torch.nn.Module):
        raise UserError(f"{text} gives a {type(network).__name__}, not a network")
    tensors = {key: tensor.detach().cpu() for key, tensor in network.state_dict().items()}
    return Fetched(text, Path(text), revision=name.ref, in_memory=tensors)
