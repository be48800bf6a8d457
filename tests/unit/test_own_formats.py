"""Data of the user's own for detection and segmentation: every form is read alike, and what is wrong is one line."""

import json
import shutil
from pathlib import Path
from typing import Any

import dense_folder
import numpy as np
import own_folders
import pytest
import yaml
from foreign_bytes import JSON, bounded, damaged, tried
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from cgh_bench.core.config import plain
from cgh_bench.core.errors import UserError
from cgh_bench.data.dense import Own
from cgh_bench.data.own import find
from cgh_bench.evaluation import configured, protocol_id
from cgh_bench.results import Result
from cgh_bench.site.boards import boards
from cgh_bench.tasks import find as find_task


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of each form."""
    root = tmp_path_factory.mktemp("made")
    own_folders.coco(root / "coco_form")
    own_folders.voc(root / "voc_form")
    own_folders.yolo(root / "yolo_form")
    dense_folder.write(root / "masks_form")
    return root


@pytest.fixture
def root(made: Path, tmp_path: Path) -> Path:
    """A copy, to be broken."""
    return Path(shutil.copytree(made, tmp_path / "data"))


def located(place: Path | str, kind: str, cache: Path) -> Own:
    found = find.locate(str(place), kind, cache)
    assert isinstance(found, Own)
    return found


def document(own: Own, split: str) -> dict:
    return json.loads(own.file.with_name(f"{split}.json").read_text())


def edited(path: Path, change) -> None:
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def problem(place: Path | str, kind: str, tmp_path: Path) -> str:
    """What is said of data that cannot be used: one line."""
    with pytest.raises(UserError) as refused:
        find.locate(str(place), kind, tmp_path / "cache")
    assert "\n" not in str(refused.value)
    return str(refused.value)


# what others hold is read, or refused in one line

FILES = {"coco": "annotations/instances_train.json", "voc": "Annotations/val_1.xml", "yolo": "data.yaml"}


@pytest.mark.parametrize("form", FILES)
@settings(bounded, max_examples=40)
@given(data=st.data())
def test_damaged_files(form: str, made: Path, tmp_path: Path, data: st.DataObject) -> None:
    folder = tmp_path / form
    if not folder.exists():
        shutil.copytree(made / f"{form}_form", folder)
    path = folder / FILES[form]
    path.write_bytes(data.draw(damaged((made / f"{form}_form" / FILES[form]).read_bytes())))
    tried(find.locate, str(folder), "objects", tmp_path / "cache")


@pytest.mark.slow
@settings(bounded, max_examples=80)
@given(value=JSON, part=st.sampled_from(["images", "annotations", "categories"]), data=st.data())
def test_any_value_in_cocos_form(made: Path, tmp_path: Path, value: Any, part: str, data: st.DataObject) -> None:
    folder = tmp_path / "coco"
    if not folder.exists():
        shutil.copytree(made / "coco_form", folder)
    document = json.loads((made / "coco_form" / FILES["coco"]).read_text())
    document[part][0][data.draw(st.sampled_from(sorted(document[part][0])))] = value
    (folder / FILES["coco"]).write_text(json.dumps(document))
    tried(find.locate, str(folder), "objects", tmp_path / "cache")


# reading


def test_each_form_says_the_same(made: Path, tmp_path: Path) -> None:
    forms = [located(made / f"{form}_form", "objects", tmp_path) for form in ("coco", "voc", "yolo")]
    boxes = []
    for own in forms:
        train = document(own, "train")
        names = {category["id"]: category["name"] for category in train["categories"]}
        boxes.append(sorted((names[a["category_id"]], *np.round(a["bbox"], 3).tolist()) for a in train["annotations"]))
        assert all((own.root / image["file_name"]).is_file() for image in train["images"])
        assert [a["id"] for a in train["annotations"]] == list(range(1, 1 + len(train["annotations"])))
        assert (own.images, sorted(own.classes)) == (8, sorted(own_folders.CLASSES))
    assert boxes[0] == boxes[1] == boxes[2]
    assert forms[0].without_mask == "" and forms[1].without_mask and forms[2].without_mask
    assert json.loads(forms[0].file.read_text())["run_lengths"]


def test_the_users_folder_is_left_as_it_was(made: Path, tmp_path: Path) -> None:
    before = sorted(made.rglob("*"))
    located(made / "yolo_form", "objects", tmp_path)
    located(made / "masks_form", "maps", tmp_path)
    assert sorted(made.rglob("*")) == before


def test_the_fingerprint_is_of_the_content(root: Path, tmp_path: Path) -> None:
    first = located(root / "coco_form", "objects", tmp_path)
    moved = Path(shutil.move(root / "coco_form", root / "elsewhere"))
    edited(moved / "annotations/instances_val.json", lambda d: d["annotations"].reverse())
    again = located(moved, "objects", tmp_path)
    assert (first.fingerprint, first.train) == (again.fingerprint, again.train)
    edited(moved / "annotations/instances_val.json", lambda d: d["annotations"][0].update(bbox=[1, 1, 9, 9]))
    other = located(moved, "objects", tmp_path)
    assert other.fingerprint != first.fingerprint and other.train == first.train


def test_files_are_named_one_by_one(root: Path, tmp_path: Path) -> None:
    folder = root / "coco_form"
    names = [f"{split}={folder}/annotations/instances_{split}.json" for split in ("train", "val")]
    named = located(",".join([f"images={folder}", *names]), "objects", tmp_path)
    assert named.fingerprint == located(folder, "objects", tmp_path).fingerprint
    assert "expected images=DIR,train=A.json,val=B.json" in problem(f"images={folder},train=x", "objects", tmp_path)
    assert "y not found" in problem(f"images={folder},{names[0]},val=y", "objects", tmp_path)


def test_what_exporters_write(root: Path, tmp_path: Path) -> None:
    """Roboflow's COCO (a JSON beside the images) and YOLO (`../train/images`), VOC beside images."""
    form = root / "coco_form"
    for split, name in (("train", "train"), ("val", "valid")):
        shutil.move(form / split, root / "robo" / name)
        shutil.move(form / f"annotations/instances_{split}.json", root / f"robo/{name}/_annotations.coco.json")
    assert located(root / "robo", "objects", tmp_path).images == 8
    form = root / "yolo_form"
    for split in ("train", "val"):
        for kind in ("images", "labels"):
            (form / split).mkdir(exist_ok=True)
            shutil.move(form / kind / split, form / split / kind)
    names = yaml.safe_load((form / "data.yaml").read_text())["names"]
    text = {"train": "../train/images", "val": "../val/images", "names": list(names.values())}
    (form / "data.yaml").write_text(yaml.safe_dump(text))
    assert located(form, "objects", tmp_path).images == 8
    form = root / "voc_form"
    for path in [*form.glob("JPEGImages/*"), *form.glob("Annotations/*")]:
        place = root / "voc_beside" / path.name.split("_")[0]
        place.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, place)
    same = [located(each, "objects", tmp_path) for each in (form, root / "voc_beside")]
    assert document(same[0], "val")["annotations"] == document(same[1], "val")["annotations"]


def test_polygons_of_yolo_are_masks(tmp_path: Path) -> None:
    own = located(own_folders.yolo(tmp_path / "polygons", polygons=True), "objects", tmp_path / "cache")
    assert own.without_mask == ""
    line = document(own, "train")["annotations"][0]
    assert len(line["segmentation"][0]) == 8 and line["bbox"][2] == pytest.approx(line["bbox"][3], abs=1e-3)


def test_keypoints_are_kept_and_others_than_persons_are_named(tmp_path: Path) -> None:
    task, folder = find_task("coco_keypoints"), own_folders.coco(tmp_path / "persons", keypoints=True)
    own = located(folder, "objects", tmp_path / "cache")
    task.check(own)
    assert document(own, "val")["annotations"][0]["num_keypoints"] == 17
    checked, _ = find.look(str(folder), "objects", tmp_path / "cache")
    assert any("objects have keypoints" in note for note in checked.notes)
    train = folder / "annotations/instances_train.json"
    edited(train, lambda content: content["annotations"][1]["keypoints"].pop())
    with pytest.raises(UserError, match=r"coco_keypoints needs .*annotation 1 of .*instances_train.json has not x, y"):
        task.check(located(folder, "objects", tmp_path / "cache"))
    edited(train, lambda content: content["categories"][0]["keypoints"].reverse())
    with pytest.raises(UserError, match=r"category '\w+' of .*instances_train.json has others, or none"):
        task.check(located(folder, "objects", tmp_path / "cache"))
    with pytest.raises(UserError, match="lvis_vitdet reads LVIS's own annotations; for other data use coco_vitdet"):
        find_task("lvis_vitdet").check(own)


def test_difficult_objects_count_neither_way_in_val(root: Path, tmp_path: Path) -> None:
    for path in (root / "voc_form/Annotations").iterdir():
        path.write_text(path.read_text().replace("<difficult>0", "<difficult>1", 1))
    own = located(root / "voc_form", "objects", tmp_path)
    crowds = [sum(line["iscrowd"] for line in document(own, split)["annotations"]) for split in ("train", "val")]
    assert crowds == [0, 4]


def test_images_by_split_or_splits_by_image(root: Path, tmp_path: Path) -> None:
    first = located(root / "masks_form", "maps", tmp_path)
    for split in ("train", "val"):
        for kind in ("images", "masks"):
            (root / "turned" / kind).mkdir(parents=True, exist_ok=True)
            shutil.move(root / "masks_form" / split / kind, root / "turned" / kind / split)
    shutil.move(root / "masks_form/classes.txt", root / "turned")
    again = located(root / "turned", "maps", tmp_path)
    assert (first.fingerprint, again.classes) == (again.fingerprint, dense_folder.CLASSES)
    pairs = json.loads(again.file.read_text())["val"]
    assert all(Path(path).is_file() for pair in pairs for path in pair)


# what is wrong


def _annotation(**change):
    return lambda d: d["annotations"][1].update(change)


def _all_annotations(key, value):
    return lambda d: [line.update({key: value}) for line in d["annotations"]]


COCO_FAULTS = {
    "an id twice": (_annotation(id=0), "annotation ids"),
    "an image that is not listed": (_annotation(image_id="gone"), "image_id 'gone'"),
    "a category that is not listed": (_annotation(category_id=77), "category_id 77"),
    "a category twice": (lambda d: d["categories"].append({**d["categories"][0], "name": "pink"}), "category ids"),
    "two classes of one name": (lambda d: d["categories"][1].update(name="red"), "several categories named 'red'"),
    "a class without a name": (lambda d: d["categories"][1].pop("name"), "category without a name"),
    "an empty box": (_annotation(bbox=[1, 1, 0, 5]), "is empty"),
    "out of bounds": (_annotation(bbox=[40, 40, 200, 200]), "outside its 64×64 pixels"),
    "a polygon of two points": (_annotation(segmentation=[[1, 1, 2, 2]]), "fewer than three points"),
    "a mask of another size": (_annotation(segmentation={"size": [9, 9], "counts": [81]}), "another size"),
    "runs of other pixels": (_annotation(segmentation={"size": [64, 64], "counts": [81]}), "run lengths of 81 pixels"),
    "no object": (lambda d: d["annotations"].clear(), "no object in any of 8 images"),
    "no image": (lambda d: d["images"].clear(), "lists no image"),
    "other classes": (lambda d: d["categories"][2].update(name="Blue"), "has classes that"),
    "an image that is absent": (lambda d: d["images"][3].update(file_name="x.jpg"), "are missing"),
}


@pytest.mark.parametrize("fault", COCO_FAULTS)
def test_a_fault_in_cocos_form_is_one_line(fault: str, root: Path, tmp_path: Path) -> None:
    change, said = COCO_FAULTS[fault]
    file = root / "coco_form/annotations/instances_train.json"
    edited(file, change)
    line = problem(root / "coco_form", "objects", tmp_path)
    assert said in line and ("instances_train.json" in line or "missing" in said)


def test_json_that_is_cut_short(root: Path, tmp_path: Path) -> None:
    path = root / "coco_form/annotations/instances_val.json"
    path.write_text(path.read_text()[:-40])
    assert f"{path} is cut short" in problem(root / "coco_form", "objects", tmp_path)


def test_a_split_that_is_unclear(root: Path, tmp_path: Path) -> None:
    shutil.copy(root / "coco_form/annotations/instances_val.json", root / "coco_form/annotations/instances_val2.json")
    assert "2 files for val" in problem(root / "coco_form", "objects", tmp_path)
    (root / "coco_form/annotations/instances_val2.json").unlink()
    shutil.move(root / "coco_form/val", root / "coco_form/pictures")
    said = problem(root / "coco_form", "objects", tmp_path)
    assert "0.jpg, the first image of" in said and "--data images=DIR" in said


def test_truncated_images_are_named(root: Path, tmp_path: Path) -> None:
    for form, kind, name in (
        ("coco", "objects", "train/3.jpg"),
        ("voc", "objects", "JPEGImages/val_1.jpg"),
        ("yolo", "objects", "images/val/2.jpg"),
        ("masks", "maps", "train/images/1.png"),
    ):
        path = root / f"{form}_form" / name
        path.write_bytes(path.read_bytes()[:-300])
        assert f"{path} is not a readable image" in problem(root / f"{form}_form", kind, tmp_path)


YOLO_FAULTS = {
    "3 0.5 0.5 0.1 0.1": "class 3, only 0 to 2",
    "0 0.5 0.5 0.1": "3 numbers behind the class",
    "0 0.5 0.5 1.7 0.1": "outside 0 to 1",
    "0 0.5 0.5 nan 0.1": "outside 0 to 1",
    "red 0.5 0.5 0.1 0.1": "expected a class and numbers",
    "0 0.5 0.5 0.0 0.0": "is empty",
}


@pytest.mark.parametrize("line", YOLO_FAULTS)
def test_a_fault_in_yolos_form_is_one_line(line: str, root: Path, tmp_path: Path) -> None:
    (root / "yolo_form/labels/train/0.txt").write_text(line)
    assert YOLO_FAULTS[line] in problem(root / "yolo_form", "objects", tmp_path)


def test_a_yaml_that_names_less(root: Path, tmp_path: Path) -> None:
    path = root / "yolo_form/data.yaml"
    text = path.read_text()
    for other, said in (
        (text.replace("val: images/val", ""), "names no val images"),
        (text.replace("images/val", "pictures"), "has no images"),
        (text.replace("  2:", "  3:"), "expected 0 to 2"),
    ):
        path.write_text(other)
        assert said in problem(root / "yolo_form", "objects", tmp_path)
    path.write_text(text)
    shutil.rmtree(root / "yolo_form/labels/val")
    assert "all other labels are absent" in problem(root / "yolo_form", "objects", tmp_path)


def test_faults_in_vocs_form(root: Path, tmp_path: Path) -> None:
    path = root / "voc_form/Annotations/val_1.xml"
    text = path.read_text()
    for other, said in (
        (text[:-20], "not valid XML"),
        (text.replace("<size>", "<sizes>").replace("</size>", "</sizes>"), "no width and height"),
        (text.replace("<width>64", "<width>70"), "is 64×64 pixels, but"),
        (text.replace("<xmin>", "<xmin>x"), "xmin, ymin, xmax, ymax"),
        (text.replace(">red<", ">pink<").replace(">green<", ">pink<").replace(">blue<", ">pink<"), "'pink'"),
    ):
        path.write_text(other)
        assert said in problem(root / "voc_form", "objects", tmp_path)
    path.write_text(text)
    (root / "voc_form/JPEGImages/val_1.jpg").unlink()
    assert "has no image of its name" in problem(root / "voc_form", "objects", tmp_path)


def test_faults_in_masks(root: Path, tmp_path: Path) -> None:
    path = root / "masks_form/train/masks/2.png"
    good = path.read_bytes()
    for values, said in (
        (np.full((64, 64), 9, np.uint8), "has the class 9, only 0 to 3 and 255"),
        (np.zeros((64, 64, 3), np.uint8), "has colours"),
        (np.zeros((32, 64), np.uint8), "64×32 pixels, its image 64×64"),
    ):
        Image.fromarray(values).save(path)
        assert said in problem(root / "masks_form", "maps", tmp_path)
    path.write_bytes(good)
    shutil.rmtree(root / "masks_form/val")
    assert "no images in" in problem(root / "masks_form", "maps", tmp_path)


def test_val_that_is_train(root: Path, tmp_path: Path) -> None:
    form = root / "coco_form"
    shutil.copy(form / "annotations/instances_train.json", form / "annotations/instances_val.json")
    shutil.rmtree(form / "val")
    shutil.copytree(form / "train", form / "val")
    assert "all 8 val images are train images too" in problem(form, "objects", tmp_path)


def test_folders_of_another_kind(made: Path, tmp_path: Path) -> None:
    assert "has no objects in a supported format (COCO: " in problem(made / "masks_form", "objects", tmp_path)
    assert "has no maps in a supported format" in problem(made / "voc_form", "maps", tmp_path)
    assert "no folder" in problem("no/where", "objects", tmp_path)
    assert "did you mean coco" in problem("cocoa", "objects", tmp_path)


# results


def test_results_have_a_board_of_their_own_beside_no_published_number() -> None:
    name, content = "coco_det_detectron2", "f" * 16
    task, overridden = configured(name, ["data=mine", "iterations=5", "settings=SOLVER.IMS_PER_BATCH=2,TEST.A=[1,2]"])
    assert overridden == ()
    assert configured(name, ["data=coco", "iterations=5"])[1] == ("data=coco", "iterations=5")
    result = Result(
        task=name,
        protocol=protocol_id(name, task, content),
        metrics={"box_AP": 1.0},
        checkpoint="0" * 16,
        checkpoint_name="a backbone",
        origin={},
        data=content,
        config=plain(task),
        seed=0,
    )
    (board,) = (each for each in boards([result]) if each.ours)
    assert (board.ours, board.title, board.published) == (result.protocol, f"{name} on mine", None)
    assert protocol_id(name, task, content) != protocol_id(name, configured(name, ["iterations=5"])[0])
