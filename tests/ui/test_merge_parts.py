"""What the tab *Merge* is put together from: presets, the way back, and the table of answers."""

import re

from conftest import PORTRAIT

from lora_lab.domains import Judgement
from lora_lab.lab import Lab
from lora_lab.merging import MergeRecipe
from lora_lab.photos import Photo
from lora_lab.recent import Recent
from lora_lab.records import PhotoPrediction
from lora_lab.ui import history
from lora_lab.ui.answers import Beside, _cell, answers_html
from lora_lab.ui.merge_panel import ALL_FACES, ON_FACES, Look, respond
from lora_lab.ui.presets import BEST, CUSTOM, held_as, preset_recipe, presets
from lora_lab.ui.slots import depth_svg


def recipe(text: str, **more: object) -> MergeRecipe:
    return MergeRecipe.parse(text, "tiny").model_copy(update=more)


def test_a_preset_sets_weights_and_leaves_method_and_ranks(tiny_lab: Lab):
    now = recipe("emotion:r4=0.3,galaxy=0.2", method="ties", seed=3)
    found = {title: preset_recipe(tiny_lab, title, now) for title in presets(tiny_lab)}
    assert found["Alone: Emotion"].title == "emotion:r4=1"
    assert {one.method for one in found.values()} == {"ties"}
    assert {a.weight for a in found["All at 1"].adapters} == {1.0}
    assert [a.name for a in found["All at 1"].adapters] == list(tiny_lab.ranks())
    triples = [one for title, one in found.items() if title.startswith("Paper's triple")]
    assert [len(one.adapters) for one in triples] == [3, 3, 3, 3]
    faces = {a.name: a.weight for a in found["Faces, shared evenly"].adapters}
    assert faces["emotion"] == 0.25
    assert faces["galaxy"] == 0
    assert preset_recipe(tiny_lab, BEST, now) == tiny_lab.best()
    assert preset_recipe(tiny_lab, CUSTOM, now) == now
    others = (recipe("emotion:r4=0.31,galaxy=0.2", method="ties", seed=3), now.model_copy(update={"method": "exact"}))
    assert held_as(now) not in map(held_as, others)
    assert held_as(recipe("emotion=0.33333333")) == held_as(recipe("emotion=0.3333"))


def test_undo_and_redo_go_gesture_by_gesture_and_end():
    steps = history.Steps()
    for now in ([1], [2], [2], [3]):
        steps = history.settled(steps, now)
    assert steps.past == ([1], [2], [3])
    back = history.undone(history.undone(steps, [3]), [2])
    assert (
        back
        == history.undone(back, [1])
        == history.undone(history.undone(steps, [3]), [3])
        == history.Steps(([1],), ([2], [3]))
    )
    assert history.settled(back, [1]) == back
    assert history.redone(history.redone(back, [1]), [2]) == steps == history.redone(steps, [3])
    assert history.redone(history.redone(back, [1]), [1]) == steps  # pressed again before the page showed the first
    assert history.begun([9]) == history.undone(history.begun([9]), [9]) == history.Steps(([9],))
    assert history.settled(back, [9]) == history.Steps(([1], [9]))  # after a new gesture there is nothing to redo
    assert history.undone(back, [9]) == history.Steps(([1],), ([9],))  # a gesture that nobody has told of is one too
    for step in range(200):
        steps = history.settled(steps, [step])
    assert len(steps.past) == history.MOST


def text_of(html: str, task: str, column: str) -> str:
    row = re.search(rf'<tr data-task="{task}".*?</tr>', html, re.S)
    assert row
    cell = re.search(rf'<td class="ll-{column}">(.*?)</td>', row[0], re.S)
    assert cell
    return cell[1]


def test_plain_alone_pinned_and_merged_stand_side_by_side(tiny_lab: Lab):
    photo = Photo.read(PORTRAIT)
    merged, other = recipe("emotion=1,landmarks=1,galaxy=1"), recipe("emotion=0.2,galaxy=-0.5")
    answer, base = tiny_lab.predict(photo, merged), tiny_lab.base(photo)[0]
    alone = {a.name: tiny_lab.alone(photo, a.name, a.rank) for a in merged.adapters}
    html = answers_html(answer, Beside(base, alone, tiny_lab.kept(photo, other)), tiny_lab.tasks())

    def said(prediction: PhotoPrediction) -> str:
        return f"<b>{prediction.faces[0].predictions['emotion'].answer}</b>"

    sources = {"base": base, "alone": alone["emotion"], "pinned": tiny_lab.kept(photo, other), "merged": answer.prediction}
    for column, prediction in sources.items():
        assert said(prediction) in text_of(html, "emotion", column)
    assert text_of(html, "landmarks", "pinned") == "–"
    assert "px from alone" in text_of(html, "landmarks", "merged")
    plain = answers_html(answer, Beside(base, alone), tiny_lab.tasks())
    assert "ll-pinned" not in plain
    differs = answer.prediction.photo.predictions["galaxy"].answer != alone["galaxy"].photo.predictions["galaxy"].answer
    assert ("changed" in text_of(plain, "galaxy", "merged")) == differs


def test_one_face_can_be_looked_at_and_changes_are_drawn(tiny_lab: Lab, tmp_path):
    from PIL import Image

    with Image.open(PORTRAIT) as portrait:
        two = Image.new("RGB", (2 * portrait.width, portrait.height))
        two.paste(portrait, (0, 0))
        two.paste(portrait, (portrait.width, 0))
        two.save(tmp_path / "two.png")
    path, chosen = str(tmp_path / "two.png"), recipe("emotion=1,galaxy=1")
    *_, html, choice = respond(tiny_lab, Recent(2), path, chosen, Look())
    assert html.count('data-part="face-') == 2
    assert choice["visible"]
    assert choice["value"] == ALL_FACES
    picture, _, html, choice = respond(tiny_lab, Recent(2), path, chosen, Look(face=1))
    assert html.count('data-part="face-') == 1
    assert 'data-part="face-2"' in html
    assert choice["value"] == 1
    changed, *_ = respond(tiny_lab, Recent(2), path, chosen, Look(view=ON_FACES))
    assert changed.tobytes() != picture.tobytes()
    *_, choice = respond(tiny_lab, Recent(2), str(PORTRAIT), chosen, Look(face=1))
    assert choice["value"] == ALL_FACES  # the second face is gone with its photo


def test_a_card_draws_a_bar_for_each_layer_and_a_line_where_factors_were_learned():
    svg = depth_svg([0.5, -2.0, 0.0], (1.0, 2.0, -3.0))
    heights = [float(h) for h in re.findall(r'<rect [^>]*height="([\d.]+)"', svg)]
    assert heights == [4.0, 16.0, 0.0]
    assert [float(y) for y in re.findall(r'<rect [^>]*y="([\d.]+)"', svg)] == [12.0, 16.0, 16.0]
    points = re.findall(r'<polyline points="([^"]+)"', svg)[0].split()
    assert [float(point.split(",")[1]) for point in points] == [8.0, 0.0, 32.0]
    assert "the most is 2.00" in svg
    assert "polyline" not in depth_svg([0.5])


def test_a_picture_of_something_else_is_told_and_so_is_what_nobody_calibrated(tiny_lab: Lab):
    photo = Photo.read(PORTRAIT)
    merged = recipe("emotion=1,galaxy=1")
    answer, base = tiny_lab.predict(photo, merged), tiny_lab.base(photo)[0]
    inside, outside = Judgement(-1.0, True), Judgement(-99.0, False)
    judged = [{"face": inside, "galaxy": outside}, {"face": outside, "galaxy": outside}]
    html = answers_html(answer, Beside(base, judged=judged), tiny_lab.tasks())
    assert html.count("does not look like") == 1
    assert "does not look like a galaxy" in html
    assert "does not look like" not in answers_html(answer, Beside(base), tiny_lab.tasks())
    assert answer.prediction.faces[0].predictions["emotion"].calibrated is False
    assert "≈" in text_of(html, "emotion", "merged")
    sure = answer.prediction.faces[0].predictions["emotion"].model_copy(update={"calibrated": True})
    assert "≈" not in _cell(sure)
