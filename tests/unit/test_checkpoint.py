"""Loading: controls, our own format, and the traps: half a network, another network, none, several."""

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from origins import Holder, ddp, optimizer, resnet, trunk
from safetensors.torch import load_file, save_file
from torch import nn

from cgh_bench.backbones.resnet import ResNet
from cgh_bench.checkpoint import FORMAT, Checkpoint, Origin, Preprocessing, describe, random_checkpoint, save
from cgh_bench.core.errors import UserError
from cgh_bench.core.saved import is_finite
from cgh_bench.reading.loading import load


def written(tmp_path: Path, document: Any) -> Path:
    torch.save(document, tmp_path / "c.pth")
    return tmp_path / "c.pth"


def refused(path: Path, what: str, **how: Any) -> str:
    with pytest.raises(UserError, match=what) as error:
        load(path, **how)
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.fixture(scope="module")
def checkpoint() -> Checkpoint:
    return random_checkpoint("resnet18")


def test_controls(checkpoint: Checkpoint) -> None:
    assert load("random:resnet18").id == checkpoint.id == load("random:resnet18:0").id
    other = load("random:resnet18:7")
    assert other.id != checkpoint.id
    assert other.origin == Origin("random", seed=7)
    for wrong in ("random:", "random:resnet18:x", "random:resnet19", "random:resnet18:1:2"):
        with pytest.raises(UserError):
            load(wrong)


def test_a_control_leaves_the_random_state_alone() -> None:
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    load("random:resnet18:5")
    assert torch.equal(torch.rand(2), expected)


def test_saved_and_read_back(tmp_path: Path, checkpoint: Checkpoint) -> None:
    given = dataclasses.replace(
        checkpoint,
        name="naïve «model»",
        preprocessing=Preprocessing("BGR", 255.0, (103.53, 116.28, 123.675), (1.0, 1.0, 1.0)),
        origin=Origin("moco_v2", "x.pth", "ab" * 32, "student", ignored=("a", "b")),
    )
    save(given, tmp_path / "c.safetensors")
    for how in ({}, {"source": "ours"}, {"branch": "model"}):
        read = load(tmp_path / "c.safetensors", **how)
        assert (read.name, read.origin, read.preprocessing, read.id) == (
            given.name, given.origin, given.preprocessing, given.id,
        )  # fmt: skip
        assert all(torch.equal(read.weights[key], tensor) for key, tensor in given.weights.items())


def test_the_same_checkpoint_is_the_same_bytes(tmp_path: Path, checkpoint: Checkpoint) -> None:
    """safetensors writes the entries of the header's metadata in a random order."""
    given = dataclasses.replace(checkpoint, name="naïve «model» \x1f\n")
    for number in range(6):
        save(given, tmp_path / f"{number}.safetensors")
    assert len({path.read_bytes() for path in tmp_path.iterdir()}) == 1
    assert load(tmp_path / "0.safetensors").id == checkpoint.id


def test_the_id_is_of_the_content(checkpoint: Checkpoint) -> None:
    assert dataclasses.replace(checkpoint, name="other", origin=Origin("x")).id == checkpoint.id
    changed = dict(checkpoint.weights) | {"bn1.bias": checkpoint.weights["bn1.bias"] + 1e-7}
    assert dataclasses.replace(checkpoint, weights=changed).id != checkpoint.id
    assert dataclasses.replace(checkpoint, preprocessing=Preprocessing("BGR")).id != checkpoint.id


def test_preprocessing_of_bgr() -> None:
    pixels = torch.rand(3, 2, 2)
    prepared = Preprocessing("BGR", 255.0, (1.0, 2.0, 3.0), (1.0, 2.0, 4.0))(pixels)
    for out, (channel, mean, std) in enumerate([(2, 1, 1), (1, 2, 2), (0, 3, 4)]):
        torch.testing.assert_close(prepared[out], (pixels[channel] * 255 - mean) / std)


def test_the_backbone_does_not_share_the_checkpoints_memory(checkpoint: Checkpoint) -> None:
    with torch.no_grad():
        checkpoint.backbone().conv1.weight.zero_()
    assert checkpoint.weights["conv1.weight"].abs().sum() > 0


def test_other_tensors_than_the_architectures_are_refused(checkpoint: Checkpoint) -> None:
    weights = dict(checkpoint.weights)
    del weights["conv1.weight"]
    with pytest.raises(UserError, match=r"1 missing \(conv1.weight\); 1 unexpected \(fc.weight\)"):
        dataclasses.replace(checkpoint, weights=weights | {"fc.weight": torch.ones(1)})


def test_damaged_description(tmp_path: Path, checkpoint: Checkpoint) -> None:
    metadata = {"format": "cgh-bench/1", "checkpoint": '{"name": 1}'}
    safetensors.torch.save_file(dict(checkpoint.weights), tmp_path / "c.safetensors", metadata)
    refused(tmp_path / "c.safetensors", "description of the weights is damaged")


# The traps


def test_nothing_matches(tmp_path: Path) -> None:
    refused(written(tmp_path, nn.Linear(2, 2).state_dict()), "2 tensors .weight, bias.*no ResNet or ViT")


def test_optimizer_only(tmp_path: Path) -> None:
    refused(written(tmp_path, {"optimizer": optimizer(resnet())}), "holds no tensors")


def test_half_a_network(tmp_path: Path) -> None:
    state = {k: v for k, v in resnet().state_dict().items() if not k.startswith("layer3.1")}
    refused(written(tmp_path, state), "cannot be used: layer3.1.*missing")


def test_without_the_last_stage(tmp_path: Path) -> None:
    state = {k: v for k, v in resnet().state_dict().items() if not k.startswith("layer4")}
    refused(written(tmp_path, state), "layer4. is missing")


def test_superfluous_tensors_inside_the_backbone(tmp_path: Path) -> None:
    """A squeeze-and-excitation network is no plain ResNet, however much of it matches."""
    state = resnet().state_dict() | {"layer1.0.se.fc1.weight": torch.ones(2, 2)}
    refused(written(tmp_path, state), "layer1.0.se.fc1.weight, which a plain ResNet does not have")


def test_average_pooled_shortcuts_are_not_taken_for_plain_ones(tmp_path: Path) -> None:
    state = {
        k.replace("downsample.1.", "downsample.2.").replace("downsample.0.", "downsample.1."): v
        for k, v in resnet("resnet50").state_dict().items()
    }
    refused(written(tmp_path, state), "downsample")


def test_group_norm_is_not_taken_for_batch_norm(tmp_path: Path) -> None:
    state = {k: v for k, v in resnet().state_dict().items() if "running" not in k and "num_batches" not in k}
    refused(written(tmp_path, state), "running_mean is missing")


def test_another_width(tmp_path: Path) -> None:
    import torchvision

    with torch.device("meta"):
        narrow = torchvision.models.resnet50(width_per_group=32)
    refused(written(tmp_path, narrow.to_empty(device="cpu").state_dict()), r"is \(32, .*\), not .*nearest: ")


def test_old_files_without_batch_counters(tmp_path: Path) -> None:
    model = resnet()
    state = {k: v for k, v in model.state_dict().items() if "num_batches" not in k}
    read = load(written(tmp_path, state))
    assert read.weights["bn1.num_batches_tracked"] == 0
    assert torch.equal(read.weights["bn1.running_var"], model.bn1.running_var)


@pytest.mark.parametrize("head", ["fc", "classifier.1", "linear_head", "head.mlp.0"])
def test_heads_of_any_name_are_ignored(tmp_path: Path, head: str) -> None:
    state = {k: v for k, v in resnet().state_dict().items() if not k.startswith("fc.")}
    read = load(written(tmp_path, state | {f"{head}.weight": torch.ones(2, 512)}))
    assert read.origin.ignored == (f"{head}.weight",)


def test_two_different_backbones_of_no_known_origin(tmp_path: Path) -> None:
    path = written(tmp_path, Holder(first=resnet(seed=1), second=resnet(seed=2)).state_dict())
    assert len(refused(path, "2 different networks.*--branch: first, second")) < 300
    assert load(path, branch="second").weights.keys() == load(path, branch="first").weights.keys()
    assert load(path, branch="second").id != load(path, branch="first").id
    refused(path, "2 different networks", branch="third")


def test_the_same_backbone_twice_is_one(tmp_path: Path) -> None:
    model = resnet()
    assert load(written(tmp_path, Holder(first=model, second=model).state_dict())).origin.source == "unknown"


def test_a_file_that_fits_two_origins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from cgh_bench.reading.readers import READERS

    monkeypatch.setitem(READERS, "twin", dataclasses.replace(READERS["moco_v2"], title="twin"))
    model = Holder(encoder_q=resnet(), queue=torch.ones(1))
    model.encoder_q.fc = nn.Sequential(nn.Linear(512, 2))
    path = written(tmp_path, {"state_dict": ddp(model)})
    refused(path, "moco_v2, twin")
    assert load(path, source="twin").origin.source == "twin"


def test_a_wrong_source(tmp_path: Path) -> None:
    path = written(tmp_path, resnet().state_dict())
    refused(path, "unknown source 'moco'; did you mean moco_v", source="moco")
    refused(path, "is not a valid moco_v2 checkpoint: no network at", source="moco_v2")


def test_a_wrong_branch(tmp_path: Path) -> None:
    refused(written(tmp_path, resnet().state_dict()), "unknown branch of torchvision 'teacher'", branch="teacher")


def test_not_finite(tmp_path: Path) -> None:
    state = resnet().state_dict()
    state["layer2.0.conv1.weight"][0, 0] = torch.nan
    refused(written(tmp_path, state), "NaN or infinity in layer2.0.conv1.weight")


@pytest.mark.parametrize("values", [[torch.inf], [torch.nan], [torch.inf, -torch.inf]])
def test_finite_is_told_by_the_sum_unless_that_overflows(values: list[float]) -> None:
    for kind in (torch.float16, torch.float32):
        large = torch.full((9,), torch.finfo(kind).max, dtype=kind)
        assert is_finite(large) and is_finite(large[:0])
        large[: len(values)] = torch.tensor(values)
        assert not is_finite(large)


COUNTER, WEIGHT = "layer1.0.bn1.num_batches_tracked", "layer1.0.conv1.weight"
ODD = {
    f"{COUNTER} is torch.int64 \\(2,\\); expected a single integer": (COUNTER, torch.zeros(2, dtype=torch.int64)),
    f"{COUNTER} is torch.int64 \\(0,\\)": (COUNTER, torch.zeros(0, dtype=torch.int64)),
    f"{COUNTER} is nan": (COUNTER, torch.tensor(torch.nan)),
    f"{COUNTER} is True": (COUNTER, torch.tensor(True)),
    f"{COUNTER} is torch.int64 \\(\\)": (COUNTER, torch.zeros((), dtype=torch.int64, device="meta")),
    f"{WEIGHT} is torch.float32, torch.sparse_coo": (WEIGHT, torch.ones(64, 64, 3, 3).to_sparse()),
    f"{WEIGHT} is torch.float32, without values": (WEIGHT, torch.ones(64, 64, 3, 3, device="meta")),
    f"{WEIGHT} is torch.complex64": (WEIGHT, torch.ones(64, 64, 3, 3, dtype=torch.complex64)),
}


@pytest.mark.parametrize("message", ODD)
def test_tensors_of_another_kind(tmp_path: Path, message: str) -> None:
    name, tensor = ODD[message]
    assert refused(written(tmp_path, {**resnet().state_dict(), name: tensor}), message).startswith(str(tmp_path))


def test_two_networks_of_which_tensors_have_no_values(tmp_path: Path) -> None:
    """They cannot be compared."""
    state = {**resnet().state_dict(), WEIGHT: ODD[f"{WEIGHT} is torch.float32, torch.sparse_coo"][1]}
    refused(written(tmp_path, {"a": state, "b": state}), "2 different networks")


def test_what_is_beside_the_network_may_be_of_any_kind(tmp_path: Path) -> None:
    nested = torch.nested.nested_tensor([torch.zeros(2), torch.zeros(3)])
    state = {**resnet().state_dict(), COUNTER: torch.tensor([7]), "other": nested, "more": torch.eye(3).to_sparse_csr()}
    assert load(written(tmp_path, state)).weights[COUNTER].item() == 7


def test_quantised(tmp_path: Path) -> None:
    state = resnet().state_dict()
    state["conv1.weight"] = (state["conv1.weight"] * 100).to(torch.int8)
    refused(written(tmp_path, state), "conv1.weight is torch.int8")


def test_double_precision_is_rounded_only_where_nothing_is_lost(tmp_path: Path) -> None:
    state = {k: v.double() if v.is_floating_point() else v for k, v in resnet().state_dict().items()}
    assert load(written(tmp_path, state)).weights["conv1.weight"].dtype == torch.float32
    state["bn1.bias"] += 1e-12
    refused(written(tmp_path, state), "bn1.bias is float64")


def test_what_is_read_is_a_copy(tmp_path: Path) -> None:
    path = written(tmp_path, resnet().state_dict())
    read = load(path)
    before = read.weights["conv1.weight"].clone()
    path.write_bytes(b"\0" * path.stat().st_size)
    assert torch.equal(read.weights["conv1.weight"], before)


def test_architecture_of_the_file(tmp_path: Path) -> None:
    read = load(written(tmp_path, resnet("resnext50_32x4d").state_dict()))
    assert read.architecture == ResNet("resnext50_32x4d")
    assert list(read.weights) == list(trunk(resnet("resnext50_32x4d")))


@pytest.mark.parametrize(
    ("change", "what"),
    [
        (lambda t: t.half(), "bn1.bias is float16 .64,., not float32"),
        (lambda t: t.to(torch.int8), "bn1.bias is int8"),
        (lambda t: t * torch.nan, "NaN or infinity in bn1.bias"),
    ],
)
def test_our_own_format_is_checked_like_any_other(change: Any, what: str, tmp_path: Path) -> None:
    """Weights that were changed after we wrote them were evaluated, or a traceback."""
    ours = random_checkpoint("resnet18")
    save(ours, tmp_path / "ours.safetensors")
    weights = load_file(tmp_path / "ours.safetensors")
    metadata = {"format": FORMAT, "checkpoint": describe(ours)}
    save_file(weights | {"bn1.bias": change(weights["bn1.bias"])}, tmp_path / "ours.safetensors", metadata)
    refused(tmp_path / "ours.safetensors", what)
