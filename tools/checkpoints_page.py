#!/usr/bin/env python
"""Write docs/checkpoints.md from the readers, the converters and the samples that test them.

python tools/checkpoints_page.py
"""

import sys
from collections.abc import Mapping
from pathlib import Path

from cgh_bench.backbones.resnet import ResNet
from cgh_bench.backbones.timm import Timm
from cgh_bench.backbones.vit import ViT
from cgh_bench.converters.base import Converter
from cgh_bench.converters.parity import TOLERANCE
from cgh_bench.core.files import write_text
from cgh_bench.core.registry import registered
from cgh_bench.reading.evidence import IMAGES
from cgh_bench.reading.readers import LAYOUT, READERS, Reader

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "checkpoints.md"

HEAD = """# Checkpoints

<!-- Written by tools/checkpoints_page.py from the code; do not edit. -->

`cgh-bench inspect FILE` says what a checkpoint is. `cgh-bench convert FILE --to TARGET -o OUT` writes it for another
framework and proves that it computes the same there. Every command that takes a checkpoint reads all of the following.

## How a file is read

1. **Opened without running it.** PyTorch files (both formats), safetensors, `.npz`, NumPy pickles, Hugging Face and
   accelerate folders. Whatever a pickle names beside tensors, arrays and plain values (logs, settings, classes of your
   own) is replaced by an empty stand-in: its class is neither imported nor called. The
   tensors of a whole pickled model are read in the same way. A pickle that would run a command (`os.system` and the
   like) is refused by name. Prefixes that FSDP and activation checkpointing add to names are removed; distributed
   checkpoints (DCP), DTensors and TorchScript are refused with the command that makes one file of them.
2. **Searched for backbones.** ResNets and plain vision transformers are found under any known family of names, at any
   depth, under any prefix; `module.` (DataParallel) and `_orig_mod.` (torch.compile) are ignored. Other networks are
   found where the file names them: a folder of timm or transformers, a training checkpoint of timm (`arch`). A bare
   file of such a network is recognised by the names and shapes of its tensors if only one of timm's has them; if
   several do, name it: `--arch convnext_tiny`. A backbone must be whole: every tensor of the
   architecture, in its shape, and no others; the error names the first tensor that does not fit.
3. **Its origin is found** by the rules below. Exactly one must fit; otherwise the error says what was tried and why
   each failed, and `--source` decides. A file of unknown origin is read too if it holds a single backbone.
4. **One backbone is taken**: the origin's default, or `--branch`. Heads, queues and optimisers are dropped; their names
   are in the checkpoint's origin.

ResNet-18, 34, 50, 101, 152, wide ResNets and ResNeXts of torchvision; the 7x7, the CIFAR (3x3) and the deep (v1c) stem;
the stride in the 3x3 or, as in caffe networks, in the first 1x1. Half precision becomes float32; float64 only where
nothing is lost. NaN and infinity are refused.

## Vision transformers

ViT-Ti, S, B and L of any patch size, for any square images, with or without class token, register tokens and layer
scale. The canonical names and the network are timm's; the architecture's name is, too: `vit_small_patch16_224` says
size, patch, and the image side that its position embeddings are for. `random:vit_small_patch16_224:1` is a control.

- **Other image sizes** are taken as timm takes them: the position embeddings of the patches are resampled to the new
  grid, bicubic with antialiasing, at each forward pass; sides must be multiples of the patch. Checkpoints of DINO,
  DINOv2 and transformers are taken as their own code does, which differs a little (`--set positions=dino`).
- **Features** (`feature` of knn, linear, …): `cls`, `patch_mean`, both after the final norm; `block1` to `block12` or
  `block24`, what `cls` would be if the network ended there; several joined by `+`. DINO's linear evaluation of a ViT-S
  takes `block9+block10+block11+block12`. `layer4`, the tasks' default, is the global feature: `cls`, or `patch_mean`
  where there is no class token.
- **What no tensor tells**: heads are 64 wide, except in MoCo v3's small network (its fixed positions show it); the
  norms' epsilon is 1e-6. Configurations, attributes of a pickled network and `--set heads=12` say otherwise; see below.
- **Registers** have no position in timm. DINOv2's class token has one, which is added to the token when reading.
- **Networks of timm or transformers**, below: ViT-g and H, SwiGLU, distilled DeiT, CLIP, SigLIP, BEiT, DINOv3, and MAE
  fine-tuned with `global_pool`. DINOv2's training checkpoints are read with their chunks of blocks.
- **Targets**: timm and Hugging Face (`ViTModel`; `Dinov2Model` where there is layer scale; no registers). The others,
  and the tasks of detection and segmentation, take ResNets, and say so in one line.

## Networks of timm and transformers

- **timm**: a Hub folder (`config.json` with `architecture`, `model_args`, `pretrained_cfg`), a training checkpoint,
  or a bare file (`--arch NAME` where several have its shapes), of any
  network that `timm.list_models()` lists. The classifier's tensors are left
  out and named in the origin. Original names (DINOv3, ConvNeXt, EVA-02, AIMv2, BEiT and data2vec, open_clip, …) are
  converted by timm's own code, and every tensor must have gone into the network: one that timm would drop, resample or
  fill is an error.
- **transformers**: a folder of one of the networks on the page [Backbones](backbones.md#families), filled by
  transformers.
- **Targets**: a network of timm converts to timm, one of transformers to huggingface.

## Origins

The first branch is the default. Preprocessing is what the origin's code does; "stated" means that the file says it.

The last column says what the rule is proven against: the origin's own library or code, in our tests, or committed
numbers that its code computed (`tests/unit/references`); — means that the layout is tested, but not the origin's
outputs.

| `--source` | origin | branches | preprocessing | layout | tested by `test_readers.py` | proven against |
| --- | --- | --- | --- | --- | --- | --- |
"""

TAIL = """
The samples of timm, transformers and lightly (but `lightly_cifar`) are written by these libraries; whole pickled models
and torchvision's by torchvision. The others, mmpretrain's, solo-learn's and lightly-train's among them, are built in
the layout that the source in the table documents, with real parts where these are installed (mmengine's log buffers,
timm's transformers).

`unknown` is a file that no rule fits: its only backbone is taken, under any prefix (`unknown_prefixes`).
Our own `.safetensors` hold architecture, preprocessing and origin in the header, so nothing is guessed.

## What no tensor tells

Two networks of the same tensors can compute different things. `inspect` prints every such property with its value and
how it is known: *stated* (by the file, a file beside it, a pickled network's own attributes, or `--set`), *implied*
by the origin's code, or *assumed*. They travel with the checkpoint into certificates, results and the site.

{untold}

These are read: `config.json` and `preprocessor_config.json` beside `model.safetensors` (also when that file is named);
`config.json` and the `args` of timm; the configuration in `meta` of mmengine and mmcv; `config.yaml` beside a
detectron2 checkpoint; `args.json` beside one of solo-learn, or its `hyper_parameters`; the `opt` of SupContrast;
`train_config.yaml` beside one of VISSL; the attributes of whole pickled networks, without running them. The `model.pth`
of a detection or segmentation that was run here has its configuration inside.

Where libraries do it differently and nothing says how, the file is refused with the choices: a 3x3 stem of no known
origin (`--set stem.padding=2`), a detector of detectron2 without its `config.yaml`. An anti-aliased network of timm
has the same tensors as a plain one: `--arch resnetblur50`.

## Proof by the model itself

`cgh-bench reference script` prints one file that needs torch and NumPy; keep it as `reference.py`. Run it
where the model is, with the model in memory:

```python
from reference import record
record(model, "ref.npz", prepare=transform, size=224)  # transform: ToTensor and Normalize, without resize and crop
```

Then `--reference ref.npz` of `inspect`, `convert` and `eval` compares the prepared images, the output of every layer
with weights (paired by these, whatever each side calls them) and the global feature. Where they differ, known causes
are tried, and the error says what to set:

```text
check failed: byol differs from the model of ref.npz: your model's stem pads by 2: add --set stem.padding=2
```

From Python: `cgh_bench.certify(model, checkpoint, prepare=transform)`.

**Reach.** One word says how far the proof reaches: `origin` (compared with the model's own outputs, or trained here),
`convention` (nothing is assumed, and the origin's rule is proven in our tests, see the table above), `assumed`.

## Targets

| `--to` | what is written | beside it |
| --- | --- | --- |
"""

CERTIFICATE = """
In mmdetection and mmsegmentation the file has the backbone's own names, without `backbone.`. The fragment loads it by
`init_cfg=dict(type='Pretrained', checkpoint=…)` **without** `prefix`; the same file fills a C4 detector's shared head.
(With a prefix mmengine stops, as it should. `load_from`, which loads whole detectors, would find nothing in it.)

A written file can be read back, bit for bit, with its name, origin and preprocessing: they travel inside.

## The certificate

`OUT.certificate.json` is written beside every file. Before the file is moved into place

- it is read back and compared bit for bit;
- the target's **own** network is built from the file and the fragment (in its own process, except torchvision's),
  every tensor of the file must be in it, and no tensor of its own may be left unfilled;
- the same pixels go through the source and through the target, **preprocessing included**: what the target makes of RGB
  pixels by the fragment's mean, std and channel order, and the output of each stage (of a vision transformer: of each
  block, all tokens, at its own image size), must agree to {tolerance:.0e} of the stage's largest value. Swapped
  channels, a stride at the wrong place or another number of heads fail.

On failure nothing is left at `OUT`, the certificate says why, and the exit code is 1. `--no-verify` skips the network,
and the certificate's verdict is then "not verified". Weights whose outputs are constant prove nothing, and fail.

`CGH_MM_PYTHON` and `CGH_D2_PYTHON` name another Python that has the framework.

## Adding an origin or a target

An origin is an entry of `READERS` in `cgh_bench/reading/readers.py`, with a sample in `tests/unit/origins.py`. A target
is a class with an entry in a `CONVERTERS` of a file in `cgh_bench/converters/`. Then run
`python tools/checkpoints_page.py`.
"""


def page(samples: Mapping[str, list[str]]) -> str:
    """The page's text; `samples` are the names of the tested checkpoints of each source."""
    text = HEAD
    for name, reader in READERS.items():
        text += f"| `{name}` | {_origin(name, reader, samples.get(name, []))} |\n"
    text += TAIL.format(untold=_untold())
    converters: dict[str, Converter] = registered("cgh_bench.converters", "CONVERTERS")
    for name, converter in sorted(converters.items()):
        written = "a folder" if converter.is_folder else " or ".join(f"`{suffix}`" for suffix in converter.suffixes)
        about = " ".join((type(converter).__doc__ or "").split("\n\n")[0].split())
        text += f"| `{name}` | {written}. {about} | {converter.BESIDE} |\n"
    return text + CERTIFICATE.format(tolerance=TOLERANCE)


def _untold() -> str:
    lines = ["| property | what it is | family |", "| --- | --- | --- |"]
    for family in (ResNet, ViT, Timm):
        lines += [f"| `{name}` | {about} | {family.__name__} |" for name, about in family.UNTOLD.items()]
    lines += [f"| `{name}` | of the images; `preprocessing` sets all four by name | all |" for name in IMAGES]
    return "\n".join(lines)


_MM = "stated in `meta`; else torchvision's"
_STATED = {
    "ours": "stated",
    "mmselfsup": _MM,
    "mmpretrain": _MM,
    "mmdet": _MM,
    "mmseg": _MM,
    "lightly_train": "stated",
    "detectron2": "`pixel_mean` and `pixel_std`; else see below",
    "msra": "BGR, 0 to 255; mean 103.53, 116.28, 123.675; std 1 (ResNeXt: 57.375, 57.12, 58.395)",
    "huggingface": "stated in `preprocessor_config.json`",
    "timm": "stated in `config.json`; else assumed to be torchvision's",
}


def _origin(name: str, reader: Reader, samples: list[str]) -> str:
    if name in _STATED:
        told = _STATED[name]
    elif reader.preprocessing is None:
        told = "as its user chose: assumed to be torchvision's"
    else:
        told = f"mean {_numbers(reader.preprocessing.mean)}; std {_numbers(reader.preprocessing.std)}"
    url, _, rest = reader.url.partition(" ")
    link = f"[{url.removeprefix('https://github.com/')}]({url}) {rest}" if url.startswith("http") else f"`{url}`"
    rank = " (if nothing above fits)" if reader.rank == LAYOUT else ""
    tests = ", ".join(f"`{sample}`" for sample in samples) or "`test_checkpoint.py`"
    return f"{reader.title}{rank} | {', '.join(reader.branches)} | {told} | {link} | {tests} | {reader.proof or '—'}"


def _numbers(values: tuple[float, ...]) -> str:
    return ", ".join(f"{value:g}" for value in values)


def samples() -> dict[str, list[str]]:
    """The sample checkpoints of the tests, by source."""
    sys.path.insert(0, str(ROOT / "tests" / "unit"))
    from origins import ORIGINS

    found: dict[str, list[str]] = {}
    for name, origin in ORIGINS.items():
        found.setdefault(origin.source, []).append(name)
    return found


if __name__ == "__main__":
    write_text(PAGE, page(samples()))
