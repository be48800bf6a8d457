"""The wrong-data campaign: every layout with each thing that can be wrong with it is named by file, or read rightly."""

import io
import json
import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path

import miniatures
import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
from click.testing import CliRunner
from PIL import Image

from cgh_bench.cli.data import data as command
from cgh_bench.core.errors import UserError
from cgh_bench.data import checking, data_root, dense, layout, load
from cgh_bench.data.demo.scenes import write_scenes

COCO = "coco/annotations/instances_{}2017.json"
CITIES = "cityscapes/annotations/instancesonly_filtered_gtFine_{}.json"
VOC = "VOCdevkit/VOC2007/Annotations/{}_000001.xml"
IMAGES = {  # the first train image of each
    "coco": "coco/train2017/000001.png",
    "voc0712": "VOCdevkit/VOC2007/JPEGImages/train_000001.jpg",
    "voc2012_aug": "VOCdevkit/VOC2012/JPEGImages/train_000001.jpg",
    "cityscapes": "cityscapes/leftImg8bit/train/zurich/zurich_000000_000001_leftImg8bit.png",
    "cityscapes_inst": "cityscapes/leftImg8bit/train/zurich/zurich_000000_000001_leftImg8bit.png",
    "ade20k": "ADEChallengeData2016/images/training/000001.jpg",
}
MAPS = {
    "voc2012_aug": "VOCdevkit/VOC2012/SegmentationClass/train_000001.png",
    "cityscapes": "cityscapes/gtFine/train/zurich/zurich_000000_000001_gtFine_labelTrainIds.png",
    "ade20k": "ADEChallengeData2016/annotations/training/000001.png",
}
JSONS = {"coco": COCO, "cityscapes_inst": CITIES}
LISTS = {
    "voc0712": "VOCdevkit/VOC2007/ImageSets/Main/{}.txt",
    "voc2012_aug": "VOCdevkit/VOC2012/ImageSets/Segmentation/{}.txt",
}


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("made")
    scenes = write_scenes(root / "scenes", miniatures.TINY)
    for make in (miniatures.coco, miniatures.voc, miniatures.cityscapes, miniatures.ade20k):
        make(scenes, root)
    return root


@pytest.fixture
def root(made, tmp_path, request) -> Path:
    """A copy, to be broken; of the dataset `name` alone if the test has such a parameter."""
    called = getattr(request.node, "callspec", None)
    name = called.params.get("name") if called else None
    others = {each.folder for each in dense.layouts().values()} - {dense.layouts()[name].folder} if name else ()
    left_out = shutil.ignore_patterns("scenes", *others)
    return Path(shutil.copytree(made, tmp_path / "data", ignore=left_out, copy_function=shutil.copyfile))


def found(name: str, root: Path) -> layout.Checked:
    (one,) = checking.check(name, root, root.parent / "cache").values()
    return one


def prints(name: str, root: Path) -> tuple[str, str]:
    checked = found(name, root)
    assert checked.problems == []
    return checked.train, checked.val


def edit(path: Path, change: Callable[[dict], object]) -> None:
    document = json.loads(path.read_text())
    change(document)
    path.write_text(json.dumps(document))


def pixels(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image).copy()


# ids permuted, order and compression


@pytest.mark.parametrize("name", JSONS)
def test_ids_and_orders_are_no_content(name, root):
    before = prints(name, root)

    def permute(document):
        new = {category["id"]: 900 - category["id"] for category in document["categories"]}
        for category in document["categories"]:
            category["id"] = new[category["id"]]
        for item in document["annotations"]:
            item["category_id"], item["id"] = new[item["category_id"]], item["id"] + 77
        for key in ("images", "annotations", "categories"):
            document[key].reverse()

    edit(root / JSONS[name].format("val"), permute)
    assert prints(name, root) == before


@pytest.mark.parametrize("name", JSONS)
def test_two_names_exchanged_are_other_content(name, root):
    before = prints(name, root)

    def swap(document):
        used = {item["category_id"] for item in document["annotations"]}
        one, other = [c for c in document["categories"] if c["id"] in used][:2]
        one["name"], other["name"] = other["name"], one["name"]

    edit(root / JSONS[name].format("val"), swap)
    train, val = prints(name, root)
    assert train == before[0] and val != before[1]


@pytest.mark.parametrize("name", LISTS)
def test_a_list_in_another_order_is_the_same_data(name, root):
    before = prints(name, root)
    for path in (root / LISTS[name].format("x")).parent.glob("*.txt"):
        path.write_text("\n".join(reversed(path.read_text().split())))
    assert prints(name, root) == before


@pytest.mark.parametrize("name", [n for n, path in IMAGES.items() if path.endswith("png")] + list(MAPS))
def test_png_files_packed_otherwise_are_the_same_data(name, root):
    before = prints(name, root)
    for path in (root / IMAGES[name], root / MAPS.get(name, IMAGES[name])):
        if path.suffix == ".png":
            Image.fromarray(pixels(path)).save(path, compress_level=0)
    assert prints(name, root) == before


# names escaped


def test_escaped_names_are_found(root):
    name = 'k\u00e9 "1" \\.png'
    (root / IMAGES["coco"]).rename(root / "coco/train2017" / name)
    edit(
        root / COCO.format("train"),
        lambda d: next(i for i in d["images"] if i["file_name"] == "000001.png").update(file_name=name),
    )
    assert "\\u00e9" in (root / COCO.format("train")).read_text()
    assert prints("coco", root)


# images


@pytest.mark.parametrize("name", IMAGES)
def test_a_truncated_image_is_named(name, root):
    path = root / IMAGES[name]
    path.write_bytes(path.read_bytes()[:-300])
    assert [str(path) in problem and "not a readable image" in problem for problem in found(name, root).problems] == [
        True
    ]
    path.write_bytes(b"")
    assert any(str(path) in problem for problem in found(name, root).problems)


@pytest.mark.parametrize("name", IMAGES)
def test_an_image_that_is_turned_by_its_exif_is_named(name, root):
    path = root / IMAGES[name]
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(pixels(path)[:80]).save(path, exif=exif)  # 96×80, shown as 80×96
    (problem,) = found(name, root).problems
    assert str(path) in problem and "80×96" in problem and "EXIF" in problem


def test_an_image_turned_by_its_exif_whose_annotations_are_for_the_turned_one_is_right(root):
    path = root / IMAGES["coco"]
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(pixels(path)[:80]).save(path, exif=exif)

    def say(document):
        (image,) = [i for i in document["images"] if i["file_name"] == path.name]
        image.update(width=80, height=96)
        document["annotations"] = [a for a in document["annotations"] if a["image_id"] != image["id"]]

    edit(root / COCO.format("train"), say)
    assert prints("coco", root)


@pytest.mark.parametrize("name", MAPS)
def test_a_map_of_another_size_is_named(name, root):
    path = root / MAPS[name]
    Image.fromarray(pixels(path)[::2, ::2]).save(path)
    (problem,) = found(name, root).problems
    assert str(path) in problem and "48×48" in problem and "96×96" in problem


def test_a_size_that_is_not_the_images_is_named(root):
    def say(document):
        image = document["images"][0]
        image.update(width=40)
        document["annotations"] = [a for a in document["annotations"] if a["image_id"] != image["id"]]

    edit(root / COCO.format("val"), say)
    assert any("000001.png is 96×96" in p and "40×96" in p for p in found("coco", root).problems)
    path = root / VOC.format("val")
    path.write_text(path.read_text().replace("<width>96", "<width>90"))
    (problem,) = found("voc0712", root).problems
    assert str(path) in problem and "90×96" in problem


# labels


@pytest.mark.parametrize(("name", "value"), [("voc2012_aug", 21), ("cityscapes", 33), ("ade20k", 200)])
def test_a_label_out_of_range_is_named_in_whichever_map(name, value, root):
    maps = sorted((root / MAPS[name]).parent.glob("*labelTrainIds.png" if name == "cityscapes" else "*.png"))
    path = maps[-1]
    values = pixels(path)
    values[0, 0] = value
    Image.fromarray(values).save(path)
    (problem,) = found(name, root).problems
    assert str(path) in problem and f"the class {value}" in problem
    Image.fromarray(np.repeat(values[..., None], 3, 2)).save(path)
    (problem,) = found(name, root).problems
    assert str(path) in problem and "has colours" in problem


@pytest.mark.parametrize("name", JSONS)
@pytest.mark.parametrize("key", ["category_id", "image_id"])
def test_an_annotation_of_what_is_not_listed_is_named(name, key, root):
    edit(root / JSONS[name].format("train"), lambda d: d["annotations"][2].update({key: 999}))
    (problem,) = found(name, root).problems
    assert JSONS[name].format("train") in problem and "annotation 3" in problem and f"{key} 999" in problem


def test_a_class_that_voc_does_not_have_is_named(root):
    path = root / VOC.format("val")
    path.write_text(path.read_text().replace("<name>", "<name>x", 1))
    (problem,) = found("voc0712", root).problems
    assert str(path) in problem and "class 'x" in problem


# annotations that are empty, or lack what the evaluation needs


@pytest.mark.parametrize("split", ["train", "val"])
@pytest.mark.parametrize("name", JSONS)
def test_annotations_without_any_object_are_named(name, split, root):
    edit(root / JSONS[name].format(split), lambda d: d.update(annotations=[]))
    (problem,) = found(name, root).problems
    assert JSONS[name].format(split) in problem and "no object" in problem
    (root / JSONS[name].format(split)).write_text("")
    (problem,) = found(name, root).problems
    assert JSONS[name].format(split) in problem and "empty" in problem


def test_maps_and_boxes_without_any_object_are_named(root):
    for path in (root / "VOCdevkit/VOC2012/SegmentationClass").glob("val_*"):
        Image.fromarray(np.full((96, 96), 255, np.uint8)).save(path)
    assert any("SegmentationClass/" in p and "no object" in p for p in found("voc2012_aug", root).problems)
    for path in (root / "VOCdevkit/VOC2007/Annotations").glob("val_*"):
        text = path.read_text()
        path.write_text(text[: text.index("<object>")] + "</annotation>")
    (problem,) = found("voc0712", root).problems
    assert "VOC2007/Annotations" in problem and "no object" in problem
    (root / VOC.format("train")).write_text("")
    assert any(VOC.format("train") in p for p in found("voc0712", root).problems)


@pytest.mark.parametrize("key", ["iscrowd", "area", "bbox", "segmentation", "id"])
@pytest.mark.parametrize("split", ["train", "val"])
def test_coco_without_a_field_is_named(split, key, root):
    edit(root / COCO.format(split), lambda d: d["annotations"][1].pop(key))
    problems = found("coco", root).problems
    assert problems and all(COCO.format(split) in problem for problem in problems)
    assert any(key in problem for problem in problems)


def test_a_polygon_of_two_points_counts_where_it_is_evaluated(root):
    short = {"segmentation": [[1.0, 2.0, 3.0, 4.0]]}
    edit(root / COCO.format("train"), lambda d: d["annotations"][0].update(short))  # the frameworks leave it out
    assert prints("coco", root)
    edit(root / COCO.format("val"), lambda d: d["annotations"][0].update(short))
    (problem,) = found("coco", root).problems
    assert COCO.format("val") in problem and "annotation 1" in problem and "three points" in problem


def test_an_id_of_0_is_named_where_pycocotools_would_lose_the_object(root):
    for name, path in JSONS.items():
        edit(root / path.format("val"), lambda d: d["annotations"][0].update(id=0))
        assert any("id 0" in p for p in found(name, root).problems) == (name == "coco")


@pytest.mark.parametrize("key", ["pose", "truncated", "difficult"])
def test_voc_without_what_its_evaluation_reads_is_named(key, root):
    for split in ("train", "val"):
        path = root / VOC.format(split)
        path.write_text(path.read_text().replace(f"<{key}>", f"<x{key}>").replace(f"</{key}>", f"</x{key}>"))
    problems = found("voc0712", root).problems
    assert problems and all(VOC.format("val") in problem and key in problem for problem in problems)


def test_a_path_that_cityscapes_tools_would_change_is_named(root, tmp_path):
    moved = tmp_path / "leftImg8bit_copy"
    moved.mkdir()
    (root / "cityscapes").rename(moved / "cityscapes")
    (problem,) = found("cityscapes_inst", moved).problems
    assert "leftImg8bit" in problem
    assert prints("cityscapes", moved)


# duplicates


@pytest.mark.parametrize("name", JSONS)
def test_what_is_listed_twice_is_named(name, root):
    path = root / JSONS[name].format("val")
    for key, what in (("images", "file names"), ("annotations", "annotation ids"), ("categories", "category ids")):
        before = path.read_text()
        edit(path, lambda d, key=key: d[key].append(dict(d[key][0])))
        problems = found(name, root).problems
        assert all(JSONS[name].format("val") in problem for problem in problems)
        assert any(what in problem for problem in problems)
        path.write_text(before)


@pytest.mark.parametrize(("name", "train", "val"), [("voc0712", "trainval", "test"), ("voc2012_aug", "train", "val")])
def test_an_image_that_is_listed_twice_is_named(name, train, val, root):
    listed, other = root / LISTS[name].format(train), root / LISTS[name].format(val)
    first = listed.read_text().split()[0]
    listed.write_text(f"{listed.read_text()}\n{first}")
    assert any(str(listed) in p and first in p for p in found(name, root).problems)
    listed.write_text("\n".join(listed.read_text().split()[:-1]))
    path = (root / IMAGES[name]).with_name(f"{first}.jpg")
    other.write_text(f"{other.read_text()}\n{first}")
    if name == "voc2012_aug":
        assert any(first in p and "for training too" in p for p in found(name, root).problems)
    assert path.exists()


def test_val_images_that_are_train_images(root):
    train, val = (sorted((root / f"coco/{split}2017").iterdir()) for split in ("train", "val"))
    shutil.copy(train[0], val[0])
    checked = found("coco", root)
    assert checked.problems == [] and any("1 val images are in train too" in note for note in checked.notes)
    for one, other in zip(train, val, strict=False):
        shutil.copy(one, other)
    assert any("all 4 val images are train images too" in problem for problem in found("coco", root).problems)


# subsets


@pytest.mark.parametrize("name", IMAGES)
def test_a_subset_is_said(name, root):
    checked = found(name, root)
    assert "images" in checked.subset and any("a subset" in note for note in checked.notes)


# labelled images: a folder of classes, tables, shards, Hugging Face


def jpeg(number: int) -> bytes:
    kept = io.BytesIO()
    Image.fromarray(np.random.default_rng(number).integers(0, 255, (24, 32, 3), np.uint8)).save(kept, "jpeg")
    return kept.getvalue()


Make = Callable[[int], bytes]


def folder(root: Path, make: Make = jpeg) -> Path:
    for number, path in enumerate(f"{s}/{c}/{i}.jpg" for s in ("train", "val") for c in ("cat", "dog") for i in "01"):
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(make(number))
    return root


def table(root: Path, make: Make = jpeg) -> Path:
    root = folder(root, make)
    rows = [(path.relative_to(root), path.parent.name, path.parts[-3]) for path in sorted(root.rglob("*.jpg"))]
    (root / "all.csv").write_text("path,label,split\n" + "".join(f"{p},{label},{split}\n" for p, label, split in rows))
    return root / "all.csv"


def shards(root: Path, make: Make = jpeg) -> Path:
    files = folder(root / "files", make)
    (root / "classes.txt").write_text("cat\ndog\n")
    for split in ("train", "val"):
        (root / split).mkdir()
        with tarfile.open(root / split / "0.tar", "w") as tar:
            for path in sorted((files / split).rglob("*.jpg")):
                label = str(int(path.parent.name == "dog")).encode()
                for name, content in (
                    (f"{path.parent.name}{path.name}", path.read_bytes()),
                    (f"{path.parent.name}{path.stem}.cls", label),
                ):
                    item = tarfile.TarInfo(name)
                    item.size = len(content)
                    tar.addfile(item, io.BytesIO(content))
    shutil.rmtree(files)
    return root


def hub(
    root: Path, make: Make = jpeg, names: tuple[str, ...] = ("cat", "dog"), labels: tuple[int, ...] = (0, 0, 1, 1)
) -> Path:
    (root / "data").mkdir(parents=True)
    features = {"info": {"features": {"label": {"names": list(names), "_type": "ClassLabel"}}}}
    for number, split in enumerate(("train", "val")):
        images = [{"bytes": make(4 * number + i), "path": f"{i}.jpg"} for i in range(4)]
        made = pyarrow.table({"image": images, "label": list(labels)})
        made = made.replace_schema_metadata({"huggingface": json.dumps(features)})
        pyarrow.parquet.write_table(made, root / f"data/{split}-00000-of-00001.parquet")
    return root


FORMS = {"folder": folder, "table": table, "shards": shards, "hub": hub}


def images(place: Path) -> layout.Checked:
    (one,) = checking.check(str(place), data_root(), place.parent / "cache").values()
    return one


@pytest.mark.parametrize("form", FORMS)
def test_labelled_images_that_are_right(form, tmp_path):
    place = FORMS[form](tmp_path / "set")
    first = images(place)
    assert (first.problems, first.notes) == ([], [])
    assert images(place) == first


def cut(number: int) -> bytes:
    return jpeg(number)[: 200 if number == 2 else None]


@pytest.mark.parametrize("form", FORMS)
def test_a_truncated_image_of_any_form_is_named(form, tmp_path):
    name = {"folder": "dog/0.jpg", "table": "dog/0.jpg", "shards": "0.tar:dog0.jpg", "hub": "train[2]"}[form]
    (problem,) = images(FORMS[form](tmp_path / "set", cut)).problems
    assert name in problem and "is not a readable image" in problem


@pytest.mark.parametrize("form", FORMS)
def test_images_that_are_there_twice(form, tmp_path):
    checked = images(FORMS[form](tmp_path / "set", lambda number: jpeg(1 if number == 2 else number)))
    (note,) = checked.notes
    assert checked.problems == [] and "1 of them with another label" in note
    checked = images(FORMS[form](tmp_path / "other", lambda number: jpeg(number % 4)))
    (problem,) = checked.problems
    assert "all 4 val images" in problem


def test_images_turned_by_their_exif_are_turned(tmp_path):
    place, exif = folder(tmp_path / "set"), Image.Exif()
    exif[0x0112] = 6
    with Image.open(place / "train/cat/0.jpg") as image:
        image.save(place / "train/cat/0.jpg", exif=exif)
    assert images(place).problems == []
    assert load(str(place), "train").image(0).shape == (3, 32, 24)


@pytest.mark.parametrize("labels", [(0, 0, 1, 2), (0, 0, 1, -1)], ids=str)
def test_a_label_that_the_hub_has_no_name_for(labels, tmp_path):
    (problem,) = set(images(hub(tmp_path / "set", labels=labels)).problems)
    assert "train-00000-of-00001.parquet" in problem and f"label {labels[-1]}" in problem


def test_labels_of_the_hub_are_known_by_name(tmp_path):
    """Train and val with their classes in another order."""
    place, other = hub(tmp_path / "set"), hub(tmp_path / "other", names=("dog", "cat"))
    val = "data/val-00000-of-00001.parquet"
    shutil.copy(other / val, place / val)
    assert load(str(place), "train").labels.tolist() == [0, 0, 1, 1]
    assert load(str(place), "val").labels.tolist() == [1, 1, 0, 0]


@pytest.mark.parametrize(
    ("form", "path"),
    [
        ("table", "all.csv"),
        ("shards", "classes.txt"),
        ("shards", "val/0.tar"),
        ("hub", "data/val-00000-of-00001.parquet"),
    ],
)
def test_an_empty_file_is_named(form, path, tmp_path):
    place = FORMS[form](tmp_path / "set")
    (tmp_path / "set" / path).write_bytes(b"")
    problems = images(place).problems
    assert problems and all(
        path.split("/")[-1] in p or str(tmp_path / "set" / path.split("/")[0]) in p for p in problems
    )


@pytest.mark.parametrize("line", ["train/cat/0.jpg,dog,train", "train/cat/9.jpg,cat,train", "train/cat/0.jpg,,train"])
def test_a_row_that_is_wrong_is_named(line, tmp_path):
    path = table(tmp_path / "set")
    path.write_text(f"{path.read_text()}{line}\n")
    problems = images(path).problems
    assert problems and all(line.split(",")[0] in problem for problem in problems)


def test_a_label_that_shards_do_not_have(tmp_path):
    place = shards(tmp_path / "set")
    (place / "classes.txt").write_text("cat\n")
    for problem in images(place).problems:
        assert "0.tar:dog0.jpg is of class 1" in problem


def test_names_of_any_kind_are_found(tmp_path):
    place = folder(tmp_path / "set")
    (place / "train/cat/0.jpg").rename(place / 'train/cat/k\u00e9 "1", {}%.jpg')
    assert images(place).problems == []
    name = 'train/cat/k\u00e9 ""1"", {}%.jpg'
    (place / "all.csv").write_text(
        f'path,label,split\n"{name}",cat,train\ntrain/dog/0.jpg,dog,train\nval/cat/0.jpg,cat,val\n'
    )
    assert images(place / "all.csv").problems == []


# the command


def run(*arguments: str, work: Path) -> tuple[list[str], Exception | None]:
    done = CliRunner().invoke(command, ["check", *arguments, f"--work={work}"])
    return done.stdout.splitlines(), done.exception


def test_the_command_says_one_line_a_problem(root, tmp_path, monkeypatch):
    monkeypatch.setenv("CGH_DATA", str(root))
    lines, error = run("coco", work=tmp_path)
    assert lines[-1] == "coco: no problems found" and error is None
    for name in ("000002.png", "000003.png"):
        (root / f"coco/train2017/{name}").write_bytes(b"no image")
    lines, error = run(str(root / "coco"), work=tmp_path)  # by its folder
    assert ["000002" in lines[0], "000003" in lines[1]] == [True, True]
    assert isinstance(error, UserError) and "2 problems" in str(error)


def test_what_was_read_is_remembered_until_it_changes(root, tmp_path, monkeypatch):
    place = folder(tmp_path / "set")
    first = found("ade20k", root), images(place)
    monkeypatch.setattr(Image, "open", None)
    assert (found("ade20k", root), images(place)) == first


def test_a_dataset_that_is_not_there(tmp_path, monkeypatch):
    monkeypatch.setenv("CGH_DATA", str(tmp_path))
    (line, *_), error = run("coco", work=tmp_path)
    assert f"there is no folder {tmp_path / 'coco'}" in line and isinstance(error, UserError)
    (line, *_), error = run("phots", work=tmp_path)
    assert "phots" in line and isinstance(error, UserError)
