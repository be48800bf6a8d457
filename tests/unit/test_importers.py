"""Files as other tools write them: the right figures come out in per cent, and what is no such file is refused."""

import json
from pathlib import Path

import pytest

from cgh_bench import importers, tasks
from cgh_bench.core.errors import UserError
from cgh_bench.core.files import sha256
from cgh_bench.evaluation import protocol_id
from cgh_bench.importers import NO_PROTOCOL, Import
from cgh_bench.report import cells

DETECTRON2 = """\
{"data_time": 0.01, "iteration": 19, "lr": 0.02, "total_loss": 3.1}
{"bbox/AP": 30.5, "bbox/AP50": 50.1, "bbox/APs": NaN, "segm/AP": 27.0, "bbox/AP-person": 48.0, "iteration": 44999}
{"data_time": 0.01, "iteration": 60019, "lr": 0.02, "total_loss": 0.9}
{"bbox/AP": 38.9, "bbox/AP50": 59.5, "bbox/APs": NaN, "segm/AP": 34.1, "bbox/AP-person": 52.0, "iteration": 89999}
"""
MMDET = """\
{"lr": 0.02, "loss": 1.2, "epoch": 1, "step": 50}
{"coco/bbox_mAP": 0.374, "coco/bbox_mAP_50": 0.587, "coco/bbox_mAP_s": -1.0, "coco/segm_mAP": 0.345, "step": 12}
"""
MMDET_2 = """\
{"env_info": "sys.platform: linux", "config": "model = dict()"}
{"mode": "train", "epoch": 12, "loss": 0.4}
{"mode": "val", "epoch": 12, "bbox_mAP": 0.382, "bbox_mAP_75": 0.414}
"""
MMSEG = '{"loss": 0.3, "step": 80}\n{"aAcc": 95.9, "mIoU": 72.25, "mAcc": 81.5, "data_time": 0.01, "step": 80000}\n'
MMSEG_0 = '{"mode": "val", "epoch": 1, "iter": 20000, "aAcc": 0.93, "mIoU": 0.675, "mAcc": 0.77}\n'
DINO_KNN = """\
{"('full', 10) Top 1": 81.0}
{"('full', 10) Top 5": 92.0}
{"('full', 20) Top 1": 81.2}
{"('full', 20) Top 5": 92.5}
"""
DINO_LINEAR = """\
iter: 1249
{"best_classifier": {"name": "classifier_4_blocks_avgpool_True_lr_0_00500", "accuracy": 0.79}}

iter: 12499
{"best_classifier": {"name": "classifier_1_blocks_avgpool_True_lr_0_00250", "accuracy": 0.825}}

"""
MTEB = """\
{"dataset_revision": "1", "task_name": "CUB200", "mteb_version": "1.12.48", "evaluation_time": 3.5, "scores": {"test":
[{"accuracy": 0.755, "f1": 0.74, "main_score": 0.755, "hf_subset": "default", "languages": ["zxx-Zxxx"]}]}}
"""
LIGHTLY = """\
max val_online_cls_top1: 0.5
Running KNN evaluation...
knn val_top1: 0.418
knn val_top5: 0.722
Running linear evaluation...
max linear val_top1: 0.615
max linear val_top5: 0.842
"""
SOLO_KNN = """\

### BACKBONE ###
---
Running k-NN with params: distance_fx=cosine, k=20, T=0.1...
Result: acc@1=61.5, acc@5=83.25
---
Running k-NN with params: distance_fx=euclidean, k=20, T=None...
Result: acc@1=59.0, acc@5=80.0
"""
SOLO_LINEAR = '{"_runtime": 9.0, "val_acc1": 80.16, "val_acc5": 95.3, "val_loss": 0.7, "_wandb": {"runtime": 9}}'
TIMM = """\
model,top1,top1_err,top5,top5_err,param_count,img_size,crop_pct,interpolation
resnet50.a1_in1k,80.212,19.788,94.594,5.406,25.56,224,0.950,bicubic
resnet18.a1_in1k,71.492,28.508,90.076,9.924,11.69,224,0.950,bicubic
"""


def read(tmp_path: Path, tool: str, text: str, label: str = "", task: str = "") -> importers.Result:
    path = tmp_path / "file"
    path.write_text(text, encoding="utf-8")
    return importers.read(Import(path, tool, "theirs", label, task))


@pytest.mark.parametrize(
    ("tool", "text", "label", "expected"),
    [
        ("detectron2", DETECTRON2, "", {"box_AP": 38.9, "box_AP50": 59.5, "mask_AP": 34.1}),
        ("mmdet", MMDET, "", {"box_AP": 37.4, "box_AP50": 58.7, "mask_AP": 34.5}),
        ("mmdet", MMDET_2, "", {"box_AP": 38.2, "box_AP75": 41.4}),
        ("mmseg", MMSEG, "", {"mIoU": 72.25, "mAcc": 81.5, "aAcc": 95.9}),
        ("mmseg", MMSEG_0, "", {"mIoU": 67.5, "mAcc": 77.0, "aAcc": 93.0}),
        ("dino", DINO_KNN, "('full', 20)", {"top1": 81.2, "top5": 92.5}),
        ("dino", DINO_LINEAR, "", {"top1_selected_on_val": 82.5}),
        ("lightly", LIGHTLY, "linear", {"top1": 61.5, "top5": 84.2}),
        ("lightly", LIGHTLY, "knn", {"top1": 41.8, "top5": 72.2}),
        ("solo-learn", SOLO_KNN, "backbone, distance_fx=cosine, k=20, T=0.1", {"top1": 61.5, "top5": 83.25}),
        ("solo-learn", SOLO_LINEAR, "", {"top1": 80.16, "top5": 95.3}),
        ("mteb", MTEB, "test, default", {"accuracy": 75.5, "f1": 74.0}),
        ("timm", TIMM, "resnet50.a1_in1k", {"top1": 80.212, "top5": 94.594}),
    ],
)
def test_figures_come_out_in_per_cent(
    tmp_path: Path, tool: str, text: str, label: str, expected: dict[str, float]
) -> None:
    result = read(tmp_path, tool, text, label)
    assert result.metrics == pytest.approx(expected)
    assert result.imported
    assert result.protocol == NO_PROTOCOL
    assert result.origin["sha256"] == sha256(tmp_path / "file")
    assert result.checkpoint_name == "theirs"


def test_every_importer_is_tried_above() -> None:
    marks = test_figures_come_out_in_per_cent.pytestmark
    assert {case[0] for case in marks[0].args[1]} == set(importers.IMPORTERS)


@pytest.mark.parametrize("tool", importers.IMPORTERS)
@pytest.mark.parametrize("text", ["", "hello\n", "[1, 2]", "{}", '{"mode": "val"}', "a,b\n1,2\n", "\x00", "{"])
def test_what_is_no_such_file_is_refused_in_one_line(tmp_path: Path, tool: str, text: str) -> None:
    with pytest.raises(UserError) as error:
        read(tmp_path, tool, text)
    assert "\n" not in str(error.value)


def test_a_choice_among_several_is_asked_for(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"choose one with --label: knn.*linear"):
        read(tmp_path, "lightly", LIGHTLY)
    with pytest.raises(UserError, match="did you mean resnet50.a1_in1k"):
        read(tmp_path, "timm", TIMM, "resnet50.a1")


def test_only_nan_is_no_result(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no known .* metric"):
        read(tmp_path, "detectron2", '{"bbox/AP": NaN, "iteration": 9}')


def test_names_that_do_not_exist_are_answered_with_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="did you mean detectron2"):
        read(tmp_path, "detectron", DETECTRON2)
    with pytest.raises(UserError, match="did you mean"):
        read(tmp_path, "detectron2", DETECTRON2, task="coco_dett")
    with pytest.raises(UserError, match="absent not found"):
        importers.read(Import(tmp_path / "absent", "timm", "x"))


def test_a_protocol_is_followed_only_where_the_user_says_so(tmp_path: Path) -> None:
    protocol = protocol_id("coco_det", tasks.find("coco_det"))
    vouched = read(tmp_path, "detectron2", DETECTRON2, task="coco_det")
    assert (vouched.task, vouched.protocol) == ("coco_det", protocol)
    plain = read(tmp_path, "detectron2", DETECTRON2)
    notes: list[str] = []
    data = cells.newest_data([plain, vouched], [protocol])
    assert cells.usable([plain, vouched], data, "row", notes) == [vouched]
    assert notes == ["row: 1 result left out (imported without a protocol)."]
    with pytest.raises(UserError, match="has no mIoU"):
        read(tmp_path, "detectron2", DETECTRON2, task="animals_seg")


def test_an_import_neither_replaces_nor_disturbs_what_was_measured_here(tmp_path: Path) -> None:
    vouched = read(tmp_path, "detectron2", DETECTRON2, task="coco_det")
    fields = {**vars(vouched), "origin": {"source": "ours"}, "checkpoint": "00aa", "data": "ffee"}
    measured = importers.Result(**{**fields, "started": "2020-01-01T00:00:00+00:00", "metrics": {"box_AP": 1.0}})
    both = [measured, vouched]
    data = cells.newest_data(both, [vouched.protocol])
    assert data == {vouched.protocol: "ffee"}
    assert cells.usable(both, data, "row", []) == [measured]


def test_an_imported_record_survives_the_store(tmp_path: Path) -> None:
    from cgh_bench import results

    result = read(tmp_path, "timm", TIMM, "resnet50.a1_in1k")
    results.append(tmp_path / "results.jsonl", result)
    assert results.read(tmp_path / "results.jsonl") == ([result], [])
    assert json.loads(results.export_json([result]))[0]["origin"]["tool"] == "timm"
