"""The sets that users fetch, in tiny copies of their published layouts and file formats."""

import io
import json
import pickle
import tarfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.io import savemat

from cgh_bench.core.errors import UserError
from cgh_bench.core.registry import registered
from cgh_bench.data import FetchedImages, ImageSet, catalog, load
from cgh_bench.data.imagenet import IMAGENET100, LISTS
from cgh_bench.data.layouts.voc import CLASSES as VOC_CLASSES
from cgh_bench.data.shards import load_shards
from cgh_bench.evaluation import prepare, protocol_id
from cgh_bench.frozen.selection import require_learnable
from cgh_bench.workspace import Workspace

FETCHED = {
    name: entry
    for name, entry in catalog().items()
    if isinstance(entry, FetchedImages) and not entry.only_val and not name.startswith("vtab_")
}


def picture(path: Path, shade: int = 0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (5, 4), (shade, 0, 0)).save(path)


def text(path: Path, *lines: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{line}\n" for line in lines))


def cifar10(folder: Path) -> None:
    rng = np.random.default_rng(0)
    for file in [*(f"data_batch_{n}" for n in range(1, 6)), "test_batch"]:
        batch = {"data": rng.integers(0, 256, (2, 3072), dtype=np.uint8), "labels": [1, 0], "batch_label": file}
        (folder / file).write_bytes(pickle.dumps(batch, 2))
    (folder / "batches.meta").write_bytes(pickle.dumps({"label_names": ["plane", "car"]}, 2))


def cifar100(folder: Path) -> None:
    for file in ("train", "test"):
        batch = {"data": np.zeros((2, 3072), np.uint8), "fine_labels": [1, 0], "coarse_labels": [0, 0]}
        (folder / file).write_bytes(pickle.dumps(batch, 2))
    names = {"fine_label_names": ["apple", "bee"], "coarse_label_names": ["x"]}
    (folder / "meta").write_bytes(pickle.dumps(names, 2))


def stl10(folder: Path) -> None:
    text(folder / "class_names.txt", "plane", "bird")
    for part in ("train", "test"):
        pixels = np.zeros((2, 3, 96, 96), np.uint8)
        pixels[:, 0, 95, 0] = 7  # stored column by column: the right upper corner
        pixels.tofile(folder / f"{part}_X.bin")
        np.array([2, 1], np.uint8).tofile(folder / f"{part}_y.bin")


def food101(folder: Path) -> None:
    for part in ("train", "test"):
        named = {"pie": [f"pie/{part}1"], "cake": [f"cake/{part}2"]}
        text(folder / f"meta/{part}.json", json.dumps(named))
        for paths in named.values():
            picture(folder / f"images/{paths[0]}.jpg")


def flowers102(folder: Path) -> None:
    for number in range(1, 5):
        picture(folder / f"jpg/image_{number:05d}.jpg", 40 * number)
    savemat(folder / "imagelabels.mat", {"labels": np.array([[2, 1, 2, 1]], np.uint8)})
    savemat(folder / "setid.mat", {"trnid": [[2, 3]], "valid": [[4, 1]], "tstid": [[4, 1]]})


def pets(folder: Path) -> None:
    for part in ("trainval", "test"):
        text(folder / f"annotations/{part}.txt", f"shiba_inu_{part} 2 2 1", f"Bengal_{part} 1 1 1")
        for name in ("shiba_inu", "Bengal"):
            picture(folder / f"images/{name}_{part}.jpg")


def dtd(folder: Path) -> None:
    for part in ("train", "val", "test"):
        text(folder / f"labels/{part}1.txt", f"woven/{part}.jpg", f"dotted/{part}.jpg")
        for name in ("woven", "dotted"):
            picture(folder / f"images/{name}/{part}.jpg")


def aircraft(folder: Path) -> None:
    text(folder / "data/variants.txt", "707-320", "BAE 146-200")
    for part in ("train", "val", "test"):
        text(folder / f"data/images_variant_{part}.txt", f"1{part} BAE 146-200", f"2{part} 707-320")
        for name in (f"1{part}", f"2{part}"):
            picture(folder / f"data/images/{name}.jpg")


def cars(folder: Path) -> None:
    names = np.array(["AM General Hummer", "Acura RL"], dtype=object)
    (folder / "devkit").mkdir()
    savemat(folder / "devkit/cars_meta.mat", {"class_names": names})
    kind = [("fname", object), ("class", object)]
    for part, file in (("train", "devkit/cars_train_annos.mat"), ("test", "cars_test_annos_withlabels.mat")):
        savemat(folder / file, {"annotations": np.array([("1.jpg", 2), ("2.jpg", 1)], dtype=kind)})
        for image in ("1.jpg", "2.jpg"):
            picture(folder / f"cars_{part}/{image}")


def sun397(folder: Path) -> None:
    text(folder / "ClassName.txt", "/a/abbey", "/c/church/indoor")
    for part in ("Training", "Testing"):
        paths = (f"/c/church/indoor/sun_{part}.jpg", f"/a/abbey/sun_{part}.jpg")
        text(folder / f"{part}_01.txt", *paths)
        for path in paths:
            picture(folder / path.lstrip("/"))


def caltech101(folder: Path) -> None:
    for name in ("BACKGROUND_Google", "ant"):
        for number in range(1, 33):
            picture(folder / f"101_ObjectCategories/{name}/image_{number:04d}.jpg")


def voc07(folder: Path) -> None:
    for part in ("train", "val", "test"):
        for column, name in enumerate(VOC_CLASSES):
            # The first image shows class 0, the second class 1, and class 0 as difficult.
            marks = {0: (1, 0), 1: (-1, 1)}.get(column, (-1, -1))
            text(folder / f"ImageSets/Main/{name}_{part}.txt", f"{part}1 {marks[0]:2d}", f"{part}2 {marks[1]:2d}")
        for number in "12":
            picture(folder / f"JPEGImages/{part}{number}.jpg")


def imagenet1k(folder: Path) -> None:
    for name in IMAGENET100[:2]:
        picture(folder / f"train/{name}/{name}_1.JPEG")
        picture(folder / f"train/{name}/{name}_2.JPEG")
        picture(folder / f"val/{name}/ILSVRC2012_val_1.JPEG")
    for list_ in LISTS:
        text(folder / list_, *(f"{name}_2.JPEG" for name in reversed(IMAGENET100[:2])))


def imagenet100(folder: Path) -> None:
    for name in (*IMAGENET100, "n99999999"):
        picture(folder / f"train/{name}/{name}_1.JPEG")
        picture(folder / f"val/{name}/ILSVRC2012_val_1.JPEG")


def tiny_imagenet(folder: Path) -> None:
    text(folder / "wnids.txt", "n02", "n01")
    for name in ("n01", "n02"):
        picture(folder / f"train/{name}/images/{name}_0.JPEG")
        picture(folder / f"val/images/val_{name}.JPEG")
    text(folder / "val/val_annotations.txt", *(f"val_{name}.JPEG\t{name}\t0\t0\t62\t62" for name in ("n02", "n01")))


def waterbirds(folder: Path) -> None:
    rows = ["1,a/1.jpg,0,0,0,x", "2,a/2.jpg,1,0,1,x", "3,a/3.jpg,0,1,1,x", "4,a/4.jpg,0,2,1,x", "5,a/5.jpg,1,2,0,x"]
    text(folder / "metadata.csv", "img_id,img_filename,y,split,place,place_filename", *rows)
    for number in (1, 2, 4, 5):  # those of validation are not looked for
        picture(folder / f"a/{number}.jpg")


def camelyon17(folder: Path) -> None:
    rows = ["0,004,4,3,2,1,0,0,0", "1,004,4,1,2,0,0,0,1", "2,017,1,3,4,1,10,1,0", "3,042,3,5,6,0,23,2,0"]
    text(folder / "metadata.csv", ",patient,node,x_coord,y_coord,tumor,slide,center,split", *rows)
    picture(folder / "patches/patient_004_node_4/patch_patient_004_node_4_x_3_y_2.png")
    picture(folder / "patches/patient_042_node_3/patch_patient_042_node_3_x_5_y_6.png")


def inaturalist(folder: Path) -> None:
    year = "2018" if folder.name == "inat2018" else ""
    categories = [{"id": number} for number in (10, 9, 2)]
    of_split = {"train": [10] * 3 + [2] * 25 + [9] * 101, "val": [2, 10]}
    for split, ids in of_split.items():
        images = [{"id": n, "file_name": f"train_val2018/{split}{n % 2}.jpg"} for n in range(len(ids))]
        marks = [{"image_id": n, "category_id": each} for n, each in reversed(list(enumerate(ids)))]
        document = {"images": images, "annotations": marks, "categories": categories}
        text(folder / f"{split}{year}.json", json.dumps(document))
        for number in "01":
            picture(folder / f"train_val2018/{split}{number}.jpg")
        (folder / split).mkdir(exist_ok=True)


def medmnist(folder: Path) -> None:
    rng = np.random.default_rng(0)
    for name in ("chestmnist", *(name for name in catalog() if FETCHED.get(name) and name.endswith("mnist"))):
        shape, several = ((3,) if name in ("pathmnist", "bloodmnist") else ()), 14 if name == "chestmnist" else 1
        arrays = {}
        for part, count in (("train", 4), ("val", 2), ("test", 3)):
            arrays[f"{part}_images"] = rng.integers(0, 255, (count, 28, 28, *shape), dtype=np.uint8)
            arrays[f"{part}_labels"] = np.arange(count * several, dtype=np.uint8).reshape(count, several) % 2
        np.savez(folder / f"{name}.npz", **arrays)


def birdsnap(folder: Path) -> None:
    text(folder / "species.txt", "id\tcommon\tscientific\tdir", "1\tBlue Jay\tC. c.\tJay", "2\tWren\tT. t.\tWren")
    lines = [f"u\tm\t{place}/{n}.jpg\t{id}\t0" for id, place in ((2, "Wren"), (1, "Jay")) for n in (1, 2, 3)]
    text(folder / "images.txt", "url\tmd5\tpath\tspecies_id\tbb_x1", *lines)
    text(folder / "test_images.txt", "path", "Wren/2.jpg", "Jay/2.jpg")
    for place in ("Wren", "Jay"):
        for number in "12":  # the third is gone
            picture(folder / f"images/{place}/{number}.jpg")


def cub200(folder: Path) -> None:
    names = ["b/1.jpg", "b/2.jpg", "a/1.jpg", "a/2.jpg"]
    for file, column in {
        "images.txt": names,
        "image_class_labels.txt": [1, 1, 2, 2],
        "train_test_split.txt": [1, 0, 1, 0],
    }.items():
        text(folder / file, *(f"{place} {value}" for place, value in enumerate(column, start=1)))
    text(folder / "classes.txt", "1 001.B b", "2 002.A")
    for name in names:
        picture(folder / "images" / name)


SETS = (cifar10, cifar100, stl10, food101, flowers102, pets, dtd, aircraft, cars, sun397, caltech101, voc07)
SETS = (*SETS, waterbirds, camelyon17, birdsnap, cub200)
WRITERS: dict[str, Callable[[Path], None]] = {
    writer.__name__: writer for writer in (*SETS, imagenet1k, imagenet100, tiny_imagenet)
}
for name in FETCHED:
    for start, writer in {"imagenet1k_": imagenet1k, "inat": inaturalist}.items():
        if name.startswith(start):
            WRITERS[name] = writer
    if name.endswith("mnist"):
        WRITERS[name] = medmnist

LABELS = {  # of the train images; two in "val", in the same order
    "cifar10": [1, 0] * 5,
    "food101": [0, 1],
    "flowers102": [0, 1, 0, 1],
    "pets": [1, 0],
    "dtd": [1, 0, 1, 0],
    "aircraft": [1, 0, 1, 0],
    "caltech101": [0] * 30 + [1] * 30,
    "imagenet1k": [0, 0, 1, 1],
    "tiny_imagenet": [0, 1],
    "waterbirds": [0, 1],
    "inat2018": [2] * 3 + [0] * 25 + [1] * 101,
    "pathmnist": [0, 1, 0, 1, 0, 1],
    "birdsnap": [1, 0],
    "cub200": [0, 1],
    "imagenet1k_msn_5_3": [1, 0],
}


def written(name: str, root: Path, subset: bool = True) -> Path:
    folder = root / FETCHED[name].folder
    folder.mkdir(parents=True)
    WRITERS[name](folder)
    if subset:
        (folder / "SUBSET").touch()
    return folder


@pytest.mark.parametrize("name", FETCHED)
def test_every_set_is_read_from_its_own_files(name: str, tmp_path: Path) -> None:
    assert name in WRITERS, "write a tiny copy of the set's layout"
    written(name, tmp_path)
    train, val = load(name, "train", tmp_path), load(name, "val", tmp_path)
    assert train.classes == val.classes
    assert len(train.fingerprint) == 16
    for images in (train, val):
        assert images.image(len(images) - 1).shape[0] == 3
        assert images.labels.dtype == np.int64
    if name in LABELS:
        assert train.labels.tolist() == LABELS[name]
    assert val.held_out is None


@pytest.mark.parametrize("name", FETCHED)
def test_absent_and_incomplete_sets_are_one_line_of_help(name: str, tmp_path: Path) -> None:
    with pytest.raises(UserError) as absent:
        load(name, "train", tmp_path)
    assert str(tmp_path / FETCHED[name].folder) in str(absent.value)
    assert FETCHED[name].how in str(absent.value)
    written(name, tmp_path, subset=False)
    if FETCHED[name].counts == (0, 0):  # as many as are still to be had, or not said
        return
    with pytest.raises(UserError, match=r"were published|lacks"):
        load(name, "val", tmp_path)


def paths(images: ImageSet) -> list[str]:
    return list(images.paths)  # type: ignore[attr-defined]


def test_the_images_that_a_set_keeps_for_selection_are_the_last_of_train(tmp_path: Path) -> None:
    for name in ("flowers102", "dtd", "aircraft", "voc07"):
        written(name, tmp_path)
        assert load(name, "train", tmp_path).held_out.tolist() == [2, 3]  # type: ignore[union-attr]
    assert paths(load("dtd", "train", tmp_path))[2:] == ["images/woven/val.jpg", "images/dotted/val.jpg"]
    assert paths(load("flowers102", "train", tmp_path))[2:] == ["jpg/image_00004.jpg", "jpg/image_00001.jpg"]


def test_a_difficult_object_of_voc_is_not_counted(tmp_path: Path) -> None:
    written("voc07", tmp_path)
    images = load("voc07", "val", tmp_path)
    assert images.multi_label
    assert images.labels[:, :3].tolist() == [[1, 0, 0], [-1, 1, 0]]
    assert len(images) == 2


def test_stl10_is_turned_and_cifar_is_not(tmp_path: Path) -> None:
    written("stl10", tmp_path)
    image = load("stl10", "val", tmp_path).image(0)
    assert (image[0, 0, 95], image.sum()) == (7, 7)
    folder = written("cifar10", tmp_path)
    with (folder / "data_batch_1").open("rb") as file:
        row = pickle.load(file)["data"][1]
    assert load("cifar10", "train", tmp_path).image(1)[2, 1, 3] == row[2 * 1024 + 32 + 3]


def test_classes_of_inaturalist_are_grouped_by_how_many_images_train_has(tmp_path: Path) -> None:
    written("inat2018", tmp_path)
    train, val = load("inat2018", "train", tmp_path), load("inat2018", "val", tmp_path)
    assert train.classes == ("2", "9", "10")  # by number
    assert train.groups and val.groups
    counts = [(train.groups.of == place).sum() for place in range(3)]
    assert dict(zip(train.groups.names, counts, strict=True)) == {"head": 101, "medium": 25, "tail": 3}
    assert [val.groups.names[place] for place in val.groups.of] == ["medium", "tail"]


def test_medmnist_holds_its_validation_images_out(tmp_path: Path) -> None:
    written("pathmnist", tmp_path)
    train, several = load("pathmnist", "train", tmp_path), load("chestmnist", "train", tmp_path)
    assert train.held_out is not None and train.held_out.tolist() == [4, 5]
    assert (train.image(0).shape, load("octmnist", "val", tmp_path).image(0).shape) == ((3, 28, 28), (3, 28, 28))
    assert several.multi_label and several.labels.shape == (6, 14)
    (tmp_path / "medmnist/pathmnist.npz").write_bytes(b"PK\x03\x04 not whole")
    with pytest.raises(UserError, match="damaged"):
        load("pathmnist", "val", tmp_path)


def test_a_list_that_is_not_the_published_one_is_refused(tmp_path: Path) -> None:
    folder = written("imagenet1k_msn_5_3", tmp_path, subset=False)
    with pytest.raises(UserError, match=r"msn_5_3.txt is not the published list"):
        load("imagenet1k_msn_5_3", "train", tmp_path)
    how = {draw: FETCHED[f"imagenet1k_msn_5_{draw}"].how for draw in (2, 3)}
    assert "imagenet_subsets2/5imgs_class.txt" in how[2]
    assert "imagenet_subsets3/3imgs_class.txt" in how[3]  # five images a class, and called so
    assert (folder / "msn_5_3.txt").is_file()


def test_no_pickle_of_cifar_runs_code(tmp_path: Path) -> None:
    folder = written("cifar10", tmp_path)
    (folder / "data_batch_3").write_bytes(pickle.dumps({"data": print}))
    with pytest.raises(UserError, match=r"data_batch_3"):
        load("cifar10", "train", tmp_path)


def test_caltech_draws_thirty_of_each_class_and_reports_the_others(tmp_path: Path) -> None:
    written("caltech101", tmp_path)
    train, val = paths(load("caltech101", "train", tmp_path)), paths(load("caltech101", "val", tmp_path))
    assert (len(train), len(val), len(set(train) | set(val))) == (60, 4, 64)
    assert paths(load("caltech101", "train", tmp_path)) == train


def test_parts_of_imagenet(tmp_path: Path) -> None:
    written("imagenet1k", tmp_path)
    one = load("imagenet1k_1pct", "train", tmp_path)
    names = sorted(IMAGENET100[:2])
    assert paths(one) == [f"{name}/{name}_2.JPEG" for name in reversed(IMAGENET100[:2])]
    assert [one.classes[label] for label in one.labels] == [path.split("/")[0] for path in paths(one)]
    assert list(one.classes) == names
    with pytest.raises(UserError, match="lacks 98 of the 100 requested classes"):
        load("imagenet100", "train", tmp_path)
    (tmp_path / "imagenet1k/1percent.txt").write_text("n02_1.JPEG\n")
    with pytest.raises(UserError, match="damaged"):
        load("imagenet1k_1pct", "train", tmp_path)


def test_imagenet100_leaves_the_other_classes_out(tmp_path: Path) -> None:
    written("imagenet100", tmp_path)
    assert load("imagenet100", "train", tmp_path).classes == tuple(sorted(IMAGENET100))
    assert len(set(IMAGENET100)) == 100


def test_images_that_are_not_unpacked_are_named(tmp_path: Path) -> None:
    folder = written("pets", tmp_path)
    (folder / "images/Bengal_test.jpg").unlink()
    with pytest.raises(UserError, match=r"1 of the 2 images of pets/val are missing .first: .*Bengal_test"):
        load("pets", "val", tmp_path)


def shard(path: Path, members: dict[str, bytes]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for name, content in members.items():
            item = tarfile.TarInfo(name)
            item.size = len(content)
            tar.addfile(item, io.BytesIO(content))


def png(shade: int) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (3, 2), (shade, 0, 0)).save(buffer, "png")
    return buffer.getvalue()


LABELLED = {"a.jpg": b"one", "a.cls": b"0"}


@pytest.mark.parametrize(
    ("members", "said"),
    [
        (LABELLED | {"a.png": b"mask"}, "a has the images jpg and png"),
        ({"a.left.jpg": b"l", "a.right.jpg": b"r", "a.cls": b"0"}, "a has the images left.jpg and right.jpg"),
        ({"a.jpg": b"one", "a.json": b'{"caption": "a dog"}'}, "a.jpg has no class"),
        ({"a.jpg": b"one", "a.json": b"{"}, "a.json is not valid JSON"),
        ({"a.jpg": b"one", "a.json": b'{"label": 2}'}, "a.jpg is of class 2"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_shards_that_can_be_read_in_two_ways_are_refused(members: dict[str, bytes], said: str, tmp_path: Path) -> None:
    shard(tmp_path / "train/0.tar", members)
    (tmp_path / "classes.txt").write_text("x\ny\n")
    with pytest.raises(UserError) as told:
        load_shards(tmp_path, "train")
    assert said in str(told.value) and "0.tar" in str(told.value)


def test_a_key_that_is_there_twice_is_refused(tmp_path: Path) -> None:
    """One of both images would be lost, or get the other's label."""
    (tmp_path / "train").mkdir()
    (tmp_path / "classes.txt").write_text("x\ny\n")
    with tarfile.open(tmp_path / "train/0.tar", "w") as tar:
        for name, content in (*LABELLED.items(), ("b.jpg", b"two"), ("b.cls", b"1"), *LABELLED.items()):
            item = tarfile.TarInfo(name)
            item.size = len(content)
            tar.addfile(item, io.BytesIO(content))
    with pytest.raises(UserError, match=r"0\.tar: a\.jpg occurs twice"):
        load_shards(tmp_path, "train")


def test_shards_as_webdataset_and_clip_benchmark_write_them(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    others = {"a.seg.png": b"mask", "a.txt": b"words", "._a.jpg": b"mac", "__MACOSX/a.jpg": b"mac"}
    shard(tmp_path / "train/0.tar", {"a.webp": b"one", "a.cls": b"1", **others})
    shard(tmp_path / "train/1.tar", {"a.left.jpg": b"two", "a.json": b'{"label": 0}', "b.jpg": b"3", "b.json": b"1"})
    shard(tmp_path / "test/0.tar", {"a.jpg": b"val", "a.cls": b"0"})
    (tmp_path / "classnames.txt").write_text("x\ny\n")
    train, val = load_shards(tmp_path, "train"), load_shards(tmp_path, "val")
    assert [train.called(i) for i in range(3)] == ["0.tar:a.webp", "1.tar:a.left.jpg", "1.tar:b.jpg"]
    assert (train.labels.tolist(), val.labels.tolist(), val.classes) == ([1, 0, 1], [0], ("x", "y"))
    assert "*.seg.png, *.txt" in caplog.text
    (tmp_path / "train/2.tar.gz").write_bytes(b"")
    with pytest.raises(UserError, match=r"2\.tar\.gz is compressed"):
        load_shards(tmp_path, "train")


def test_a_subset_is_another_protocol_and_in_no_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Under the id of the published data, its number would stand beside published ones."""
    monkeypatch.setenv("CGH_DATA", str(tmp_path))
    written("dtd", tmp_path)
    (subset,) = prepare(["dtd_knn"], Workspace(tmp_path / "work"))
    assert subset.data.subset == "4 of 3,760 train images"
    assert subset.protocol != protocol_id("dtd_knn", subset.task)
    whole = replace(FETCHED["dtd"], counts=(4, len(load("dtd", "val", tmp_path))))
    monkeypatch.setitem(registered("cgh_bench.data", "CATALOG"), "dtd", whole)
    (full,) = prepare(["dtd_knn"], Workspace(tmp_path / "work"))
    assert (full.data.subset, full.protocol) == ("", protocol_id("dtd_knn", full.task))


def test_tar_shards(tmp_path: Path) -> None:
    folder = tmp_path / "web"
    shard(folder / "train/1.tar", {"b.png": png(3), "b.cls": b"1", "b.json": b"{}"})
    shard(folder / "train/0.tar", {"../a.cls": b"0\n", "../a.png": png(1), "c.PNG": png(2), "c.cls": b"1"})
    shard(folder / "val/0.tar", {"z.png": png(9), "z.cls": b"1"})
    text(folder / "classes.txt", "cat", "sea lion")
    train = load(str(folder), "train")
    assert (train.name, train.classes, train.labels.tolist()) == ("web/train", ("cat", "sea lion"), [0, 1, 1])
    assert [int(train.image(i)[0, 0, 0]) for i in range(3)] == [1, 2, 3]
    assert [train.called(i) for i in range(3)] == ["0.tar:../a.png", "0.tar:c.PNG", "1.tar:b.png"]
    assert load(str(folder), "val").image(0).shape == (3, 2, 3)

    shard(folder / "val/0.tar", {"z.png": png(9), "z.cls": b"2"})
    with pytest.raises(UserError, match=r"0.tar:z.png is of class 2, but .* has 2 classes"):
        load(str(folder), "val")
    shard(folder / "val/0.tar", {"z.png": b"no image", "z.cls": b"0", "y.png": b""})
    with pytest.raises(UserError, match=r"y.png has no class; expected a member y.cls"):
        load(str(folder), "val")
    shard(folder / "val/0.tar", {"z.png": b"no image", "z.cls": b"0"})
    with pytest.raises(UserError, match=r"0.tar:z.png is not a readable image"):
        load(str(folder), "val").image(0)
    (folder / "val/0.tar").write_bytes(b"not a tar")
    with pytest.raises(UserError, match="cannot be read"):
        load(str(folder), "val")
    (folder / "classes.txt").unlink()
    with pytest.raises(UserError, match=r"classes.txt not found"):
        load(str(folder), "train")


def test_a_shard_that_is_cut_or_removed_after_it_was_opened_is_named(tmp_path: Path) -> None:
    """Neither as an image that cannot be read, nor by the fingerprint of what is left."""
    members = {f"{name}.{suffix}": content for name in "ab" for suffix, content in (("png", png(1)), ("cls", b"0"))}
    shard(tmp_path / "train/0.tar", members)
    text(tmp_path / "classes.txt", "cat", "dog")
    images = load(str(tmp_path), "train")
    place, cut = tmp_path / "train/0.tar", images.members[1].offset + 20
    place.write_bytes(place.read_bytes()[:cut])
    assert images.image(0).shape == (3, 2, 3)
    for read in (lambda: images.image(1), lambda: images.fingerprint):
        with pytest.raises(UserError, match=r"train/0\.tar was truncated within b\.png"):
            read()
    place.unlink()
    for read in (lambda: images.image(0), lambda: images.fingerprint):
        with pytest.raises(UserError, match=r"train/0\.tar.*No such file"):
            read()


def test_shards_are_fingerprinted_by_their_images_however_they_are_packed(tmp_path: Path) -> None:
    def fingerprint(name: str, *shards: dict[str, bytes]) -> str:
        for number, members in enumerate(shards):
            shard(tmp_path / name / f"train/{number}.tar", members)
        text(tmp_path / name / "classes.txt", "cat", "dog")
        return load(str(tmp_path / name), "train", cache=tmp_path / "cache").fingerprint

    first, second = {"a.png": png(1), "a.cls": b"0"}, {"b.png": png(2), "b.cls": b"1"}
    one = fingerprint("one", first | second)
    assert fingerprint("two", first, second) == one
    assert fingerprint("other", {"a.png": png(7), "a.cls": b"0"}, second) != one
    assert len(png(7)) == len(png(1))
    shard(tmp_path / "one/train/0.tar", {"a.png": png(7), "a.cls": b"0"} | second)
    assert load(str(tmp_path / "one"), "train", cache=tmp_path / "cache").fingerprint != one


def test_the_page_lists_every_set() -> None:
    page = (Path(__file__).parents[2] / "docs/frozen.md").read_text(encoding="utf-8")
    for name, entry in FETCHED.items():
        line = next(line for line in page.splitlines() if line.startswith(f"| `{name}`"))
        assert f"`{entry.folder}`" in line
        assert f"{entry.transform.resize}/{entry.transform.crop} {entry.transform.interpolation}" in line


def test_vtab_learns_from_800_and_200_images_and_chooses_on_the_200(tmp_path: Path) -> None:
    folder = tmp_path / "vtab-1k/kitti"
    lists = {"train800": [("a", 0), ("b", 2)], "val200": [("c", 1)], "test": [("d", 3), ("e", 0)]}
    for part, listed in lists.items():
        text(folder / f"{part}.txt", "".join(f"images/{part}/{name}.png {label}\n" for name, label in listed))
        for name, _ in listed:
            picture(folder / f"images/{part}/{name}.png")
    (folder / "SUBSET").touch()
    train, val = (load("vtab_kitti", split, tmp_path) for split in ("train", "val"))
    assert paths(train) == ["images/train800/a.png", "images/train800/b.png", "images/val200/c.png"]
    assert train.labels.tolist() == [0, 2, 1]
    assert train.held_out.tolist() == [2]  # type: ignore[union-attr]
    assert val.labels.tolist() == [3, 0]
    assert train.classes == val.classes == ("0", "1", "2", "3")
    require_learnable(train, val)  # class 3 is in no train image: its test image counts, as wrong
