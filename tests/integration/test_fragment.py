"""The fragment beside a converted file works as its note says: laid over mmdetection's own config, it trains a step."""

from pathlib import Path

import pytest
import torch

from cgh_bench.checkpoint import random_checkpoint
from cgh_bench.converters.convert import convert
from cgh_bench.transfer_configs.openmmlab import ops

pytestmark = pytest.mark.slow


def test_mmdetections_own_config_with_the_fragment_trains_a_step(tmp_path: Path) -> None:
    mmdet = pytest.importorskip("mmdet")
    ops.install()
    from mmdet.registry import MODELS
    from mmdet.structures import DetDataSample
    from mmdet.utils import register_all_modules
    from mmengine.config import Config
    from mmengine.structures import InstanceData

    given = random_checkpoint("resnet50")
    convert(given, "mmdet", tmp_path / "x.pth", verify=False)
    stock = Path(mmdet.__file__).parent / ".mim/configs/faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py"
    fragment = tmp_path / "x.pth.config.py"
    note, quotes, rest = fragment.read_text().rpartition('"""\n')
    fragment.write_text(f"{note}{quotes}_base_ = {str(stock)!r}\n{rest}")
    config = Config.fromfile(fragment)
    register_all_modules(init_default_scope=True)
    model = MODELS.build(config.model)
    model.init_weights()
    arrived = model.backbone.state_dict()
    assert all(torch.equal(arrived[key], tensor) for key, tensor in given.weights.items())
    truth = InstanceData(bboxes=torch.tensor([[8.0, 8.0, 40.0, 48.0]]), labels=torch.tensor([3]))
    sample = DetDataSample(metainfo={"img_shape": (64, 64), "ori_shape": (64, 64), "scale_factor": (1.0, 1.0)})
    sample.gt_instances = truth
    data = {"inputs": [torch.randint(0, 256, (3, 64, 64), dtype=torch.uint8)], "data_samples": [sample]}
    losses = model(**model.data_preprocessor(data, training=True), mode="loss")
    loss, _ = model.parse_losses(losses)
    loss.backward()
    torch.optim.SGD(model.parameters(), 1e-3).step()
    assert not torch.equal(model.backbone.layer4[2].conv3.weight, given.weights["layer4.2.conv3.weight"])
