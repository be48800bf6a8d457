"""The Python interface: a model in memory, data in memory, and what is refused."""

import json
import re
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import timm
import torch
import torchvision
import transformers
from PIL import Image
from torch import nn

import cgh_bench.api
from cgh_bench.checkpoint import random_checkpoint
from cgh_bench.cli import main
from cgh_bench.core.errors import UserError
from cgh_bench.data.dataset import from_datasets
from cgh_bench.data.transform import EvalTransform
from cgh_bench.frozen.given import from_files, read_features, write_features

SMALL = {"k": 3, "k_grid": (1, 3), "transform": EvalTransform(32, 32)}


class Pictures:
    """Squares whose colour tells their class."""

    classes = ("red", "green", "blue")

    def __init__(self, count=12, first=0):
        self.count, self.first = count, first

    def __len__(self):
        return self.count

    def __getitem__(self, index):
        if index >= self.count:
            raise IndexError(index)
        pixels = np.random.default_rng(self.first + index).integers(0, 60, (32, 40, 3), dtype=np.uint8)
        pixels[..., index % 3] += 150
        return Image.fromarray(pixels), index % 3


DATA = (Pictures(), Pictures(9, first=100))


class Net(nn.Module):
    """A network that answers as it is told."""

    def __init__(self, answer=lambda maps: maps):
        super().__init__()
        self.convolution, self.norm = nn.Conv2d(3, 8, 3, stride=4, padding=1), nn.BatchNorm2d(8)
        self.answer = answer

    def forward(self, images):
        return self.answer(self.norm(self.convolution(images)))

    def encode(self, images):
        return self.convolution(images).mean(dim=(2, 3))


# the import


def test_importing_the_package_loads_nothing_and_names_all_it_offers():
    code = "import sys, cgh_bench; assert not {'torch', 'numpy', 'timm'} & set(sys.modules); print(dir(cgh_bench))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert all(repr(name) in done.stdout for name in cgh_bench.__all__)
    assert callable(cgh_bench.evaluate) and cgh_bench.Result.__name__ == "Result"
    with pytest.raises(AttributeError, match="nothing_of_the_kind"):
        cgh_bench.nothing_of_the_kind  # noqa: B018


# evaluation


def test_a_module_and_datasets_in_memory_are_evaluated_and_nothing_is_changed(capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    net = Net().train()
    net(torch.rand(2, 3, 8, 8)).sum().backward()
    before = {key: tensor.clone() for key, tensor in net.state_dict().items()}
    gradients = [parameter.grad.clone() for parameter in net.parameters()]
    result = cgh_bench.evaluate(net, "knn", DATA, **SMALL)
    assert result.metrics["top1"] == 100 and result.work == ""
    assert result.origin["source"] == "module" and result.origin["path"] == __file__ and result.origin["sha256"]
    assert "module in memory" in repr(result) and json.loads(json.dumps(result.to_dict()))["task"] == "knn"
    assert net.training and all(torch.equal(before[key], tensor) for key, tensor in net.state_dict().items())
    assert all(torch.equal(a, p.grad) for a, p in zip(gradients, net.parameters(), strict=True))
    assert capsys.readouterr() == ("", "") and list(tmp_path.iterdir()) == []


def test_the_same_module_has_the_same_id_and_another_has_another():
    torch.manual_seed(0)
    net = Net()
    same = cgh_bench.wrap(net, image_size=32).id
    assert same == cgh_bench.wrap(net, image_size=32).id
    net.norm.eps = 0.5
    assert same != (other := cgh_bench.wrap(net, image_size=32).id)
    with torch.no_grad():
        net.convolution.bias += 1
    assert other != cgh_bench.wrap(net, image_size=32).id


def test_several_tasks_give_several_results_and_a_table_of_them(tmp_path):
    found = cgh_bench.evaluate(Net(), ["knn", "knn_leave_one_out"], DATA, work=tmp_path, transform=SMALL["transform"])
    assert [result.task for result in found] == ["knn", "knn_leave_one_out"] and repr(found).count("\n") == 1
    table = pytest.importorskip("pandas") and found.to_dataframe()
    assert set(table["source"]) == {"module"} and len(table) == sum(len(result.metrics) for result in found)
    assert not (tmp_path / "results.jsonl").exists() and (tmp_path / "cache/features").is_dir()


def test_a_stored_result_is_the_commands_own_and_is_reused(tmp_path):
    one, two = (
        cgh_bench.evaluate("random:test_resnet", "knn", DATA, seed=seed, work=tmp_path, store=True, **SMALL)
        for seed in (np.int64(0), 0)
    )
    (line,) = (tmp_path / "results.jsonl").read_text().splitlines()
    assert one == two and json.loads(line)["started"] == one.started
    assert (tmp_path / one.work / "neighbours.npz").exists()
    assert set(one.overridden) > {"k=3", "k_grid=1,3", "transform.resize=32"}


def test_progress_is_shown_when_it_is_asked_for(capsys):
    cgh_bench.evaluate("random:test_resnet", "knn", DATA, progress=True, **SMALL)
    said = capsys.readouterr()
    assert "features of Pictures/train" in said.err and said.out == ""


def test_one_dataset_and_a_share_of_it():
    pair = cgh_bench.api._pair((Pictures(), 0.25))
    assert (len(pair.train), len(pair.val)) == (9, 3) and sorted(pair.val.labels) == [0, 1, 2]


def test_folders_are_a_pair_too(tmp_path):
    for split, dataset in zip(("learn", "test"), DATA, strict=True):
        for index, (image, label) in enumerate(dataset[i] for i in range(len(dataset))):
            folder = tmp_path / split / dataset.classes[label]
            folder.mkdir(parents=True, exist_ok=True)
            image.save(folder / f"{index}.png")
    found = cgh_bench.features(Net(), (tmp_path / "learn", str(tmp_path / "test")), transform=SMALL["transform"])
    assert found.features.shape == (9, 8) and found.paths[0] == "blue/2.png" and found.classes[0] == "blue"
    assert "9 images" in repr(found)


# what a model is


@pytest.mark.parametrize(
    ("build", "architecture"),
    [
        (torchvision.models.resnet18, "resnet18"),
        (lambda: nn.DataParallel(torch.compile(torchvision.models.resnet18())), "resnet18"),
        (lambda: timm.create_model("resnet18"), "resnet18"),
        (lambda: timm.create_model("convnext_atto", num_classes=0), "convnext_atto"),
    ],
)
def test_a_network_of_a_library_is_its_architecture_if_that_is_proven(build, architecture):
    model = build()
    found = cgh_bench.wrap(model, image_size=64)
    assert found.architecture.name == architecture and found.origin.source in ("torchvision", "timm")
    pixels = torch.rand(1, 3, 64, 64)
    expected = cgh_bench.wrap(model, image_size=64, features="avgpool" if hasattr(model, "avgpool") else None)
    if hasattr(model, "avgpool"):
        torch.testing.assert_close(found.backbone()(pixels), expected.backbone()(pixels))


def test_a_network_that_was_changed_is_no_longer_that_architecture():
    model = torchvision.models.resnet18()
    model.relu = nn.LeakyReLU(0.5)
    with pytest.raises(UserError, match="classifier fc"):
        cgh_bench.wrap(model, image_size=64)
    assert cgh_bench.wrap(model, features="avgpool", image_size=64).origin.source == "module"


def test_timms_own_mean_and_std_are_asked_for():
    model = timm.create_model("resnet18", pretrained_cfg_overlay={"mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5)})
    with pytest.raises(UserError, match="preprocessing='inception'"):
        cgh_bench.wrap(model, image_size=64)
    assert cgh_bench.wrap(model, "inception", image_size=64).architecture.name == "resnet18"


@pytest.mark.parametrize(
    ("model", "features", "width"),
    [
        (Net(), None, 8),
        (Net().encode, None, 8),
        (Net(lambda maps: {"maps": maps}), "maps", 8),
        (Net(lambda maps: (maps, None)), lambda output: output[0], 8),
        (Net(lambda maps: maps.permute(0, 2, 3, 1)), lambda maps: maps.permute(0, 3, 1, 2), 8),
        (Net(lambda maps: None), "norm", 8),
        (lambda images: images.mean(dim=(2, 3)), None, 3),
    ],
)
def test_features_are_taken_as_is_said(model, features, width):
    found = cgh_bench.wrap(model, "none", features, image_size=32)
    assert found.backbone()(torch.rand(5, 3, 32, 32)).shape == (5, width)
    assert found.backbone().width(found.architecture.targets("layer4")) == width


def test_a_module_of_maps_has_one_stage():
    backbone = cgh_bench.wrap(Net(), image_size=32).backbone()
    (stage,) = backbone.stages.values()
    (maps,) = backbone.pyramid(torch.rand(1, 3, 32, 32)).values()
    assert (stage.channels, stage.stride) == (8, 4) and maps.shape == (1, 8, 8, 8)


def test_a_module_that_nobody_certifies_is_not_converted(tmp_path):
    with pytest.raises(UserError):
        cgh_bench.convert(Net(), "timm", tmp_path / "out.safetensors")
    assert list(tmp_path.iterdir()) == []


# what is refused


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (lambda maps: (maps, maps), r"tuple of 2.*features=lambda output: output\[0\]"),
        (lambda maps: {"last": maps}, "dict with last.*features='last'"),
        (lambda maps: maps.permute(0, 2, 3, 1), "channels last.*permute"),
        (lambda maps: maps.flatten(2).transpose(1, 2), r"tokens\[:, 0\]"),
        (lambda maps: maps.sum(), "features="),
        (lambda maps: maps / 0, "NaN or infinity"),
        (lambda maps: maps.reshape(7, 7), "fails on images of 64x64"),
    ],
)
def test_an_answer_that_is_not_features_says_what_to_do(answer, said):
    with pytest.raises(UserError, match=said) as refused:
        cgh_bench.wrap(Net(answer), image_size=64)
    assert "\n" not in str(refused.value)


def test_a_number_does_not_say_where_the_features_are():
    with pytest.raises(UserError, match=r"features=1; .*output\[1\]"):
        cgh_bench.wrap(Net(lambda maps: (maps, maps)), features=1, image_size=64)


def test_a_function_of_a_network_in_train_mode_is_refused():
    """Its features of an image would depend on the other images of the batch."""
    network = Net().train()
    with pytest.raises(UserError, match=r"\.eval\(\)"):
        cgh_bench.wrap(lambda images: network(images) * 2, image_size=64)


def test_channels_last_are_told_by_the_shape_of_the_images():
    cgh_bench.wrap(Net(), image_size=(64, 96))
    with pytest.raises(UserError, match=r"channels last.*permute"):
        cgh_bench.wrap(Net(lambda maps: maps.permute(0, 2, 3, 1)), image_size=(64, 96))


class Fixed:
    def __init__(self, *items, classes=None):
        self.items = items
        if classes:
            self.classes = classes

    def __len__(self):
        return len(self.items)

    def __getitem__(self, index):
        return self.items[index]


PIXELS = torch.zeros(3, 8, 8, dtype=torch.uint8)


@pytest.mark.parametrize(
    ("items", "said"),
    [
        ([PIXELS], r"train\[0\] is a Tensor, not a pair"),
        ([{"image": PIXELS, "label": 0}], "not a pair"),
        ([(PIXELS, 1), (PIXELS, 2)], "must start at 0"),
        ([(PIXELS.float(), 0)], "uint8"),
        ([(PIXELS.permute(1, 2, 0), 0)], "uint8"),
        ([(PIXELS, "cat")], "expected an integer"),
        ([(PIXELS, 0), (PIXELS, [0, 1])], "all vectors"),
        ([], "dataset is empty"),
    ],
)
def test_items_that_are_not_image_and_label_are_refused(items, said):
    with pytest.raises(UserError, match=said):
        from_datasets(Fixed(*items), Fixed(*items))


def test_labels_beyond_the_classes_are_refused():
    items = [(PIXELS, 0), (PIXELS, 2)]
    with pytest.raises(UserError, match="2 classes"):
        from_datasets(Fixed(*items, classes=["a", "b"]), Fixed(*items))


def test_images_of_every_kind_are_read_alike():
    array = np.random.default_rng(0).integers(0, 255, (8, 9, 3), dtype=np.uint8)
    kinds = (Image.fromarray(array), array, torch.from_numpy(array).permute(2, 0, 1))
    pair = from_datasets(Fixed(*((kind, 0) for kind in kinds)), Fixed((kinds[0], 0)))
    assert all(torch.equal(pair.train.image(row), pair.val.image(0)) for row in range(3))
    vectors = from_datasets(Fixed((array, [0, 1, 1])), Fixed((array[..., 0], torch.tensor([1, 0, 0]))))
    assert vectors.train.multi_label and vectors.val.image(0).shape == (3, 8, 9)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"model": "resnet18"}, "random:resnet18"),
        ({"model": 5}, "type int is not a model"),
        ({"model": {"conv1.weight": torch.zeros(2, 2)}}, "type dict is not a model"),
        ({"model": nn.Flatten}, "class Flatten is not a model"),
        ({"seed": "a"}, "seed='a'"),
        ({"seed": -1}, "seed=-1"),
        ({"tasks": "knm"}, "knn"),
        ({"tasks": "knn,linear"}, "list"),
        ({"data": 3}, "int"),
        ({"data": (Pictures(), 3)}, "pair"),
        ({"data": None}, "data"),
        ({"kk": 3}, "^kk=3 .*'kk'.*k"),
        ({"store": True}, "work="),
        ({"transform": "hub"}, "transform.resize"),
        ({"features": "fc"}, "in memory"),
        ({"tasks": "animals_det"}, "own dataset"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(changed, said):
    with pytest.raises(UserError, match=said) as refused:
        cgh_bench.evaluate(**{"model": "random:resnet18", "tasks": "knn", "data": DATA, **changed})
    assert "\n" not in str(refused.value)


def test_an_argument_that_load_does_not_have_is_refused():
    with pytest.raises(TypeError, match="'brnach'"):
        cgh_bench.load("random:resnet18", brnach="teacher")


# the hub's transform, and several checkpoints


def test_the_hubs_transform_is_part_of_the_protocol():
    checkpoint = random_checkpoint("test_resnet")
    cut = EvalTransform(36, 32, "bicubic")
    published = replace(checkpoint, origin=replace(checkpoint.origin, transform=cut))
    found = cgh_bench.evaluate(published, "knn", DATA, k=3, k_grid=(1, 3), transform="hub")
    assert found.config["transform"]["resize"] == 36 and found.config["transform"]["interpolation"] == "bicubic"
    assert found.protocol == cgh_bench.evaluate(checkpoint, "knn", DATA, k=3, k_grid=(1, 3), transform=cut).protocol
    assert found.protocol != cgh_bench.evaluate(published, "knn", DATA, **SMALL).protocol


def command(monkeypatch, *words):
    monkeypatch.setattr("sys.argv", ["cgh-bench", *map(str, words)])
    with pytest.raises(SystemExit) as left:
        main()
    return left.value.code or 0


def photos(folder):
    for split, dataset in zip(("train", "val"), DATA, strict=True):
        for index in range(len(dataset)):
            image, label = dataset[index]
            place = folder / split / dataset.classes[label]
            place.mkdir(parents=True, exist_ok=True)
            image.save(place / f"{index}.png")
    return folder


def test_bare_files_of_timm_are_evaluated_watched_and_reported(tmp_path, monkeypatch, capsys):
    """Two files by one --arch; watch finds them finished; a table says that something is assumed."""
    for seed, name in enumerate(("one.v1", "two.v2")):
        torch.manual_seed(seed)
        (tmp_path / "runs").mkdir(exist_ok=True)
        torch.save(timm.create_model("test_convnext").state_dict(), tmp_path / "runs" / f"{name}.pth")
    data, work, pattern = photos(tmp_path / "photos"), tmp_path / "work", tmp_path / "runs/*.pth"
    words = ["eval", "knn", "--ckpt", pattern, "--arch", "test_convnext", "--data", data, "--work", work]
    assert command(monkeypatch, *words) == 0
    said = capsys.readouterr().out
    assert said.count("proof of the weights: assumed") == 2
    watched = ["watch", tmp_path / "runs", "--task", "knn", "--data", data, "--work", work, "--once"]
    assert command(monkeypatch, *watched) == 0 and capsys.readouterr().out.count("reused") == 2
    results = [json.loads(line) for line in (work / "results.jsonl").read_text().splitlines()]
    assert [result["checkpoint_name"] for result in results] == ["one.v1", "two.v2"]
    assert command(monkeypatch, "results", "list", "--work", work) == 0
    assert "proof of the weights: assumed" in capsys.readouterr().out
    shape = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "image_size": 32, "patch_size": 16}
    transformers.Dinov2Model(transformers.Dinov2Config(**shape)).save_pretrained(tmp_path / "dinov2_folder")
    words = ["eval", "knn", "--ckpt", tmp_path / "dinov2_folder", "--data", data, "--work", work]
    assert command(monkeypatch, *words) == 0
    assert command(monkeypatch, "report", "--work", work) == 0
    page = (work / "site/index.html").read_text(encoding="utf-8")
    assert "3 results of 3 backbones" in " ".join(re.sub("<[^>]*>", " ", page).split()) and "left out" not in page
    assert command(monkeypatch, "compare", "one.v1", "dinov2_folder", "--work", work) == 0


# features in files


def blobs(folder, suffix, seed=0, **changed):
    rng = np.random.default_rng(seed)
    labels = np.repeat(np.arange(3), 8)
    features = (3 * np.eye(3, 5)[labels] + rng.normal(size=(24, 5))).astype(np.float32)
    path = folder / f"{seed}{suffix}"
    given = {"features": features, "labels": labels, "classes": ("a", "b", "c"), **changed}
    write_features(path, **given, paths=[f"{row}.png" for row in range(24)])
    return path, features


@pytest.mark.parametrize("suffix", [".npz", ".npy", ".safetensors", ".parquet"])
def test_what_is_written_is_read(tmp_path, suffix):
    if suffix == ".parquet":
        pytest.importorskip("pyarrow")
    path, features = blobs(tmp_path, suffix)
    found = read_features(path)
    assert np.array_equal(found.features, features) and found.labels.tolist() == [0] * 8 + [1] * 8 + [2] * 8
    if suffix != ".npy":
        assert found.classes == ("a", "b", "c") and found.called(3) == "3.png"


def test_features_are_evaluated_by_the_command(tmp_path, monkeypatch, capsys):
    files = ",".join(str(blobs(tmp_path, ".npz", seed)[0]) for seed in (0, 1))
    words = ["eval", "knn,knn_leave_one_out", "--features", files, "--work", str(tmp_path / "work")]
    assert command(monkeypatch, *words) == 0, capsys.readouterr().err
    records = [json.loads(line) for line in (tmp_path / "work/results.jsonl").read_text().splitlines()]
    assert {record["task"] for record in records} == {"knn", "knn_leave_one_out"}
    assert all(record["metrics"]["top1"] > 80 and record["origin"]["source"] == "features" for record in records)


def test_features_are_exported_by_the_command(tmp_path, monkeypatch, capsys):
    words = [
        "features",
        "export",
        "random:test_resnet",
        "--data",
        photos(tmp_path / "photos"),
        "-o",
        tmp_path / "f.npz",
    ]
    assert command(monkeypatch, *words, "--resize", "32", "--crop", "32") == 0
    found = read_features(tmp_path / "f.val.npz")
    assert found.features.shape == (9, 96) and found.classes == ("blue", "green", "red") and found.called(0)
    assert (tmp_path / "f.train.npz").exists()


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"features": np.full((24, 5), np.nan, np.float32)}, "24 rows contain NaN"),
        ({"features": np.zeros((23, 5), np.float32)}, r"labels \(24,\)"),
        ({"features": np.zeros((24, 5), np.int64)}, "floats"),
        ({"labels": np.repeat(np.arange(1, 4), 8)}, "start at 0"),
        ({"labels": np.zeros(24)}, "whole numbers"),
    ],
)
def test_features_that_cannot_be_used_are_refused(tmp_path, changed, said):
    with pytest.raises(UserError, match=said):
        read_features(blobs(tmp_path, ".npz", **changed)[0])


def test_files_that_do_not_fit_or_are_absent_are_refused(tmp_path):
    path, _ = blobs(tmp_path, ".npz")
    other, _ = blobs(tmp_path, ".npz", 1, features=np.zeros((24, 4), np.float32))
    with pytest.raises(UserError, match="width 5.*of 4"):
        from_files(path, other)
    with pytest.raises(UserError, match="no such file"):
        read_features(tmp_path / "nowhere.npz")
    with pytest.raises(UserError, match=".safetensors"):
        read_features(tmp_path / "x.csv")
    np.savez(tmp_path / "bare.npz", features=np.zeros((2, 2)))
    with pytest.raises(UserError, match="labels"):
        read_features(tmp_path / "bare.npz")


def test_a_task_that_needs_images_refuses_features(tmp_path):
    checkpoint, pair = from_files(blobs(tmp_path, ".npz")[0], blobs(tmp_path, ".npz", 1)[0])
    with pytest.raises(UserError, match="needs images"):
        cgh_bench.evaluate(checkpoint, "linear_views", pair)
