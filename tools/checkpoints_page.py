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
from cgh_bench.data.preprocessing import IMAGES
from cgh_bench.reading.readers import LAYOUT, READERS, Reader

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "checkpoints.md"

HEAD = """# Checkpoints

<!-- Written by tools/checkpoints_page.py from the code; do not edit. -->

`cgh-bench inspect FILE` identifies a checkpoint. `cgh-bench convert FILE --to TARGET -o OUT` writes it for another
framework and proves that it computes the same outputs there. Every command that takes a checkpoint reads all formats
below.

## How a file is read

1. **Open without executing.** PyTorch files (both formats), safetensors, `.npz`, NumPy pickles, Hugging Face and
   accelerate folders. Anything in a pickle other than tensors, arrays and plain values (logs, settings, your own
   classes) is replaced by an empty stand-in: its class is neither imported nor called. The tensors of a whole pickled
   model are read in the same way. A pickle that would run a command (such as `os.system`) is refused, and the error
   names the command. Prefixes added by FSDP and activation checkpointing are removed. Distributed checkpoints (DCP),
   DTensors and TorchScript are refused; the error gives the command that converts them to a single file.
2. **Search for backbones.** ResNets and plain vision transformers are found in all known naming schemes, at any depth,
   under any prefix; `module.` (DataParallel) and `_orig_mod.` (torch.compile) are ignored. Other networks are found if
   the file names them: a timm or transformers folder, or a timm training checkpoint (`arch`). A bare file of such a
   network is recognised by the names and shapes of its tensors if exactly one timm model matches; if several do, name
   it: `--arch convnext_tiny`. A backbone must be complete: every tensor of the architecture, with the right shape, and
   no others; the error names the first tensor that does not match.
3. **Identify the origin** by the rules below. Exactly one must match; otherwise the error says what was tried and why
   each failed, and you choose with `--source`. A file of unknown origin is accepted if it holds a single backbone.
4. **Select one backbone**: the origin's default, or `--branch`. `inspect` names the one that is used and every other
   network in the file, such as an average of the weights (`model_ema`). Heads, queues and optimisers are dropped; their
   names are listed in the checkpoint's origin.

Supported are torchvision's ResNet-18, 34, 50, 101, 152, wide ResNets and ResNeXts; 7x7, CIFAR (3x3) and deep (v1c)
stems; and the stride in the 3x3 or, as in Caffe networks, in the first 1x1 convolution. Half precision is converted to
float32; float64 only if no precision is lost. NaN and infinity are refused.

## Vision transformers

ViT-Ti, S, B and L with any patch size, for square images of any size, with or without class token, register tokens and
layer scale. Names and network are timm's: `vit_small_patch16_224` states model size, patch size, and the image size of
its position embeddings. `random:vit_small_patch16_224:1` is a control.

- **Other image sizes** work as in timm: at each forward pass, the position embeddings of the patches are resampled to
  the new grid (bicubic, antialiased); sides must be multiples of the patch size. For checkpoints of DINO, DINOv2 and
  transformers, they are resampled as in those libraries, which differs slightly (`--set positions=dino`).
- **Features** (`feature` of knn, linear, …): `cls` and `patch_mean`, both after the final norm; `block1` to `block12`
  or `block24`, the value of `cls` if the network ended there; join several with `+`. DINO's linear evaluation of a
  ViT-S uses `block9+block10+block11+block12`. `layer4`, the default of most tasks, is the global feature: `cls`, or
  `patch_mean` if there is no class token.
- **Properties that tensors do not determine**: heads are assumed to be 64 wide, except in MoCo v3's small network
  (recognised by its fixed position embeddings), and the norms' epsilon is assumed to be 1e-6. Configuration files,
  attributes of a pickled network and `--set heads=12` override this; see below.
- **Registers** have no position embedding in timm. In DINOv2 the class token has one, which is added to the token when
  reading.
- **Read as timm or transformers networks** (below): ViT-g and H, SwiGLU, distilled DeiT, CLIP, SigLIP, BEiT, DINOv3,
  and MAE fine-tuned with `global_pool`. DINOv2's training checkpoints with chunked blocks are supported.
- **Targets**: timm and Hugging Face (`ViTModel`; `Dinov2Model` with layer scale; no registers). The other targets
  accept only ResNets, and say so in one line.

## timm and transformers networks

- **timm**: a Hub folder (`config.json` with `architecture`, `model_args`, `pretrained_cfg`), a training checkpoint, or
  a bare file (`--arch NAME` if several models have its shapes) of any network in `timm.list_models()`. The classifier's
  tensors are left out and listed in the origin. Original names (DINOv3, ConvNeXt, EVA-02, AIMv2, BEiT and data2vec,
  open_clip, …) are converted by timm's own code, and every tensor must end up in the network: if timm would drop,
  resample or fill one, that is an error.
- **transformers**: a folder of one of the networks listed in [Backbones](backbones.md#families), loaded by
  transformers.
- **Targets**: timm networks convert to timm, transformers networks to huggingface.

## Origins

The first branch is the default. Preprocessing is that of the origin's code; "stated" means that the file states it.

The last column says what the rule is verified against: the origin's own library or code, run in our tests, or saved
numbers computed by its code (`tests/unit/references`); — means that the layout is tested, but not the origin's
outputs.

| `--source` | origin | branches | preprocessing | layout | tested by `test_readers.py` | verified against |
| --- | --- | --- | --- | --- | --- | --- |
"""

TAIL = """
The test samples of timm, transformers and lightly (except `lightly_cifar`) are written by these libraries; those of
torchvision and of whole pickled models by torchvision. The others, including mmpretrain, solo-learn and lightly-train,
are built in the layout documented by the source in the table, with real components where these are installed
(mmengine's log buffers, timm's transformers).

`unknown` is a file that matches no rule: its only backbone is used, under any prefix (`unknown_prefixes`).
Our own `.safetensors` files store architecture, preprocessing and origin in the header, so nothing is guessed.

## Properties that tensors do not determine

Two networks with the same tensors can compute different outputs. `inspect` prints every such property with its value
and how it is known: *stated* (by the file, a file beside it, a pickled network's own attributes, or `--set`), *implied*
by the origin's code, or *assumed*. They are stored with the checkpoint and shown in certificates, results and the site.

{untold}

They are read from `config.json` and `preprocessor_config.json` beside `model.safetensors` (also if you name that file);
timm's `config.json` and `args`; the configuration in mmengine's and mmcv's `meta`; `config.yaml` beside a
detectron2 checkpoint; `args.json` beside a solo-learn checkpoint, or its `hyper_parameters`; SupContrast's `opt`;
`train_config.yaml` beside a VISSL checkpoint; and the attributes of whole pickled networks, without running them. The
`model.pth` of a detection or segmentation run made here contains its configuration.

If libraries differ and nothing states the value, the file is refused and the error lists the choices. Examples are a
3x3 stem of unknown origin (`--set stem.padding=2`) and a detectron2 detector without its `config.yaml`. An anti-aliased
timm network has the same tensors as a plain one: `--arch resnetblur50`.

## Verify against the original model

`cgh-bench reference script` prints a single file that needs only torch and NumPy; save it as `reference.py`. Run it
where the original model can be loaded:

```python
from reference import record
record(model, "ref.npz", prepare=transform, size=224)  # transform: ToTensor and Normalize, without resize and crop
```

Then `inspect`, `convert` and `eval` with `--reference ref.npz` compare the preprocessed images, the output of every
layer with weights (matched by their values, whatever their names) and the global feature. If they differ, known causes
are tried, and the error says what to set:

```text
check failed: byol differs from the model of ref.npz: your model's stem pads by 2: add --set stem.padding=2
```

From Python: `cgh_bench.certify(model, checkpoint, prepare=transform)`.

**Level of evidence.** One word states it: `origin` (compared with the model's own outputs, or trained here),
`convention` (nothing is assumed, and the origin's rule is verified in our tests, see the table above), or `assumed`.

## Targets

| `--to` | what is written | beside it |
| --- | --- | --- |
"""

CERTIFICATE = """
For mmdetection and mmsegmentation, the file has the backbone's own names, without `backbone.`. The configuration
fragment loads it with `init_cfg=dict(type='Pretrained', checkpoint=…)` **without** `prefix`; the same file fills a C4
detector's shared head. (With a prefix, mmengine stops with an error. `load_from`, which loads whole detectors, would
find nothing in it.)

A written file can be read back bit for bit; its name, origin and preprocessing are stored inside.

## The certificate

`OUT.certificate.json` is written beside every file. Before the file is moved into place,

- it is read back and compared bit for bit;
- the target's **own** network is built from the file and the fragment (in a separate process, except for torchvision);
  every tensor of the file must be in it, and every tensor of the network must come from the file;
- the same pixels pass through source and target, **preprocessing included**: the target's preprocessing of RGB pixels
  with the fragment's mean, std and channel order, and the output of each stage (for a vision transformer: of each
  block, all tokens, at its own image size), must agree to {tolerance:.0e} of the stage's largest value. Swapped
  channels, a misplaced stride or a wrong number of heads fail.

On failure, nothing is left at `OUT`, the certificate says why, and the exit code is 1. `--no-verify` skips the network;
the certificate's verdict is then "not verified". Weights whose outputs are constant prove nothing, and fail.

`CGH_MM_PYTHON` and `CGH_D2_PYTHON` name another Python that has the framework.

## Adding an origin or a target

An origin is an entry in `READERS` in `cgh_bench/reading/readers.py`, with a sample in `tests/unit/origins.py`. A target
is a class with an entry in `CONVERTERS` in a file in `cgh_bench/converters/`. Then run
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
    lines += [f"| `{name}` | preprocessing; `--set preprocessing=NAME` sets all four | all |" for name in IMAGES]
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
        told = "chosen by the user: assumed to be torchvision's"
    else:
        told = f"mean {_numbers(reader.preprocessing.mean)}; std {_numbers(reader.preprocessing.std)}"
    url, _, rest = reader.url.partition(" ")
    link = f"[{url.removeprefix('https://github.com/')}]({url}) {rest}" if url.startswith("http") else f"`{url}`"
    rank = " (if nothing above matches)" if reader.rank == LAYOUT else ""
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
