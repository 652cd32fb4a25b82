"""Answers as HTML: for each face and the whole photo, those of the plain backbone, of each adapter alone, and of the merge."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from html import escape

import numpy as np

from lora_lab.domains import Judgement, domain_of
from lora_lab.lab import Answer
from lora_lab.records import PhotoPrediction, Prediction
from lora_lab.tasks import Task
from lora_lab.ui.words import _

MOST_BARS = 3
KINDS = {"face": _("a face"), "galaxy": _("a galaxy"), "land_cover": _("land seen from above")}
CALIBRATED = _("fitted on images of val for this very model: of answers that are 80 % sure, 80 % are right; bounds hold 90 %")
NOT_CALIBRATED = _("fitted for the adapter alone, and not for this merge: take it with care")
DOT, PALE_DOT = '<b class="ll-dot"></b>', '<b class="ll-dot ll-pale"></b>'
KEY = _("{dot} landmarks, merged {pale_dot} alone · ≈ not calibrated for this merge").format(dot=DOT, pale_dot=PALE_DOT)
LEGEND = f'<p class="ll-legend">{KEY}</p>'


@dataclass(frozen=True)
class Beside:
    """What a merge's answers stand beside: `base`, the heads on the plain backbone; each adapter's own; a pinned merge.

    `judged` says of each crop, the faces and then the centre square, what it looks like; of nothing where nobody can judge.
    """

    base: PhotoPrediction
    alone: Mapping[str, PhotoPrediction] = field(default_factory=dict)
    pinned: PhotoPrediction | None = None
    judged: Sequence[Mapping[str, Judgement]] = ()


@dataclass(frozen=True)
class Row:
    """A task's answers in one part of a photo; what there is none of is left empty."""

    task: Task
    base: Prediction | None
    alone: Prediction | None
    pinned: Prediction | None
    merged: Prediction
    unlike: str = ""


def answers_html(answer: Answer, beside: Beside, tasks: Mapping[str, Task], face: int | None = None) -> str:
    """All answers, or of the faces only one, by its place; `tasks` says what each adapter answers."""
    prediction = answer.prediction
    parts = [LEGEND] if prediction.faces else []
    if prediction.note:
        parts.append(f'<p class="ll-note">{escape(prediction.note)}.</p>')
    pinned = beside.pinned is not None
    for i, one in enumerate(prediction.faces):
        if face in (None, i):
            title = _("Face {number} <small>detected at {confidence:.0%}</small>")
            caption = title.format(number=i + 1, confidence=one.confidence)
            place = (caption, f"face-{i + 1}", _("Answers: face-{number}").format(number=i + 1))
            parts.append(_table(place, _rows(one.predictions, beside, tasks, i), pinned))
    if prediction.photo.predictions:
        caption = _("Whole photo <small>its centre square</small>")
        place = (caption, "photo", _("Answers: photo"))
        parts.append(_table(place, _rows(prediction.photo.predictions, beside, tasks, None), pinned))
    as_json = escape(json.dumps(answer.to_json(), ensure_ascii=False))
    summary = _("All of it as JSON")
    parts.append(f'<details><summary>{summary}</summary><pre class="ll-json">{as_json}</pre></details>')
    return "".join(parts)


def times_html(answer: Answer) -> str:
    """Where the time went."""
    taken = answer.milliseconds
    names = {"detect": _("detection"), "merge": _("merge"), "forward": _("forward"), "heads": _("heads")}
    part = _("{what} <b>{milliseconds:.1f} ms</b>")
    parts = " · ".join(part.format(what=title, milliseconds=getattr(taken, name)) for name, title in names.items())
    return f'<p class="ll-times">{parts}</p>'


def _rows(merged: Mapping[str, Prediction], beside: Beside, tasks: Mapping[str, Task], face: int | None) -> list[Row]:
    def of(prediction: PhotoPrediction | None, name: str) -> Prediction | None:
        if prediction is None:
            return None
        return (prediction.photo if face is None else prediction.faces[face]).predictions.get(name)

    return [
        Row(
            tasks[name],
            of(beside.base, name),
            of(beside.alone.get(name), name),
            of(beside.pinned, name),
            one,
            unlike(tasks[name], beside.judged[-1 if face is None else face]) if beside.judged else "",
        )
        for name, one in merged.items()
    ]


def unlike(task: Task, judged: Mapping[str, Judgement]) -> str:
    """What a crop does not look like, where its task asks for just that; nothing where it does, or nobody can tell."""
    domain = domain_of(task)
    return KINDS[domain] if domain in judged and domain is not None and not judged[domain].inside else ""


def _table(place: tuple[str, str, str], rows: Sequence[Row], pinned: bool) -> str:
    title, part, label = place
    heads = [_("Task"), _("Plain backbone"), _("Adapter alone"), *([_("Pinned merge")] if pinned else []), _("This merge")]
    head = "".join(f'<th scope="col">{name}</th>' for name in heads)
    body = "".join(_row(row, pinned) for row in rows)
    caption = f'<caption class="ll-caption">{title}</caption>'
    place_of = f'data-part="{part}" tabindex="0" aria-label="{escape(label)}"'
    return (
        f'<section class="ll-part" {place_of}><table>{caption}<thead><tr>{head}</tr></thead>'
        f"<tbody>{body}</tbody></table></section>"
    )


def _row(row: Row, pinned: bool) -> str:
    differs = row.alone is not None and row.merged.answer != row.alone.answer
    css = ' class="ll-differs"' if differs else ""
    cells = f'<td class="ll-base">{_cell(row.base)}</td><td class="ll-alone">{_cell(row.alone)}</td>'
    if pinned:
        cells += f'<td class="ll-pinned">{_cell(row.pinned)}{_apart(row.pinned, row.alone)}</td>'
    return (
        f'<tr data-task="{row.task.name}"{css}><th scope="row">{escape(row.task.title)}{_warning(row)}</th>{cells}'
        f'<td class="ll-merged">{_cell(row.merged)}{_apart(row.merged, row.alone)}{_mark(row)}</td></tr>'
    )


def _warning(row: Row) -> str:
    if not row.unlike:
        return ""
    told = _("does not look like {kind}, so the answers mean little").format(kind=row.unlike)
    return f'<br><small class="ll-unlike">{told}</small>'


def _mark(row: Row) -> str:
    """What the merge has done to the answer, in words: colour alone tells nothing to some."""
    if row.alone is None or row.merged.probabilities is None or row.merged.answer == row.alone.answer:
        return ""
    fallen = row.base is not None and row.merged.answer == row.base.answer
    told = _("changed, to what the plain backbone says") if fallen else _("changed")
    return f'<br><small class="ll-mark">{told}</small>'


def _cell(prediction: Prediction | None) -> str:
    if prediction is None:
        return "–"
    about = "≈" if prediction.calibrated is False else ""
    title = escape(NOT_CALIBRATED if about else CALIBRATED)
    sure = "" if prediction.confidence is None else f' <small title="{title}">{about}{prediction.confidence:.0%}</small>'
    if prediction.low is not None and prediction.high is not None:
        bounds = _("{low:.0f} to {high:.0f}").format(low=prediction.low, high=prediction.high)
        sure = f' <small title="{title}">{about}{bounds}</small>'
    return f"<b>{escape(prediction.answer)}</b>{sure}{_bars(prediction)}"


def _bars(prediction: Prediction) -> str:
    ranked = sorted((prediction.probabilities or {}).items(), key=lambda item: -item[1])
    full = ", ".join(f"{label} {share:.1%}" for label, share in ranked)
    bars = "".join(
        f'<span class="ll-bar"><i style="width:{share:.1%}"></i><em>{escape(label)} {share:.0%}</em></span>'
        for label, share in ranked[:MOST_BARS]
    )
    return f'<div title="{escape(full)}">{bars}</div>' if bars else ""


def _apart(merged: Prediction | None, alone: Prediction | None) -> str:
    if merged is None or alone is None:
        return ""
    if merged.points and alone.points:
        mean = np.linalg.norm(np.subtract(merged.points, alone.points), axis=1).mean()
        told = _("{mean:.1f} px from alone, on average").format(mean=mean)
        return f"<br><small>{told}</small>"
    if merged.value is not None and alone.value is not None:
        told = _("{difference:+.1f} {unit} against alone")
        told = told.format(difference=merged.value - alone.value, unit=escape(merged.unit or ""))
        return f"<br><small>{told}</small>"
    return ""
