"""Answers as HTML: for each face and for the whole photo, the merged model's beside each adapter's own."""

import json
from collections.abc import Mapping
from html import escape

import numpy as np

from lora_lab.lab import Answer
from lora_lab.records import PhotoPrediction, Prediction
from lora_lab.tasks import Task

MOST_BARS = 3
LEGEND = '<p class="ll-legend"><b class="ll-dot"></b> landmarks, merged <b class="ll-dot ll-pale"></b> alone</p>'


def answers_html(answer: Answer, alone: Mapping[str, PhotoPrediction], tasks: Mapping[str, Task]) -> str:
    """All answers; `alone` holds each adapter's own prediction by its name, `tasks` what each answers."""
    titles = {name: task.title for name, task in tasks.items()}
    prediction = answer.prediction
    parts = [LEGEND] if prediction.faces else []
    if prediction.note:
        parts.append(f'<p class="ll-note">{escape(prediction.note)}.</p>')
    for i, face in enumerate(prediction.faces):
        own = {name: one.faces[i].predictions[name] for name, one in alone.items() if name in face.predictions}
        title = f"Face {i + 1} <small>detected at {face.confidence:.0%}</small>"
        parts.append(_table((title, f"face-{i + 1}"), face.predictions, own, titles))
    whole = prediction.photo.predictions
    if whole:
        own = {name: one.photo.predictions[name] for name, one in alone.items() if name in whole}
        parts.append(_table(("Whole photo <small>its centre square</small>", "photo"), whole, own, titles))
    as_json = escape(json.dumps(answer.to_json(), ensure_ascii=False))
    parts.append(f'<details><summary>All of it as JSON</summary><pre class="ll-json">{as_json}</pre></details>')
    return "".join(parts)


def times_html(answer: Answer) -> str:
    """Where the time went."""
    taken = answer.milliseconds
    names = {"detect": "detection", "merge": "merge", "forward": "forward", "heads": "heads"}
    parts = " · ".join(f"{title} <b>{getattr(taken, name):.1f} ms</b>" for name, title in names.items())
    return f'<p class="ll-times">{parts}</p>'


def _table(
    place: tuple[str, str], merged: Mapping[str, Prediction], alone: Mapping[str, Prediction], titles: Mapping[str, str]
) -> str:
    title, part = place
    rows = "".join(_row(name, titles[name], answer, alone.get(name)) for name, answer in merged.items())
    head = "<tr><th>Task</th><th>Merged</th><th>Adapter alone</th></tr>"
    return f'<section class="ll-part" data-part="{part}"><h4>{title}</h4><table>{head}{rows}</table></section>'


def _row(name: str, title: str, merged: Prediction, alone: Prediction | None) -> str:
    differs = alone is not None and merged.answer != alone.answer
    css = ' class="ll-differs"' if differs else ""
    own = _cell(alone) if alone else ""
    apart = _apart(merged, alone) if alone else ""
    return (
        f'<tr data-task="{name}"{css}><th>{escape(title)}</th>'
        f'<td class="ll-merged">{_cell(merged)}{apart}</td><td class="ll-alone">{own}</td></tr>'
    )


def _cell(prediction: Prediction) -> str:
    sure = "" if prediction.confidence is None else f" <small>{prediction.confidence:.0%}</small>"
    if prediction.low is not None and prediction.high is not None:
        title = "In nine of ten images the truth lies here, where the adapter is alone"
        sure = f' <small title="{title}">{prediction.low:.0f} to {prediction.high:.0f}</small>'
    return f"<b>{escape(prediction.answer)}</b>{sure}{_bars(prediction)}"


def _bars(prediction: Prediction) -> str:
    ranked = sorted((prediction.probabilities or {}).items(), key=lambda item: -item[1])
    full = ", ".join(f"{label} {share:.1%}" for label, share in ranked)
    bars = "".join(
        f'<span class="ll-bar"><i style="width:{share:.1%}"></i><em>{escape(label)} {share:.0%}</em></span>'
        for label, share in ranked[:MOST_BARS]
    )
    return f'<div title="{escape(full)}">{bars}</div>' if bars else ""


def _apart(merged: Prediction, alone: Prediction) -> str:
    if merged.points and alone.points:
        mean = np.linalg.norm(np.subtract(merged.points, alone.points), axis=1).mean()
        return f"<br><small>{mean:.1f} px from alone, on average</small>"
    if merged.value is not None and alone.value is not None:
        return f"<br><small>{merged.value - alone.value:+.1f} {escape(merged.unit or '')} against alone</small>"
    return ""
