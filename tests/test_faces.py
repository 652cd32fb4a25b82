"""Faces are found and framed alike, and points come back to the photo."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lora_lab.faces import (
    DLIB,
    MOST_FACES,
    QUARTERS,
    YUNET,
    Detector,
    Frame,
    Seen,
    centre_square,
    default_detector,
    detect,
    fit_framing,
    see,
)
from lora_lab.photos import open_photo

EXAMPLES = Path(__file__).parent.parent / "assets" / "examples"


@pytest.mark.parametrize("name", ["astronaut.jpg", "grace_hopper.jpg"])
@pytest.mark.parametrize("detector", [YUNET, DLIB], ids=["yunet", "dlib"])
def test_a_portrait_has_one_face(name: str, detector: Detector):
    assert len(detect(open_photo(EXAMPLES / name), detector)) == 1


def test_both_detectors_frame_a_face_alike():
    photo = open_photo(EXAMPLES / "astronaut.jpg")
    one, other = detect(photo, YUNET)[0].frame, detect(photo, DLIB)[0].frame
    assert abs(one.side / other.side - 1) < 0.2
    assert np.hypot(one.x - other.x, one.y - other.y) < 0.12 * one.side


def test_the_sky_has_no_face():
    assert detect(open_photo(EXAMPLES / "hubble_deep_field.jpg")) == []


def test_boxes_are_in_the_photos_own_pixels_at_every_size():
    photo = open_photo(EXAMPLES / "astronaut.jpg")
    small, large = detect(photo)[0].box, detect(photo.resize((2048, 2048)))[0].box
    np.testing.assert_allclose(np.array(large) / 4, small, atol=12)


def test_at_most_32_faces_the_largest_first():
    many = Detector("many", lambda pixels: [[i, i, 10 + i, 12, 0.9] for i in range(50)], side=1.0, below=0.0)
    faces = detect(Image.new("RGB", (300, 300)), many)
    assert len(faces) == MOST_FACES
    assert faces[0].box[2] - faces[0].box[0] == 59


def test_the_frame_has_the_stated_side_and_lower_edge():
    frame = Detector("made", lambda pixels: [], side=1.2, below=0.05).frame((10, 20, 110, 150))
    assert (frame.x, frame.side) == (60, 120)
    assert frame.y + frame.side / 2 == pytest.approx(155)


def test_the_fit_gives_back_the_constants_of_framed_crops():
    # A detector that sees the box which belongs to the whole crop, and crops of two sizes.
    def find(pixels: np.ndarray) -> list[list[float]]:
        width = len(pixels) / 1.25
        return [[(len(pixels) - width) / 2, 3, width, len(pixels) - 3 - 0.1 * width, 0.9]]

    side, below = fit_framing(find, [Image.new("RGB", (200, 200)), Image.new("RGB", (100, 100))])
    assert (side, below) == (pytest.approx(1.25), pytest.approx(0.1))


def test_points_go_to_the_frame_and_back():
    frame = Frame(33.0, 20.0, 50.0)
    points = np.random.default_rng(0).uniform(0, 60, (5, 68, 2))
    np.testing.assert_allclose(frame.to_photo(frame.to_frame(points)), points)
    np.testing.assert_allclose(frame.to_frame(np.array([33 + 25.0, 20 - 25.0])), [0.5, -0.5])


@pytest.mark.parametrize("frame", [Frame(8, 8, 40), Frame(55, 40, 60), Frame(30, 30, 200)], ids=["corner", "edge", "all"])
def test_a_crop_shows_the_same_place_and_pads_with_the_edge(frame: Frame):
    # The photo's colours say where a pixel lies, so a crop can be checked against what it should show.
    photo = Image.fromarray(
        np.stack(np.broadcast_arrays(np.arange(64)[None, :], np.arange(64)[:, None], 0), -1).astype(np.uint8)
    )
    crop = np.asarray(frame.crop(photo, 40))
    assert crop.shape == (40, 40, 3)
    grid = (np.arange(40) + 0.5) / 40 - 0.5
    expected_x = np.clip(frame.x + grid * frame.side - 0.5, 0, 63)
    expected_y = np.clip(frame.y + grid * frame.side - 0.5, 0, 63)
    # Reducing large crops averages across the edge, where the padding begins.
    assert np.abs(crop[20, :, 0] - expected_x).max() < 2.5
    assert np.abs(crop[:, 20, 1] - expected_y).max() < 2.5


def test_the_centre_square_is_the_largest():
    assert centre_square(Image.new("RGB", (80, 50))) == Frame(40, 25, 50)


def test_the_default_detector_is_the_better_one():
    assert default_detector() is YUNET


@pytest.mark.parametrize("name", ["astronaut.jpg", "grace_hopper.jpg"])
@pytest.mark.parametrize("turn", [1, 2, 3])
def test_a_turned_portrait_is_framed_as_the_upright_one(name: str, turn: int):
    photo = open_photo(EXAMPLES / name)
    upright = see(photo)
    # Turned clockwise, so that as many quarter turns against the clock bring it back.
    turned = photo.transpose(QUARTERS[4 - turn])
    seen = see(turned)
    assert (upright.turn, seen.turn, len(seen.faces)) == (0, turn, 1)
    one, other = upright.faces[0].frame, seen.faces[0].frame
    difference = np.asarray(other.crop(turned, 64), int) - np.asarray(one.crop(photo, 64), int)
    assert np.abs(difference).mean() < 1
    np.testing.assert_allclose(other.to_frame(other.to_photo(np.array([[0.1, 0.3]]))), [[0.1, 0.3]])
    x, y = one.to_photo(np.array([0.1, 0.3]))
    expected = {3: (y, photo.width - x), 2: (photo.width - x, photo.height - y), 1: (photo.height - y, x)}[turn]
    np.testing.assert_allclose(other.to_photo(np.array([0.1, 0.3])), expected, atol=1)


@pytest.mark.parametrize("name", ["hubble_deep_field.jpg", "hubble_spiral.jpg"])
def test_the_sky_has_no_face_after_any_turn(name: str):
    assert see(open_photo(EXAMPLES / name)) == Seen((), 0)


def test_a_box_ends_where_the_photo_ends():
    beyond = Detector("beyond", lambda pixels: [[-5, -7, 30, 120, 0.9], [200, 0, 5, 5, 0.9]], side=1.0, below=0.0)
    faces = detect(Image.new("RGB", (100, 100)), beyond)
    assert [face.box for face in faces] == [(0, 0, 25, 100)]
    assert faces[0].frame.side == 30
