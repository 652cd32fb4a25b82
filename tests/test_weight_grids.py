"""Two weights over a grid: every cell is the merge it says it is."""

import pytest
from conftest import PORTRAIT

from lora_lab.errors import LoraLabError
from lora_lab.lab import Lab
from lora_lab.merging import MergeRecipe
from lora_lab.photos import Photo
from lora_lab.weight_grids import Axis, steps, tasks_of, weight_grid


def recipe(text: str, method: str = "exact") -> MergeRecipe:
    return MergeRecipe.parse(text, "tiny").model_copy(update={"method": method})


def test_each_cell_is_the_merge_at_its_weights(tiny_lab: Lab):
    photo, told = Photo.read(PORTRAIT), []
    start = recipe("emotion=0.3,galaxy=0.7,landmarks=1")
    axes = (Axis("emotion", steps(0, 1, 3)), Axis("landmarks", (0.0, 1.0)))
    grid = weight_grid(tiny_lab, photo, start, axes, lambda share, what: told.append(share))
    assert [len(row) for row in grid.cells] == [3, 3]
    for row, b in enumerate((0.0, 1.0)):
        for column, a in enumerate((0.0, 0.5, 1.0)):
            expected = tiny_lab.predict(photo, recipe(f"emotion={a},galaxy=0.7,landmarks={b}")).prediction
            assert grid.cells[row][column] == expected
    assert told == sorted(told)
    assert len(told) == 6
    assert set(tasks_of(grid.cells[0][0])) == {("emotion", 0), ("landmarks", 0), ("galaxy", None)}
    assert grid.answers("galaxy", None)[1][2] == grid.cells[1][2].photo.predictions["galaxy"]
    assert grid.own("emotion", 0) == tiny_lab.alone(photo, "emotion", 16).faces[0].predictions["emotion"]


@pytest.mark.parametrize(
    ("axes", "method", "told"),
    [
        (("emotion", "age_class"), "exact", "age_class is switched off"),
        (("emotion", "emotion"), "exact", "both directions are emotion"),
        (("emotion", "landmarks"), "uniform", "does not look at the weights"),
    ],
)
def test_what_makes_no_grid_is_told(tiny_lab: Lab, axes: tuple[str, str], method: str, told: str):
    two = tuple(Axis(name, (0.0, 1.0)) for name in axes)
    with pytest.raises(LoraLabError, match=told):
        weight_grid(tiny_lab, Photo.read(PORTRAIT), recipe("emotion=1,landmarks=1", method), (two[0], two[1]))


def test_steps_go_from_the_lowest_to_the_highest():
    assert steps(-1, 1, 5) == (-1, -0.5, 0, 0.5, 1)
    with pytest.raises(LoraLabError, match="the first has to be the lower one"):
        steps(1, 1, 3)
