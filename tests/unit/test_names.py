"""Names of checkpoints: the grammar, and each hub from its own cache or a server on this machine."""

import contextlib
import functools
import hashlib
import http.server
import json
import threading
from pathlib import Path

import pytest
import safetensors.torch
import torch
import torchvision
import transformers
from torchvision.models._api import Weights, WeightsEnum
from torchvision.transforms._presets import ImageClassification

from cgh_bench.cli import main
from cgh_bench.core.errors import UserError
from cgh_bench.data.transform import EvalTransform
from cgh_bench.reading import inspection, names
from cgh_bench.reading.hubs import hub_transform
from cgh_bench.reading.loading import hub_settings, load

REVISION = "f9e44c814b77203eaa57a6bdbbd535f21ede1415"


# the grammar


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("weights/r50.pth", Path("weights/r50.pth")),
        ("./timm/r50.pth", Path("timm/r50.pth")),
        ("timm/convnext_tiny.fb_in22k", names.Timm("convnext_tiny.fb_in22k")),
        ("timm/resnet18.a1_in1k@v1", names.Timm("resnet18.a1_in1k", "v1")),
        ("torchvision/resnet50.IMAGENET1K_V2", names.Torchvision("resnet50", "IMAGENET1K_V2")),
        ("hf:facebook/dinov2-small", names.HuggingFace("facebook/dinov2-small")),
        ("hf://facebook/dinov2-small", names.HuggingFace("facebook/dinov2-small")),
        (f"hf:facebook/dinov2-small@{REVISION}", names.HuggingFace("facebook/dinov2-small", REVISION)),
        ("hub:facebookresearch/dino/dino_resnet50", names.TorchHub("facebookresearch/dino", "dino_resnet50")),
        ("hub:a/b:release/1.0/entry", names.TorchHub("a/b", "entry", "release/1.0")),
        (f"https://a.org/x.pth#sha256={'0f' * 32}", names.Address("https://a.org/x.pth", "0f" * 32)),
        ("random:resnet18", names.Control("resnet18")),
        ("random:resnet18:7", names.Control("resnet18", 7)),
    ],
)
def test_a_name_is_one_of_the_forms(text, meant):
    assert names.parse(text) == meant


@pytest.mark.parametrize(
    "text",
    ["timm/", "timm/a/b", "hf:dinov2", "hf://dinov2", "hf:a/b@", "hub:dino/entry", "https://a.org/x.pth",
     "https:/a.org/x.pth", "http://a.org/x.pth", "torchvision/resnet50", "https://a.org/x.pth#sha256=12", "random:",
     "random:resnet18:x"],
)  # fmt: skip
def test_what_begins_like_a_name_and_is_none_is_refused_with_an_example(text):
    with pytest.raises(UserError, match="is not a valid checkpoint name; example") as refused:
        names.parse(text)
    assert text in str(refused.value) and "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("text", "nearest"),
    [
        ("vit_small_patch16_dinov3", "timm/vit_small_patch16_dinov3.lvd1689m"),
        ("resnet50", "torchvision/resnet50.IMAGENET1K_V"),
        ("resnet50", "random:resnet50"),
        ("convnext_tinny", "convnext_tiny"),
        ("facebook/dinov2-small", "hf:facebook/dinov2-small"),
    ],
)
def test_a_name_without_its_prefix_is_completed(text, nearest, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError) as refused:
        load(text)
    assert nearest in str(refused.value)


@pytest.mark.parametrize(
    ("text", "nearest"),
    [
        ("timm/convnext_tiny", "timm/convnext_tiny."),
        ("timm/convnext_tiny.fb_in22", "convnext_tiny.fb_in22k"),
        ("torchvision/resnet5.IMAGENET1K_V1", "resnet50"),
        ("torchvision/resnet50.IMAGENET1K_V9", "IMAGENET1K_V2"),
        ("random:resnet5", "resnet50"),
    ],
)
def test_an_unknown_name_of_a_known_kind_is_completed(text, nearest):
    with pytest.raises(UserError) as refused:
        load(text)
    assert nearest in str(refused.value)


# the Hugging Face Hub


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """A cache of the Hub without a network: `put(repo, files)` as a download would leave it."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hf"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)

    def put(repo, files):
        root = tmp_path / "hf" / f"models--{repo.replace('/', '--')}"
        folder = root / "snapshots" / REVISION
        folder.mkdir(parents=True)
        (root / "refs").mkdir()
        (root / "refs/main").write_text(REVISION)
        for name, content in files.items():
            if isinstance(content, str):
                (folder / name).write_text(content)
            else:
                safetensors.torch.save_file(content, folder / name, {"format": "pt"})
        return folder

    return put


def dinov2():
    torch.manual_seed(0)
    sizes = {"hidden_size": 192, "num_attention_heads": 3, "num_hidden_layers": 12, "image_size": 56, "patch_size": 14}
    model = transformers.Dinov2Model(transformers.Dinov2Config(**sizes))
    return model.state_dict(), model.config.to_json_string()


CARD = "---\nlicense: apache-2.0\n---\n# DINOv2\n"
PROCESSOR = {
    "size": {"shortest_edge": 256}, "crop_size": {"height": 224, "width": 224}, "do_center_crop": True, "resample": 3,
    "image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225], "rescale_factor": 1 / 255,
}  # fmt: skip


def test_a_repository_is_read_from_the_cache_with_what_the_hub_says(hub):
    state, config = dinov2()
    files = {"config.json": config, "preprocessor_config.json": json.dumps(PROCESSOR), "README.md": CARD}
    folder = hub("facebook/dinov2-tiny", {**files, "model.safetensors": state})
    found = load("hf:facebook/dinov2-tiny")
    assert found.name == "hf:facebook/dinov2-tiny" and found.id == load(folder).id
    assert (found.origin.path, found.origin.revision, found.origin.licence) == (found.name, REVISION, "apache-2.0")
    assert found.origin.sha256 == hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()
    assert found.origin.transform == EvalTransform(256, 224, "bicubic")
    assert "transform.resize=256" in hub_settings(found)


def test_inspect_shows_what_the_hub_says(hub, capsys, monkeypatch):
    state, config = dinov2()
    hub("facebook/dinov2-tiny", {"config.json": config, "README.md": CARD, "model.safetensors": state})
    monkeypatch.setattr("sys.argv", ["cgh-bench", "inspect", "hf:facebook/dinov2-tiny", "--json"])
    with pytest.raises(SystemExit):
        main()
    told = json.loads(capsys.readouterr().out)
    assert (told["revision"], told["licence"], told["transform"]) == (REVISION, "apache-2.0", None)
    report = inspection.inspect("hf:facebook/dinov2-tiny")
    assert report["architecture"]["name"] == "vit_tiny_patch14_56"
    assert any("apache-2.0" in value for _, value in inspection._lines(report))


def test_weights_of_timm_come_from_its_repository_on_the_hub(hub):
    state = torchvision.models.resnet18().state_dict()
    card = {"input_size": [3, 224, 224], "crop_pct": 0.95, "interpolation": "bicubic", "crop_mode": "center"}
    config = json.dumps({"architecture": "resnet18", "pretrained_cfg": card})
    hub("timm/resnet18.a1_in1k", {"config.json": config, "model.safetensors": state})
    found = load("timm/resnet18.a1_in1k")
    assert found.architecture.name == "resnet18" and found.origin.revision == REVISION
    assert found.origin.transform == EvalTransform(235, 224, "bicubic")


def test_without_a_network_the_message_says_which_file_and_where(hub, tmp_path):
    with pytest.raises(UserError) as refused:
        load("hf:facebook/dinov2-small")
    said = str(refused.value)
    assert "config.json" in said and str(tmp_path / "hf") in said and "hf download facebook/dinov2-small" in said
    assert "\n" not in said


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("GatedRepo", "gated.*hf auth login"),
        ("RepoNotFound", "no such repository"),
        ("RevisionNotFound", "no revision v9"),
    ],
)
def test_a_gated_or_absent_repository_says_what_to_do(code, said, tmp_path, monkeypatch):
    from huggingface_hub import constants

    class Refusing(http.server.BaseHTTPRequestHandler):
        def do_HEAD(self):
            self.send_response(403 if code == "GatedRepo" else 404)
            self.send_header("X-Error-Code", code)
            self.end_headers()

        def log_message(self, *_):
            pass

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    with serving(Refusing) as url:
        monkeypatch.setattr(constants, "ENDPOINT", url)
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", url + "/{repo_id}/resolve/{revision}/{filename}")
        with pytest.raises(UserError, match=said):
            load("hf:facebook/dinov3-vits16@v9")


def test_a_repository_without_weights_is_refused(hub):
    from huggingface_hub import constants

    folder = hub("a/b", {"config.json": "{}"})
    for name in ("model.safetensors", "pytorch_model.bin"):  # what the Hub's own client notes of an absent file
        absent = Path(constants.HF_HUB_CACHE, "models--a--b", ".no_exist", folder.name, name)
        absent.parent.mkdir(parents=True, exist_ok=True)
        absent.touch()
    with pytest.raises(UserError, match=r"model\.safetensors"):
        load("hf:a/b")


@pytest.mark.parametrize(
    ("config", "processor", "cut"),
    [
        ({}, PROCESSOR, EvalTransform(256, 224, "bicubic")),
        ({}, {"size": {"height": 224, "width": 224}, "resample": 2}, EvalTransform(224, 224, "bilinear", squash=True)),
        ({}, {"size": 224, "resample": 2}, EvalTransform(224, 224, "bilinear", squash=True)),
        ({}, {"size": {"shortest_edge": 224}, "crop_pct": 0.875, "resample": 3}, EvalTransform(256, 224, "bicubic")),
        ({}, {"size": {"shortest_edge": 256}, "resample": 3}, None),
        ({}, {"size": 224, "resample": 1}, None),
        ({}, {}, None),
        (
            {"pretrained_cfg": {"input_size": [3, 256, 256], "crop_pct": 1.0, "interpolation": "bicubic"}},
            {},
            EvalTransform(256, 256, "bicubic"),
        ),
        (
            {"pretrained_cfg": {"input_size": [3, 384, 384], "crop_mode": "squash", "interpolation": "bicubic",
                                "crop_pct": 1.0}},
            {},
            EvalTransform(384, 384, "bicubic", squash=True),
        ),
        ({"pretrained_cfg": {"input_size": [3, 256, 256], "interpolation": "random"}}, {}, None),
    ],
)  # fmt: skip
def test_the_hubs_own_transform(config, processor, cut):
    assert hub_transform(config, processor) == cut


def test_a_squashing_transform_keeps_no_shape():
    wide = torch.zeros(3, 20, 60, dtype=torch.uint8)
    assert EvalTransform(32, 32, squash=True)(wide).shape == (3, 32, 32)
    assert EvalTransform(32, None)(wide).shape == (3, 32, 96)


# torch.hub and addresses


@pytest.fixture
def torch_cache(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "torch"))
    (tmp_path / "torch/checkpoints").mkdir(parents=True)
    return tmp_path / "torch"


@contextlib.contextmanager
def serving(handler):
    """The address of a server on this machine."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.fixture
def address(tmp_path):
    """A folder, and the address that its files are served at."""

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_):
            pass

    folder = tmp_path / "served"
    folder.mkdir()
    with serving(functools.partial(Quiet, directory=folder)) as url:
        yield folder, url


def resnet_file(path):
    torch.save(torchvision.models.resnet18().state_dict(), path)
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_a_file_at_an_address_is_fetched_once_and_checked(torch_cache, address):
    folder, url = address
    digest = resnet_file(folder / "mine.pth")
    found = load(f"{url}/mine.pth#sha256={digest}")
    assert (found.origin.path, found.origin.sha256, found.name) == (f"{url}/mine.pth", digest, f"{url}/mine.pth")
    (folder / "mine.pth").unlink()
    assert load(f"{url}/mine.pth#sha256={digest}").id == found.id


def test_a_file_with_another_hash_is_refused_and_not_kept(torch_cache, address):
    folder, url = address
    resnet_file(folder / "mine.pth")
    with pytest.raises(UserError, match="invalid hash"):
        load(f"{url}/mine.pth#sha256={'0' * 64}")
    assert [path for path in torch_cache.rglob("*") if path.is_file()] == []


def test_a_file_that_was_changed_in_the_cache_is_refused(torch_cache, address):
    folder, url = address
    digest = resnet_file(folder / "mine.pth")
    load(f"{url}/mine.pth#sha256={digest}")
    (kept,) = torch_cache.rglob("mine.pth")
    kept.write_bytes(b"another")
    with pytest.raises(UserError, match="remove it"):
        load(f"{url}/mine.pth#sha256={digest}")


@pytest.mark.parametrize("name", ["torchvision/resnet18.IMAGENET1K_V1", f"http://127.0.0.1:9/x.pth#sha256={'0' * 64}"])
def test_without_a_network_the_place_in_the_cache_is_named(name, torch_cache, monkeypatch):
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")
    with pytest.raises(UserError) as refused:
        load(name)
    assert str(torch_cache) in str(refused.value) and "\n" not in str(refused.value)


@pytest.fixture
def published(address, monkeypatch):
    """Weights that torchvision publishes, of a size that a test can have."""
    folder, url = address
    digest = resnet_file(folder / "small.pth")
    name = f"small-{digest[:8]}.pth"
    (folder / "small.pth").rename(folder / name)
    cut = functools.partial(ImageClassification, crop_size=96, resize_size=128)

    class Small_Weights(WeightsEnum):
        V1 = Weights(f"{url}/{name}", cut, {"license": "BSD-3-Clause"})

    def small(*, weights: Small_Weights | None = None):
        return torchvision.models.resnet18()

    small.__module__ = "torchvision.models.resnet"
    monkeypatch.setitem(torchvision.models._api.BUILTIN_MODELS, "small", small)
    return folder / name


def test_weights_of_torchvision_come_with_its_transform(torch_cache, published):
    found = load("torchvision/small.V1")
    assert (found.name, found.origin.licence) == ("torchvision/small.V1", "BSD-3-Clause")
    assert found.origin.transform == EvalTransform(128, 96, "bilinear")
    assert found.id == load(published).id == load(torch_cache / "checkpoints" / published.name).id


HUBCONF = """
import torchvision
dependencies = ["torch"]
def tiny(pretrained=True):
    open({ran!r}, "w").close()
    return torchvision.models.resnet18()
"""


def test_a_repositorys_code_runs_only_when_it_is_trusted(torch_cache, tmp_path):
    ran = tmp_path / "ran"
    checkout = torch_cache / "somebody_network_v1"
    checkout.mkdir()
    (checkout / "hubconf.py").write_text(HUBCONF.format(ran=str(ran)))
    with pytest.raises(UserError, match="--trust-code"):
        load("hub:somebody/network:v1/tiny")
    assert not ran.exists()
    found = load("hub:somebody/network:v1/tiny", trust_code=True)
    assert ran.exists() and found.architecture.name == "resnet18"
    assert (found.origin.path, found.origin.revision) == ("hub:somebody/network:v1/tiny", "v1")


def test_an_entry_that_is_not_there_says_where_a_checkout_is_expected(torch_cache):
    (torch_cache / "somebody_network_v1").mkdir()
    (torch_cache / "somebody_network_v1/hubconf.py").write_text("dependencies = []\n")
    with pytest.raises(UserError) as refused:
        load("hub:somebody/network:v1/tiny", trust_code=True)
    assert str(torch_cache / "somebody_network_v1") in str(refused.value)
