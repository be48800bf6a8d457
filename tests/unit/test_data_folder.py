"""A folder as a set of images: layouts, odd files, and images that Pillow needs help with."""

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from cgh_bench.core.errors import UserError
from cgh_bench.data import load, load_pair
from cgh_bench.data.contents import MEMORY, contents, digest
from cgh_bench.data.decoding import read_image
from cgh_bench.data.folder import load_folder


def save(path: Path, image: Image.Image | None = None, **options: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    (image or Image.new("RGB", (6, 4), (200, 100, 50))).save(path, **options)
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    root = tmp_path / "zoo"
    for split, count in (("train", 3), ("val", 2)):
        for label, name in enumerate(("cat", "dog")):
            for index in range(count):
                save(root / split / name / f"{index}.png", Image.new("RGB", (6, 4), (100 * label, index, 7)))
    return root


def test_images_labels_and_classes(folder: Path):
    images = load_folder(folder, "train")
    assert images.name == "zoo/train"
    assert images.classes == ("cat", "dog")
    assert images.labels.tolist() == [0, 0, 0, 1, 1, 1]
    assert images.labels.dtype == np.int64
    assert len(images) == 6
    for index, (label, number) in enumerate((label, number) for label in range(2) for number in range(3)):
        image = images.image(index)
        assert image.shape == (3, 4, 6)
        assert image.dtype == torch.uint8
        assert image[:, 0, 0].tolist() == [100 * label, number, 7]


def test_sub_folders_and_capital_suffixes_are_read_in_order(folder: Path):
    save(folder / "train/cat/more/a.JPG")
    save(folder / "train/cat/10.PNG")
    assert load_folder(folder, "train").paths[:5] == (
        "cat/0.png",
        "cat/1.png",
        "cat/10.PNG",
        "cat/2.png",
        "cat/more/a.JPG",
    )


def test_found_by_path_and_below_the_root(folder: Path, monkeypatch: pytest.MonkeyPatch):
    assert len(load(str(folder), "val")) == 4
    assert len(load("zoo", "val", root=folder.parent)) == 4
    monkeypatch.setenv("CGH_DATA", str(folder.parent))
    assert len(load("zoo", "val")) == 4


def test_the_fingerprint_changes_with_what_it_covers(folder: Path):
    first = load_folder(folder, "train").fingerprint
    assert len(first) == 16
    assert load_folder(folder, "train").fingerprint == first
    assert load_folder(folder, "val").fingerprint != first
    os.utime(folder / "train/cat/0.png", (1, 1))
    assert load_folder(folder, "train").fingerprint == first
    save(folder / "train/cat/0.png", Image.new("RGB", (9, 9)))
    changed = load_folder(folder, "train").fingerprint
    (folder / "train/cat/0.png").rename(folder / "train/dog/9.png")
    moved = load_folder(folder, "train").fingerprint
    assert len({first, changed, moved}) == 3


@pytest.mark.parametrize("cached", [False, True])
def test_other_pixels_under_the_same_name_size_and_time_are_other_data(folder: Path, tmp_path: Path, cached: bool):
    cache = tmp_path / "cache" if cached else None
    path = save(folder / "train/cat/0.bmp", Image.new("RGB", (8, 8), (1, 2, 3)))
    before, state = load_folder(folder, "train", cache).fingerprint, path.stat()
    save(path, Image.new("RGB", (8, 8), (3, 2, 1)))
    os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns))
    assert path.stat().st_size == state.st_size
    assert load_folder(folder, "train", cache).fingerprint != before


def test_files_are_read_once_and_again_when_they_change(folder: Path, tmp_path: Path):
    names, seen = ("cat/0.png", "dog/1.png"), []

    def read(path: Path) -> bytes:
        seen.append(path.name)
        return digest(path)

    def found() -> list[bytes]:
        seen.clear()
        return contents(folder / "train", names, tmp_path / "cache", read)

    first = found()
    assert sorted(seen) == ["0.png", "1.png"]
    assert found() == first
    assert seen == []
    save(folder / "train/dog/1.png", Image.new("RGB", (6, 4), (1, 1, 1)))
    changed = found()
    assert seen == ["1.png"]
    assert (changed[0], changed[1] != first[1]) == (first[0], True)
    (tmp_path / "cache" / MEMORY).write_bytes(b"torn" * 100)
    assert found() == changed
    assert found() == changed
    assert seen == []


def test_a_file_that_cannot_be_read_is_named(folder: Path, tmp_path: Path):
    images = load_folder(folder, "train", tmp_path / "cache")
    (folder / "train/cat/0.png").unlink()
    with pytest.raises(UserError, match=r"cat/0\.png"):
        images.fingerprint  # noqa: B018


def test_the_same_files_moved_elsewhere_keep_their_fingerprint(folder: Path, tmp_path: Path):
    shutil.copytree(folder, tmp_path / "copy/zoo")
    assert load_folder(tmp_path / "copy/zoo", "train").fingerprint == load_folder(folder, "train").fingerprint


def test_files_that_are_no_images_are_reported(folder: Path, caplog: pytest.LogCaptureFixture):
    save(folder / "train/stray.png")
    save(folder / "train/dog/moving.gif")
    assert len(load_folder(folder, "train")) == 6
    (record,) = caplog.records
    assert all(said in record.getMessage() for said in ("2 files", "dog/moving.gif, stray.png"))


def test_what_systems_leave_in_folders_is_passed_over_in_silence(folder: Path, caplog: pytest.LogCaptureFixture):
    before = load_folder(folder, "train").fingerprint
    for name in (".ipynb_checkpoints/0-checkpoint.png", "@eaDir/0.png", "cat/.ipynb_checkpoints/0.png", "cat/._0.png"):
        save(folder / "train" / name, format="PNG")
    for name in (".DS_Store", "cat/.DS_Store", "cat/Thumbs.db"):
        (folder / "train" / name).write_bytes(b"x")
    images = load_folder(folder, "train")
    assert (len(images), images.classes, images.fingerprint) == (6, ("cat", "dog"), before)
    assert not caplog.records


@pytest.mark.parametrize("target", ["..", "."])
def test_a_loop_of_links_is_one_line(folder: Path, target: str):
    (folder / "train/cat/loop").symlink_to(target, target_is_directory=True)
    with pytest.raises(UserError, match="train/cat/loop"):
        load_folder(folder, "train")


def test_pipes_and_dead_links_are_one_line(folder: Path):
    os.mkfifo(folder / "train/cat/pipe.png")
    with pytest.raises(UserError, match="train/cat/pipe.png is neither a file nor a folder"):
        load_folder(folder, "train")
    (folder / "train/cat/pipe.png").unlink()
    (folder / "train/cat/dead.png").symlink_to("gone.png")
    with pytest.raises(UserError, match="train/cat/dead.png is neither a file nor a folder"):
        load_folder(folder, "train")


def test_a_link_to_itself_is_one_line(folder: Path):
    (folder / "train/cat/self").symlink_to("self")
    with pytest.raises(UserError, match="train/cat/self"):
        load_folder(folder, "train")


def test_a_class_without_images(folder: Path):
    (folder / "train/emu").mkdir()
    with pytest.raises(UserError, match=r"no images in .*train/emu"):
        load_folder(folder, "train")


def test_different_classes_in_train_and_val(folder: Path):
    save(folder / "val/emu/0.png")
    load_pair.cache_clear()
    with pytest.raises(UserError, match=r"different classes.*emu"):
        load_pair(str(folder), folder)


def test_names_of_classes_in_two_encodings_are_one(folder: Path):
    """An umlaut as one letter, and as a letter and a dot; `sorted` would put them at different places too."""
    for split, name in (("train", "\u00f6tzi"), ("val", "o\u0308tzi")):
        save(folder / split / name / "0.png")
    load_pair.cache_clear()
    pair = load_pair(str(folder), folder)
    assert pair.train.classes == pair.val.classes == ("cat", "dog", "\u00f6tzi")
    assert pair.val.image(len(pair.val) - 1).shape == (3, 4, 6)
    save(folder / "val/\u00f6tzi/0.png")
    with pytest.raises(UserError, match=r"val has one folder name in two .*'o\\u0308tzi' and '\\xf6tzi'"):
        load_folder(folder, "val")


def test_a_missing_split_and_a_flat_folder(folder: Path):
    shutil.rmtree(folder / "val/cat")
    shutil.rmtree(folder / "val/dog")
    with pytest.raises(UserError, match=r"val has no sub-folders"):
        load_folder(folder, "val")
    (folder / "val").rename(folder / "Val")
    with pytest.raises(
        UserError, match=r"zoo/val not found \(it has Val/, train/\); expected train/CLASS/.*val_split=0\.2"
    ):
        load_folder(folder, "val")
    assert len(load_folder(folder, "train")) == 6  # as pretraining needs it


@pytest.mark.parametrize("name", ["valid", "validation", "test"])
def test_other_names_of_val(folder: Path, name: str):
    before = load_folder(folder, "val").fingerprint
    (folder / "val").rename(folder / name)
    found = load_folder(folder, "val")
    assert (found.name, found.fingerprint) == ("zoo/val", before)
    other, both = ("valid", "valid/ and test/") if name == "test" else ("test", f"{name}/ and test/")
    shutil.copytree(folder / name, folder / other)
    with pytest.raises(UserError, match=f"has {both}; rename"):
        load_folder(folder, "val")
    shutil.copytree(folder / name, folder / "val")
    assert len(load_folder(folder, "val")) == 4


@pytest.mark.parametrize("flat", [False, True])
def test_val_is_split_off_where_there_is_none(folder: Path, tmp_path: Path, flat: bool):
    shutil.rmtree(folder / "val")
    for number in range(10, 17):
        save(folder / "train/cat" / f"{number}.png", Image.new("RGB", (6, 4), (0, number, 7)))
    name = str(folder / "train" if flat else folder)
    load_pair.cache_clear()
    pair = load_pair(name, tmp_path, None, 0.3)
    assert [np.bincount(images.labels).tolist() for images in (pair.train, pair.val)] == [[7, 2], [3, 1]]
    every = load_folder(folder, "train").paths
    shown = [images.called(index) for images in (pair.train, pair.val) for index in range(len(images))]
    assert sorted(shown) == sorted(every)
    assert "val_split=0.3, seed 0" in pair.val.name
    assert load_pair(name, tmp_path, None, 0.2).fingerprint != pair.fingerprint
    with pytest.raises(UserError, match="without train images"):
        load_pair(name, tmp_path, None, 0.9)


def test_nothing_is_split_off_beside_a_val_folder(folder: Path, tmp_path: Path):
    load_pair.cache_clear()
    for name, wrong in ((str(folder), "already has val/"), ("animals", "only to your own folder")):
        with pytest.raises(UserError, match=wrong):
            load_pair(name, tmp_path, None, 0.2)


@pytest.mark.parametrize("content", [b"", b"no image", b"\x89PNG\r\n\x1a\n" + b"\0" * 40, b"\xff\xd8\xff\xe0broken"])
def test_a_file_that_is_no_image_is_named(tmp_path: Path, content: bytes):
    path = tmp_path / "broken.jpg"
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"broken\.jpg is not a readable image") as error:
        read_image(path)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("suffix", ["jpg", "png", "tiff", "webp", "bmp"])
def test_a_truncated_image_is_named(tmp_path: Path, suffix: str):
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8))
    path = save(tmp_path / f"cut.{suffix}", noise)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(UserError, match=rf"cut\.{suffix}"):
        read_image(path)


def test_a_missing_file_is_named(tmp_path: Path):
    with pytest.raises(UserError, match=r"gone\.png"):
        read_image(tmp_path / "gone.png")


def test_cmyk_grey_and_palette_become_rgb(tmp_path: Path):
    red = Image.new("RGB", (16, 16), (255, 0, 0))
    cmyk = read_image(save(tmp_path / "cmyk.jpg", red.convert("CMYK"), quality=95))
    assert cmyk[:, 8, 8].tolist() == pytest.approx([255, 0, 0], abs=6)
    palette = read_image(save(tmp_path / "palette.png", red.quantize(4)))
    assert palette[:, 8, 8].tolist() == [255, 0, 0]
    grey = read_image(save(tmp_path / "grey.png", Image.new("L", (16, 16), 90)))
    assert grey[:, 8, 8].tolist() == [90, 90, 90]
    alpha = read_image(save(tmp_path / "alpha.png", Image.new("RGBA", (16, 16), (9, 8, 7, 0))))
    assert alpha[:, 8, 8].tolist() == [9, 8, 7]


@pytest.mark.parametrize(("kind", "largest"), [(np.uint16, 4095), (np.uint16, 16383), (np.int32, 2**20)])
def test_whole_numbers_of_unknown_range_are_refused(tmp_path: Path, kind: type, largest: int):
    pixels = np.linspace(0, largest, 64).astype(kind).reshape(8, 8)
    path = save(tmp_path / "deep.tiff", Image.fromarray(pixels))
    with pytest.raises(UserError, match=rf"deep\.tiff has integer pixels from 0 to {largest}"):
        read_image(path)
    assert not read_image(save(tmp_path / "black.png", Image.fromarray(0 * pixels.astype(np.uint16)))).any()


@pytest.mark.parametrize("suffix", ["png", "tiff"])
def test_sixteen_bits_are_scaled_not_clipped(tmp_path: Path, suffix: str):
    ramp = np.linspace(0, 65535, 64).astype(np.uint16).reshape(8, 8)
    image = read_image(save(tmp_path / f"deep.{suffix}", Image.fromarray(ramp)))
    assert image[0].flatten().tolist() == (ramp.ravel() >> 8).tolist()
    assert torch.equal(image[0], image[2])


def test_floating_point_pixels_are_refused(tmp_path: Path):
    path = save(tmp_path / "float.tiff", Image.fromarray(np.ones((4, 4), np.float32)))
    with pytest.raises(UserError, match="floating-point"):
        read_image(path)


@pytest.mark.parametrize("suffix", ["jpg", "png"])
def test_exif_orientation_is_applied(tmp_path: Path, suffix: str):
    upright = Image.new("RGB", (32, 16))
    upright.paste((250, 250, 250), (0, 0, 16, 16))  # the left half is bright
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90° clockwise: left becomes top
    image = read_image(save(tmp_path / f"turned.{suffix}", upright, exif=exif))
    assert image.shape == (3, 32, 16)
    assert image[:, :14].float().mean() > 200
    assert image[:, 18:].float().mean() < 50


@pytest.mark.parametrize("suffix", ["gif", "png", "webp", "tiff"])
def test_several_frames_are_refused(tmp_path: Path, suffix: str):
    frames = [Image.new("RGB", (4, 4), (60 * i, 0, 0)) for i in range(3)]
    path = save(tmp_path / f"moving.{suffix}", frames[0], save_all=True, append_images=frames[1:])
    with pytest.raises(UserError, match="3 frames"):
        read_image(path)


def test_a_phones_jpeg_with_an_embedded_picture_is_its_first(tmp_path: Path):
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("white", "black")]
    path = save(tmp_path / "phone.jpg", frames[0], format="MPO", save_all=True, append_images=frames[1:])
    assert read_image(path).float().mean() > 250
