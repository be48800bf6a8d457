"""Views: against torchvision, as a pure function of their draws, and as described by every field."""

import dataclasses
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as tv

from cgh_bench.core.errors import UserError
from cgh_bench.pretrain import augmentation as colour
from cgh_bench.pretrain.augmentation import DRAWS, blurred, crop_boxes
from cgh_bench.pretrain.views import Augment, Views

NOTHING = Augment(size=32, crop_area=(1.0, 1.0), crop_ratio=(1.0, 1.0), flip=0.0)
ALL = Augment(
    size=32, rotation_degrees=20, jitter=0.8, brightness=0.4, contrast=0.4, saturation=0.4, hue=0.1, grey=0.5, blur=0.5
)


def images(b=6, h=32, w=32, seed=0):
    """Smooth random colours, so that interpolation is not the test."""
    coarse = torch.rand(b, 3, 4, 4, generator=torch.Generator().manual_seed(seed))
    return (torch.nn.functional.interpolate(coarse, (h, w), mode="bicubic").clamp(0, 1) * 255).byte()


def draws(b=6, seed=0):
    return torch.rand(b, DRAWS, generator=torch.Generator().manual_seed(seed))


def test_nothing_is_nothing():
    torch.testing.assert_close(NOTHING(images(), draws()), images().float() / 255, rtol=0, atol=1e-5)


def test_flip_is_a_mirror():
    mirrored = replace(NOTHING, flip=1.0)(images(), draws())
    torch.testing.assert_close(mirrored, images().flip(3).float() / 255, rtol=0, atol=1e-5)


def test_rotation_is_torchvisions():
    turn = replace(NOTHING, rotation_degrees=20.0)
    uniforms = draws()
    got = turn(images(), uniforms)
    for angle in (-20.0, 0.0, 7.5, 20.0):  # find the column of the angle: the one that alone changes the picture
        columns = [c for c in range(DRAWS) if not torch.equal(_with(uniforms, c, turn), got)]
        assert len(columns) == 1
        uniforms[:, columns[0]] = (angle / 20 + 1) / 2
        expected = tv.rotate(images().float() / 255, angle, interpolation=v2.InterpolationMode.BILINEAR)
        centre = slice(8, 24)
        torch.testing.assert_close(
            turn(images(), uniforms)[..., centre, centre], expected[..., centre, centre], rtol=0, atol=2e-3
        )
        got = turn(images(), uniforms)


def _with(uniforms, column, augment):
    changed = uniforms.clone()
    changed[:, column] = (changed[:, column] + 0.37) % 1
    return augment(images(), changed)


@pytest.mark.parametrize("h, w", [(32, 32), (24, 32), (90, 41)])
def test_crops_are_distributed_as_torchvisions(h, w):
    """Boxes of 4,000 draws against RandomResizedCrop.get_params: quantiles of area, ratio and place."""
    augment = Augment(size=32, crop_area=(0.1, 0.9))
    n = 4000
    ours = crop_boxes(augment, [torch.zeros(3, h, w)] * n, iter(draws(n).unbind(dim=1)))
    torch.manual_seed(1)
    crop = v2.RandomResizedCrop(32, scale=(0.1, 0.9))
    boxes = [crop.make_params([torch.zeros(3, h, w)]) for _ in range(n)]
    theirs = torch.tensor([[b["left"], b["top"], b["width"], b["height"]] for b in boxes], dtype=torch.float32)
    levels = torch.linspace(0.05, 0.95, 7)
    for column in range(4):
        a, b = (boxes[:, column].quantile(levels) for boxes in (ours, theirs))
        assert (a - b).abs().max() <= 0.05 * max(h, w), f"column {column}: {a} against {b}"
    for of in (lambda x: x[:, 2] * x[:, 3], lambda x: (x[:, 2] / x[:, 3]).log()):
        a, b = (of(boxes).quantile(levels) for boxes in (ours, theirs))
        assert (a - b).abs().max() <= 0.05 * float(of(theirs).max() - of(theirs).min())
    assert (ours[:, 0] + ours[:, 2]).max() <= w and (ours[:, 1] + ours[:, 3]).max() <= h and ours.min() >= 0


def test_a_shape_that_never_fits_gives_the_centred_box():
    augment = Augment(size=8, crop_area=(1.0, 1.0))
    boxes = crop_boxes(augment, [torch.zeros(3, 10, 90)], iter(draws(1).unbind(dim=1)))
    assert boxes.tolist() == [[38, 0, 13, 10]]  # 13 = round(10 · 4/3); (90 - 13) / 2 rounds half to even


def test_both_ways_of_cropping_agree():
    """One interpolation for images of one small size, one by one for others: the same crop where nothing shrinks."""
    augment = Augment(size=48, crop_area=(0.3, 0.8))
    same = list(images(4, 32, 32))
    other = [*same, images(1, 32, 31)[0]]  # one of another size sends all of them the other way
    uniforms = draws(5)
    inner = slice(3, -3)  # at its border one of them sees the pixels beyond the box
    torch.testing.assert_close(
        augment(same, uniforms[:4])[..., inner, inner], augment(other, uniforms)[:4, :, inner, inner], rtol=0, atol=5e-3
    )


def test_shrinking_is_torchvisions_antialiased_resize():
    big = images(3, 64, 80)
    augment = replace(NOTHING, crop_area=(0.5, 0.5), crop_ratio=(1.25, 1.25))
    uniforms = draws(3)
    boxes = crop_boxes(augment, list(big), iter(uniforms.unbind(dim=1))).int().tolist()
    expected = [
        tv.resized_crop(image.float() / 255, top, left, height, width, [32, 32], antialias=True)
        for image, (left, top, width, height) in zip(big, boxes, strict=True)
    ]
    torch.testing.assert_close(augment(list(big), uniforms), torch.stack(expected), rtol=0, atol=1.01 / 255)


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
def test_the_interpolation_is_pillows(interpolation):
    noise = (torch.rand(3, 3, 32, 32, generator=torch.Generator().manual_seed(0)) > 0.5).byte() * 255
    got = replace(NOTHING, size=24, interpolation=interpolation)(list(noise), draws(3))
    for view, image in zip(got, noise, strict=True):
        small = Image.fromarray(image.permute(1, 2, 0).numpy()).resize(
            (24, 24), Image.Resampling[interpolation.upper()]
        )
        wanted = torch.from_numpy(np.array(small)).permute(2, 0, 1) / 255
        torch.testing.assert_close(view, wanted, rtol=0, atol=1.01 / 255)


def test_small_images_grow_within_range():
    """Bicubic interpolation overshoots at edges."""
    noise = (torch.rand(3, 3, 16, 16, generator=torch.Generator().manual_seed(0)) > 0.5).byte() * 255
    bilinear, bicubic = (replace(NOTHING, interpolation=i)(list(noise), draws(3)) for i in ("bilinear", "bicubic"))
    assert bicubic.min() == 0 and bicubic.max() == 1 and bicubic.std() > bilinear.std()


@pytest.mark.parametrize(
    "ours, theirs, factors",
    [
        (colour.brightness, tv.adjust_brightness, (0.0, 0.6, 1.0, 1.7)),
        (colour.contrast, tv.adjust_contrast, (0.0, 0.6, 1.0, 1.7)),
        (colour.saturation, tv.adjust_saturation, (0.0, 0.6, 1.0, 1.7)),
        (colour.hue, tv.adjust_hue, (-0.5, -0.1, 0.0, 0.3)),
    ],
)
def test_colours_are_torchvisions(ours, theirs, factors):
    given_ = torch.cat([torch.rand(4, 3, 8, 8), torch.rand(4, 1, 8, 8).expand(-1, 3, -1, -1)])  # colours and greys
    for factor in factors:
        got = ours(given_, torch.full((8, 1, 1, 1), factor))
        torch.testing.assert_close(got, theirs(given_, factor), rtol=0, atol=2e-4)
    torch.testing.assert_close(colour.grey(given_), tv.rgb_to_grayscale(given_), rtol=0, atol=1e-4)


def test_solarisation_is_torchvisions():
    solar = replace(NOTHING, solarize=1.0)
    torch.testing.assert_close(solar(images(), draws()), tv.solarize(images().float() / 255, 0.5), rtol=0, atol=1e-4)


def test_solarisation_leaves_all_other_draws_as_they_were():
    """Published runs were made without it."""
    one = Views((ALL,))(list(images()), [torch.Generator().manual_seed(0)], slice(0, 6))
    old = ALL(list(images()), torch.rand(6, DRAWS - 1, generator=torch.Generator().manual_seed(0)))
    assert torch.equal(one[0], old)


def test_jitter_gives_each_image_its_own_order():
    grey_to_red = torch.tensor([0.9, 0.3, 0.3]).view(1, 3, 1, 1).repeat(2, 1, 4, 4)
    uniforms = torch.tensor([[0.95, 0.95, 0.95, 0.5, 0.1, 0.2, 0.3, 0.4], [0.95, 0.95, 0.95, 0.5, 0.4, 0.3, 0.2, 0.1]])
    colour.jitter_(grey_to_red, torch.tensor([True, True]), (0.4, 0.4, 0.4, 0.0), uniforms)
    assert not torch.allclose(grey_to_red[0], grey_to_red[1])


def test_blur_is_torchvisions_away_from_the_edge():
    sharp = torch.rand(3, 3, 40, 40)
    sigma = torch.tensor([0.3, 1.0, 2.0])
    got = blurred(sharp, sigma)
    for i, s in enumerate(sigma.tolist()):
        expected = tv.gaussian_blur(sharp[i], [21, 21], [s, s])
        torch.testing.assert_close(got[i, :, 10:-10, 10:-10], expected[:, 10:-10, 10:-10], rtol=0, atol=1e-5)
    torch.testing.assert_close(blurred(torch.ones(1, 3, 5, 5), torch.ones(1)), torch.ones(1, 3, 5, 5))


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 10**6), b=st.integers(1, 5), h=st.integers(1, 70), w=st.integers(1, 70), size=st.integers(1, 40)
)
def test_a_view_is_an_image(seed, b, h, w, size):
    view = replace(ALL, size=size)(list(images(b, h, w, seed)), draws(b, seed))
    assert view.shape == (b, 3, size, size) and view.dtype == torch.float32
    assert view.min() >= -1e-6 and view.max() <= 1 + 1e-6


def test_what_a_process_sees_does_not_depend_on_the_number_of_processes():
    views = Views((ALL, NOTHING))
    whole = list(images(8))

    def generators():
        return [torch.Generator().manual_seed(i) for i in range(2)]

    together = views(whole, generators(), slice(0, 8))
    halves = [views(whole[rows], generators(), rows) for rows in (slice(0, 4), slice(4, 8))]
    for one, two in zip(together, zip(*halves, strict=True), strict=True):
        torch.testing.assert_close(one, torch.cat(two), rtol=0, atol=1e-6)


def test_every_field_changes_the_view():
    other = {
        "size": 16,
        "crop_area": (0.5, 0.6),
        "crop_ratio": (0.5, 0.6),
        "flip": 0.1,
        "rotation_degrees": 5.0,
        "jitter": 0.1,
        "brightness": 0.1,
        "contrast": 0.1,
        "saturation": 0.1,
        "hue": 0.0,
        "grey": 0.0,
        "blur": 1.0,
        "blur_sigma": (2.0, 3.0),
        "solarize": 1.0,
        "interpolation": "bicubic",
    }
    assert set(other) == {field.name for field in dataclasses.fields(Augment)}
    base = ALL(images(16), draws(16))
    for name, value in other.items():
        changed = replace(ALL, **{name: value})(images(16), draws(16))
        assert changed.shape != base.shape or (changed - base).abs().max() > 0.01, name


@pytest.mark.parametrize("n", [2000])
def test_probabilities_are_what_they_say(n):
    one = images(1)
    for name, chance in (("flip", 0.3), ("grey", 0.2), ("blur", 0.6), ("solarize", 0.2)):
        augment = replace(NOTHING, **{name: chance, "blur_sigma": (1.0, 1.0)})
        views = augment([one[0]] * n, draws(n))
        share = float(((views - one.float() / 255).abs().amax(dim=(1, 2, 3)) > 0.01).float().mean())
        assert abs(share - chance) < 4 * math.sqrt(chance * (1 - chance) / n), name


@pytest.mark.parametrize(
    "field, value, words",
    [
        ("flip", 1.5, "flip=1.5 must be at least 0 and at most 1"),
        ("crop_area", (0.5, 0.2), "the smaller first"),
        ("crop_area", (0.5, 1.2), "at most 1"),
        ("blur_sigma", (0.0, 1.0), "two positive numbers"),
        ("size", 0, "at least 1"),
    ],
)
def test_impossible_values_are_refused(field, value, words):
    with pytest.raises(UserError, match=words):
        replace(NOTHING, **{field: value})
