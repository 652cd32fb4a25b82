"""Random views keep labels true: points stay on what they point at."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from lora_lab.data.augment import GENTLE, MIRRORED, MIRRORED_68, MIRRORED_98, Augmentation, augmentation_for, random_view
from lora_lab.tasks import TASKS

STILL = Augmentation(turn=0, scale=0, shift=0, light=0)


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(3)


def test_points_follow_the_picture():
    # One bright spot a crop; wherever it goes, its point must go with it.
    size, stored, count = 56, 72, 24
    rng = np.random.default_rng(0)
    spots = rng.uniform(-0.3, 0.3, (count, 2)).astype(np.float32)
    pixels = np.zeros((count, stored, stored, 3), np.uint8)
    grid = (np.arange(stored) + 0.5 - stored / 2) / size
    for i, (x, y) in enumerate(spots):
        pixels[i] = (255 * np.exp(-((grid[None, :] - x) ** 2 + (grid[:, None] - y) ** 2) / 0.002))[..., None]
    how = Augmentation(turn=30, scale=0.15, shift=0.08, light=0)
    targets = torch.from_numpy(np.repeat(spots[:, None], 2, axis=1))
    views, moved = random_view(torch.from_numpy(pixels), targets, size, how, generator())
    brightness = views.mean(1)
    axis = (torch.arange(size) + 0.5) / size - 0.5
    total = brightness.sum((1, 2))
    seen = torch.stack([(brightness.sum(1) * axis).sum(1) / total, (brightness.sum(2) * axis).sum(1) / total], 1)
    inside = moved[:, 0].abs().amax(1) < 0.38
    assert inside.sum() > 12
    torch.testing.assert_close(seen[inside], moved[inside, 0], atol=0.012, rtol=0)
    assert (moved[:, 0] - torch.from_numpy(spots)).abs().max() > 0.05


def test_mirroring_swaps_left_and_right():
    np.testing.assert_array_equal(MIRRORED_68[MIRRORED_68], np.arange(68))
    assert MIRRORED_68[36] == 45  # outer corners of the eyes
    assert MIRRORED_68[48] == 54  # corners of the mouth
    assert MIRRORED_68[8] == 8  # chin
    assert MIRRORED_68[30] == 30  # tip of the nose


@pytest.mark.parametrize("count", MIRRORED)
def test_a_mirrored_mirror_image_is_the_same(count: int):
    order = MIRRORED[count]
    assert sorted(order.tolist()) == list(range(count))
    np.testing.assert_array_equal(order[order], np.arange(count))


def test_the_order_of_wflw_swaps_left_and_right():
    pairs = {0: 32, 33: 46, 38: 50, 60: 72, 64: 68, 65: 75, 76: 82, 88: 92, 93: 95, 96: 97, 55: 59}
    assert {one: int(MIRRORED_98[one]) for one in pairs} == pairs
    middle = (16, 51, 54, 57, 79, 85, 90, 94)
    assert [int(MIRRORED_98[point]) for point in middle] == list(middle)


@pytest.mark.parametrize(("count", "may_mirror"), [(68, True), (98, True), (5, False)])
def test_points_without_an_order_are_not_mirrored(count: int, may_mirror: bool):
    pixels = torch.zeros((32, 72, 72, 3), dtype=torch.uint8)
    pixels[:, :, :36] = 255
    targets = torch.zeros((32, count, 2))
    targets[:, :, 0] = torch.linspace(-0.4, 0.4, count)
    views, moved = random_view(pixels, targets, 56, STILL, generator())
    mirrored = views[:, 0, 28, 5] < 0.5
    assert bool(mirrored.any()) is may_mirror
    assert not mirrored.all()
    torch.testing.assert_close(moved[~mirrored], targets[~mirrored])
    if may_mirror:
        flipped = targets[mirrored][:, torch.from_numpy(MIRRORED[count])] * torch.tensor([-1.0, 1.0])
        torch.testing.assert_close(moved[mirrored], flipped)


def test_own_squares_are_turned_a_little_and_stay_upright():
    own = replace(TASKS["galaxy"], name="flowers")
    assert augmentation_for(own) == GENTLE
    assert not GENTLE.upside_down
    assert augmentation_for(TASKS["galaxy"]).upside_down


def test_without_changes_a_view_is_the_centre_or_its_mirror_image():
    pixels = torch.randint(0, 256, (8, 72, 72, 3), dtype=torch.uint8, generator=generator())
    views, targets = random_view(pixels, torch.arange(8), 56, STILL, generator())
    centre = pixels[:, 8:64, 8:64].permute(0, 3, 1, 2).float() / 255
    for view, plain in zip(views, centre, strict=True):
        assert min((view - plain).abs().max(), (view - plain.flip(2)).abs().max()) < 1e-4
    assert targets.tolist() == list(range(8))


@pytest.mark.parametrize("task", TASKS.values(), ids=list(TASKS))
def test_the_same_seed_gives_the_same_views(task):
    pixels = torch.randint(0, 256, (4, 72, 72, 3), dtype=torch.uint8, generator=generator())
    one, _ = random_view(pixels, torch.arange(4), 56, augmentation_for(task), generator())
    two, _ = random_view(pixels, torch.arange(4), 56, augmentation_for(task), generator())
    assert torch.equal(one, two)
    assert one.min() >= 0
    assert one.max() <= 1
