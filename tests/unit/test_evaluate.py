import itertools
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
from PIL import Image
from toy_images import toy_data

from cgh_bench import results
from cgh_bench.checkpoint import Checkpoint, random_checkpoint
from cgh_bench.core.errors import CheckFailed, UserError
from cgh_bench.core.files import alone_in
from cgh_bench.core.registry import registered
from cgh_bench.evaluation import Evaluation, configured, evaluate, find_finished, plan, prepare, protocol_id
from cgh_bench.tasks.base import Data, Folders, Metric, Task
from cgh_bench.tasks.knn import KNN
from cgh_bench.workspace import Workspace

# The protocols of all frozen tasks as they are published: a changed default must change the id, and this list with it.
PROTOCOLS = """
animals_ridge_10shot@085bf88b ridge_10shot@1ee361fc ridge_1shot@36ea1715 ridge_25shot@14e3aa43 ridge_5shot@179cf0ba
imagenet_linear@d6870e06 vtab_caltech101_logistic@ae6abedd vtab_cifar_logistic@db06fa14
vtab_clevr_count_logistic@7a942475 vtab_clevr_dist_logistic@6badcf55 vtab_diabetic_retinopathy_logistic@0d3a07f9
vtab_dmlab_logistic@bc7ab8cb vtab_dsprites_loc_logistic@846fae7c vtab_dsprites_ori_logistic@436acf17
vtab_dtd_logistic@db348709 vtab_eurosat_logistic@5138fbbc vtab_kitti_logistic@4eb3f58f
vtab_oxford_flowers102_logistic@e7f2f27c vtab_oxford_iiit_pet_logistic@069966b1 vtab_patch_camelyon_logistic@a12d1c95
vtab_resisc45_logistic@c2de4f8c vtab_smallnorb_azi_logistic@98031255 vtab_smallnorb_ele_logistic@fba99555
vtab_sun397_logistic@b361beec vtab_svhn_logistic@f62ed70f
animals_background_shifted@776d44a0 animals_small_shifted@95759d63 imagenet_a_shifted@b1197f52 imagenet_c@ba1b825a
imagenet_r_shifted@36e4bb83 imagenet_real_shifted@560ff9a8 imagenet_sketch_shifted@cb1a6ac9 imagenet_v2_shifted@2d6a6404
objectnet_shifted@c3bce302 shifted@c509a3c1
ade20k_incontext@b7d9c8e5 ade20k_incontext_128@5ad33a63 ade20k_incontext_64@3d0562f6 ade20k_incontext_8@685a7e71
ade20k_patch_knn@328e5e9c ade20k_patch_logistic@9552b622 animals_calibration@b6329eaf animals_correspondence@4194c726
animals_corruptions@3bf32a4d animals_incontext@d81cc3a7 animals_label_free@1b507c2a animals_patch_knn@5ca521cf
animals_patch_logistic@1e85974c animals_retrieval@698de533 calibration@3a85315d cityscapes_incontext@929138b4
corruptions@2ff542d9 imagenet_calibration@68650a3a imagenet_label_free@20217bd9 incontext@e660309a label_free@b01f71a2
ood@e88c9ce1 patch_knn@fc016f84 patch_logistic@5e6512e2 retrieval@37638d46 retrieval_among_val@eca72edd
ade20k_dense_linear@2af9532d ade20k_dense_linear_bnhead@b306c2c8 ade20k_dense_linear_dinov3@9eec981f
animals_dense_linear@eb53e63f animals_depth@91f998a7 animals_normals@aa83fa9c cityscapes_dense_linear@2f860337
cityscapes_dense_linear_bnhead@cd3a065f cityscapes_dense_linear_dinov3@c18bd720 dense_linear@6dc8706b depth@b5c4dc08
kitti_depth@6da1e04d normals@41f6f861 nyu_depth@30ee0faf voc_dense_linear@a1204c88 voc_dense_linear_bnhead@4ec3fa7c
voc_dense_linear_dinov3@c15873aa animals_incontext_fine@a32c9109
spair_correspondence@709470d8 voc_incontext@3ad223ea voc_incontext_128@fe76afb7 voc_incontext_64@482b2e5a
voc_incontext_8@d7575dad voc_incontext_hummingbird@8abd571b voc_patch_knn@27204e71 voc_patch_logistic@7978d12b
clusters@98d17029 imagenet_clusters@f2d50165 animals_clusters@921ed393
imagenet_1pct_swav@01381e0e imagenet_10pct_swav@9c687595 imagenet_1pct_vicreg@7aed4444 imagenet_10pct_vicreg@eb1793a0
imagenet_1pct_barlow@c88e3940 imagenet_1pct_cgh@f0e619b5 imagenet_10pct_cgh@619e1f28
imagenet_1pct_lewel@80e5f475 imagenet_10pct_lewel@ecf7f124 imagenet_linear_vicreg@aa211c9e
finetune@3c24e24d animals_finetune@92714765 animals_finetune_10pct@fcc3bbd8
knn@994f4096 animals_knn@c934ccba imagenet_knn@fcc6e7f9 imagenet100_knn@1bbfe69b imagenet1k_1pct_knn@be6340c0
imagenet1k_10pct_knn@8342f105 tiny_imagenet_knn@8e7fca06 cifar10_knn@14d8406c cifar100_knn@4de58734 stl10_knn@e3c7764a
food101_knn@de070223 flowers102_knn@a2b8181a pets_knn@993aaa41 dtd_knn@a33fc5ce aircraft_knn@feff6187 cars_knn@bcb975f0
sun397_knn@e1d91164 caltech101_knn@2aa77f0f voc07_knn@cb87bfdb knn_multi_label@78ef3f76 knn_approximate@2a2a09de
knn_1shot@2e2eeacd knn_5shot@5e95609c knn_10shot@ae367db4 animals_knn_5shot@76dd27cf
knn_grid@480f3a65 animals_knn_grid@54a8af06 imagenet_knn_grid@424947ac
knn_leave_one_out@667b1c62 animals_knn_leave_one_out@0e749658
linear@80a0953d linear_views@d6a1e391 animals_linear@76e1b616 animals_linear_views@a0d83d2f
animals_attentive@a1d83843 animals_finetune_vit@22cfa02d attentive@b7381fcf finetune_vit@da4ba9a6
imagenet_c_19@6342bf55
imagenet_attentive_capi@7fcccd17 imagenet_finetune_beit_base@01265340 imagenet_finetune_beit_large@99c94dc3
imagenet_finetune_mae_base@be7681e5 imagenet_finetune_mae_huge@7b9eb6ca imagenet_finetune_mae_large@cf3c6893
linear_sgd@09b888ea imagenet_linear_moco@6f5b1cc7 imagenet_linear_cgh@966d2e3f imagenet_linear_swav@d2b1a60a
imagenet_linear_lewel@2c80c152 imagenet_linear_simsiam@3c6fe11f imagenet_linear_dinov2@3ebc47fd
animals_linear_sgd@5deda565
animals_tracking@7ea9a911 davis_tracking@68ff2fce
animals_discovery@6fbd1987 voc07_discovery@c0202c1e voc12_discovery@ff729726 coco20k_discovery@be835649
animals_linear_path@670c2439 camelyon17_knn@62a183b3 camelyon17_logistic@2b6b4492 imagenet_linear_path@16ad7790
linear_path@6c9368c9 waterbirds_knn@4e739b05 waterbirds_logistic@1cda55d4
amstertime_retrieval@39118cdc copydays_retrieval@12deeb2d met_retrieval@3bf972c7 roxford_retrieval@48c7067b
rparis_retrieval@6d08698d
food101_logistic@62001806 cifar10_logistic@99d5ccb4 cifar100_logistic@d2f41820 sun397_logistic@3aabc2be
cars_logistic@b14ee7e9 dtd_logistic@b4d0cd1c aircraft_logistic@db6590ac pets_logistic@411d5860
caltech101_logistic@842a1c9f flowers102_logistic@35e8cbbb logistic@87b3357f animals_logistic@5dd206a0
voc07_svm@05cf9438 animals_svm@f425492d
aircraft_logistic_dinov2@3ab6464c animals_linear_path@670c2439 animals_logistic_dinov2@b3f56162 birdsnap_knn@827d28c5
birdsnap_logistic@a7f52557 birdsnap_logistic_dinov2@ebd5d45f bloodmnist_knn@acec6e33 bloodmnist_logistic@5f06242a
bloodmnist_logistic_dinov2@3e192c58 breastmnist_knn@c6ff16da breastmnist_logistic@cff0028d
breastmnist_logistic_dinov2@3f010c1e caltech101_logistic_dinov2@3075bc8c camelyon17_knn@62a183b3
camelyon17_logistic@2b6b4492 camelyon17_logistic_dinov2@61a61cf7 cars_logistic_dinov2@8a9b4c92
cifar100_logistic_dinov2@0cf8bab7 cifar10_logistic_dinov2@01a4ffa3 cub200_knn@95ac83a6 cub200_logistic@e6157cda
cub200_logistic_dinov2@8ad0048a dermamnist_knn@e6bba181 dermamnist_logistic@b8ab2249
dermamnist_logistic_dinov2@4065f632 dtd_logistic_dinov2@482d3a88 flowers102_logistic_dinov2@36de98d5
food101_logistic_dinov2@285abee0 imagenet1k_1pct_msn@4ee8b2bf imagenet1k_msn_1_1_knn@fc6c3ad3
imagenet1k_msn_1_1_msn@f5a04ddc imagenet1k_msn_1_2_knn@dbf7b1d6 imagenet1k_msn_1_2_msn@fa33c283
imagenet1k_msn_1_3_knn@2056ffa2 imagenet1k_msn_1_3_msn@86e56ad5 imagenet1k_msn_2_1_knn@0693e960
imagenet1k_msn_2_1_msn@d8212d35 imagenet1k_msn_2_2_knn@70fc54bb imagenet1k_msn_2_2_msn@06ed28fb
imagenet1k_msn_2_3_knn@c112636d imagenet1k_msn_2_3_msn@0383dadc imagenet1k_msn_5_1_knn@2543bcf3
imagenet1k_msn_5_1_msn@7bf820b6 imagenet1k_msn_5_2_knn@cce226a0 imagenet1k_msn_5_2_msn@bd0305cb
imagenet1k_msn_5_3_knn@060c2c7a imagenet1k_msn_5_3_msn@df700527 imagenet_linear_dino_vit_base@92b4e345
imagenet_linear_dino_vit_small@8b7cc855 imagenet_linear_dinov2_vit@3a551cf3 imagenet_linear_dinov3_vit@eac2aa1f
imagenet_linear_mae@de03e02e imagenet_linear_path@16ad7790 inat2018_knn@052b4703 inat2018_logistic@5d590135
inat2018_logistic_dinov2@cb4fad47 inat2021_knn@e44e27b9 inat2021_logistic@8028f077 inat2021_logistic_dinov2@ad1d259c
label_free_quick@bbb9f98c linear_path@6c9368c9 logistic_dinov2@fde291a8 octmnist_knn@44614ae2
octmnist_logistic@2947ee98 octmnist_logistic_dinov2@359cb412 organamnist_knn@038a600a organamnist_logistic@386f0615
organamnist_logistic_dinov2@502b95c8 organcmnist_knn@a7931580 organcmnist_logistic@6b320875
organcmnist_logistic_dinov2@6fe6b4ac organsmnist_knn@66b0e1bc organsmnist_logistic@cd9ed365
organsmnist_logistic_dinov2@3d6b03b7 pathmnist_knn@1d741173 pathmnist_logistic@8275fcea
pathmnist_logistic_dinov2@6f0f782f pets_logistic_dinov2@32a0c01f pneumoniamnist_knn@420366d8
pneumoniamnist_logistic@6e2024da pneumoniamnist_logistic_dinov2@aa4f02f2 retinamnist_knn@8623d933
retinamnist_logistic@0e92d8f8 retinamnist_logistic_dinov2@4ed65000 sun397_logistic_dinov2@93cff197
tissuemnist_knn@01c54394 tissuemnist_logistic@39c25f36 tissuemnist_logistic_dinov2@45525fca waterbirds_knn@4e739b05
waterbirds_logistic@1cda55d4 waterbirds_logistic_dinov2@42a9f3fe
"""
IN_FRAMEWORKS = ("cgh_bench.tasks.detection", "cgh_bench.tasks.segmentation")


class ToyData:
    fingerprint = "data"
    subset = ""


@dataclass(frozen=True)
class Toy(Task[Data]):
    METRICS: ClassVar = (Metric("score"),)
    data: str = "toy"
    answer: float = 1.0

    def load_data(self, cache: Path) -> Data:
        return ToyData()

    def run(self, checkpoint: Checkpoint, data: Data, folders: Folders, seed: int) -> dict[str, float]:
        assert folders.run.is_dir()
        return {"score": self.answer + seed} if self.answer else {}


def toy(answer: float = 1.0, overridden: tuple[str, ...] = ()) -> Evaluation:
    task = Toy(answer=answer)
    return Evaluation("toy", task, ToyData(), protocol_id("toy", task), overridden)


@pytest.fixture
def backbone() -> Checkpoint:
    return random_checkpoint("test_resnet")


def test_protocol_ids_are_pinned() -> None:
    known: dict[str, Task[Any]] = registered("cgh_bench.tasks", "TASKS")
    frozen = {name: task for name, task in known.items() if type(task).__module__ not in IN_FRAMEWORKS}
    assert {protocol_id(name, task) for name, task in frozen.items()} == set(PROTOCOLS.split())


def test_a_folder_of_the_users_is_its_content_wherever_it_lies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for split, name in itertools.product(("train", "val"), ("cat", "dog")):
        folder = tmp_path / "here/zoo" / split / name
        folder.mkdir(parents=True)
        Image.new("RGB", (4, 4), "red" if split == "val" else "blue").save(folder / "1.png")
    shutil.copytree(tmp_path / "here/zoo", tmp_path / "there/animals at home")
    monkeypatch.setenv("CGH_DATA", str(tmp_path / "here"))
    names = [str(tmp_path / "here/zoo"), str(tmp_path / "there/animals at home"), "zoo"]

    def protocol(*settings: str) -> str:
        (evaluation,) = prepare(["knn"], Workspace(tmp_path / "work"), settings)
        return evaluation.protocol

    ids = {protocol(f"data={name}") for name in names}
    assert len(ids) == 1
    Image.new("RGB", (400, 400)).save(tmp_path / "there/animals at home/val/cat/1.png")
    assert protocol(f"data={names[1]}") not in ids
    assert protocol(f"data={names[0]}", "k=5") not in ids


def test_another_folder_of_the_same_names_and_sizes_is_not_taken_for_the_first(
    backbone: Checkpoint, tmp_path: Path
) -> None:
    draw, workspace = np.random.default_rng(0), Workspace(tmp_path / "work")
    settings = [f"data={tmp_path / 'zoo'}", "transform.resize=32", "transform.crop=32"]

    def paint(noise: bool) -> Evaluation:
        for split, name, number in itertools.product(("train", "val"), ("cat", "dog"), range(3)):
            path = tmp_path / "zoo" / split / name / f"{number}.bmp"
            path.parent.mkdir(parents=True, exist_ok=True)
            grey = 200 * (name == "dog") + 9 * (split == "val")
            pixels = draw.integers(0, 256, (32, 32, 3)) if noise else np.full((32, 32, 3), grey)
            Image.fromarray((pixels + number).astype(np.uint8)).save(path)
            os.utime(path, (1, 1))
        (evaluation,) = prepare(["knn"], workspace, settings)
        return evaluation

    clear = paint(noise=False)
    assert evaluate(clear, backbone, 0, workspace).metrics["top1"] == 100
    assert find_finished(clear, backbone, 0, workspace)
    noise = paint(noise=True)
    assert noise.protocol != clear.protocol
    assert find_finished(noise, backbone, 0, workspace) is None
    features = [path.parent.name for path in (workspace.cache / "features").glob("*/features.npy")]
    evaluate(noise, backbone, 0, workspace)
    assert len(list((workspace.cache / "features").glob("*/features.npy"))) == len(features) + 2


def test_a_task_that_can_tells_what_it_will_take(backbone: Checkpoint, tmp_path: Path) -> None:
    assert plan(toy(), backbone, Workspace(tmp_path)) == []
    (evaluation,) = prepare(["animals_knn"], Workspace(tmp_path))
    lines = plan(evaluation, backbone, Workspace(tmp_path))
    assert [line.split()[0] for line in lines] == ["features", "features", "search:"]
    assert "at most" in lines[-1]
    assert not list(tmp_path.iterdir())


def test_any_changed_field_is_another_protocol() -> None:
    ids = {protocol_id("t", task) for task in (KNN(), KNN(k=21), KNN(temperature=0.1), KNN(feature="layer3"))}
    assert len(ids) == 4


def test_a_result_says_where_it_comes_from(backbone: Checkpoint, tmp_path: Path) -> None:
    workspace = Workspace(tmp_path)
    evaluation = toy(overridden=("answer=1.0",))
    assert find_finished(evaluation, backbone, 3, workspace) is None
    result = evaluate(evaluation, backbone, 3, workspace)
    assert result.metrics == {"score": 4.0}
    assert (result.checkpoint, result.seed, result.data) == (backbone.id, 3, "data")
    assert result.overridden == ("answer=1.0",)
    assert result.origin["source"] == "random"
    assert {"torch", "pillow", "timm", "scikit-learn", "scipy", "pycocotools"} <= set(result.versions)
    assert (tmp_path / result.work).is_dir()
    stored, complaints = results.read(workspace.store)
    assert stored == [result]
    assert not complaints
    assert find_finished(evaluation, backbone, 3, workspace) == result
    assert find_finished(evaluation, backbone, 4, workspace) is None
    assert find_finished(toy(2.0), backbone, 3, workspace) is None


def test_a_metric_that_does_not_come_is_a_failed_run(backbone: Checkpoint, tmp_path: Path) -> None:
    with pytest.raises(CheckFailed, match="toy did not report score"):
        evaluate(toy(0.0), backbone, 0, Workspace(tmp_path))
    with pytest.raises(UserError, match="not a finite number"):
        evaluate(toy(float("nan")), backbone, 0, Workspace(tmp_path))
    assert not Workspace(tmp_path).store.exists()


def test_naming_the_data_is_no_override_where_the_task_has_none() -> None:
    def overridden(name: str, *settings: str) -> tuple[str, ...]:
        return configured(name, settings)[1]

    assert overridden("knn", "data=photos") == ()
    assert overridden("knn", "data=photos", "k=5") == ("k=5",)
    assert overridden("animals_knn", "data=photos") == ("data=photos",)
    with pytest.raises(UserError, match="did you mean animals_knn"):
        configured("animal_knn", ())


def test_images_in_memory_are_evaluated_under_their_own_content(backbone: Checkpoint, tmp_path: Path) -> None:
    workspace = Workspace(tmp_path)
    (evaluation,) = prepare(["animals_knn"], workspace, ["k=3"], toy_data())
    assert evaluation.overridden == ("k=3", "data=toy")
    result = evaluate(evaluation, backbone, 0, workspace)
    assert result.data == toy_data().fingerprint
    assert result.config["data"] == "toy"
    (other,) = prepare(["animals_knn"], workspace, ["k=3"], toy_data(train=36))
    assert other.protocol != evaluation.protocol
    with pytest.raises(UserError, match="Detection needs the files"):
        prepare(["coco_det"], workspace, (), toy_data())


def test_every_task_declares_itself() -> None:
    known: dict[str, Task[Any]] = registered("cgh_bench.tasks", "TASKS")
    for task in known.values():
        assert task.METRICS
        assert len({metric.name for metric in task.METRICS}) == len(task.METRICS)


def test_a_plan_sees_what_is_there_and_leaves_nothing(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path / "work")
    (workspace.cache / "scenes").mkdir(parents=True)
    (workspace.cache / "scenes/done").touch()
    with alone_in(workspace.cache / "contents"):  # an evaluation leaves its lock there
        pass
    with workspace.planning() as planned:
        with alone_in(planned.datasets / "contents"):
            assert planned.cache == workspace.cache
        assert (planned.datasets / "scenes/done").exists()
        (planned.datasets / "pairs").mkdir()
    assert not planned.datasets.exists()
    assert sorted(path.name for path in workspace.cache.iterdir()) == [".contents.lock", "scenes"]
    with workspace.planning(False) as real:
        assert real.datasets == workspace.cache
    with Workspace(tmp_path / "new").planning():
        pass
    assert not (tmp_path / "new").exists()
