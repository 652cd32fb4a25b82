"""What holds for every task and head."""

import numpy as np
import pytest
import torch

from lora_lab.backbones import Features
from lora_lab.errors import DataError
from lora_lab.tasks import TASKS, Task, make_head
from lora_lab.tasks.heads import ClassesHead


def some_targets(task: Task) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    if task.kind == "classes":
        return torch.randint(0, task.outputs, (8,), generator=generator)
    if task.kind == "number":
        return 90 * torch.rand(8, generator=generator)
    return torch.rand(8, task.points, 2, generator=generator) - 0.5


@pytest.fixture(params=TASKS.values(), ids=list(TASKS))
def task(request: pytest.FixtureRequest) -> Task:
    return request.param


def test_a_task_says_what_it_is(task: Task):
    assert task.source
    assert task.licence
    assert task.version
    assert task.unit or task.labels
    assert len(set(task.labels)) == len(task.labels)


def test_a_head_learns_its_targets(task: Task):
    torch.manual_seed(0)
    head = make_head(task, 16)
    targets = some_targets(task)
    head.expect(targets)
    features = Features(torch.randn(8, 16), torch.zeros(8, 0, 16))
    optimizer = torch.optim.Adam(head.parameters(), 1e-2)
    first = head.loss(head(features), targets).item()
    for _ in range(60):
        optimizer.zero_grad()
        loss = head.loss(head(features), targets)
        loss.backward()
        optimizer.step()
    assert loss.item() < 0.6 * first


def test_a_head_has_512_hidden_units_and_decodes_every_row(task: Task):
    head = make_head(task, 16).eval()
    assert head.hidden.out_features == 512
    output = head(Features(torch.randn(3, 16), torch.zeros(3, 0, 16)))
    assert output.shape == (3, task.outputs)
    for row in output.detach():
        prediction = head.decode(row)
        if task.kind == "classes":
            assert prediction.answer in task.labels
            assert prediction.probabilities is not None
            assert sum(prediction.probabilities.values()) == pytest.approx(1, abs=1e-5)
            assert prediction.confidence == max(prediction.probabilities.values())
        elif task.kind == "number":
            assert prediction.value == pytest.approx(row.item() * task.scale + task.offset)
            assert prediction.unit == "years"
        else:
            assert prediction.points is not None
            assert np.asarray(prediction.points).shape == (68, 2)


def test_age_groups_begin_and_end_where_they_say():
    classes = TASKS["age_class"].targets({"age": [0, 3, 4, 16, 17, 30, 31, 45, 46, 59, 60, 116]})
    assert classes.tolist() == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5]


def test_wrong_labels_and_columns_are_told():
    with pytest.raises(DataError, match="2 labels out of range, the first is 7"):
        TASKS["emotion"].targets({"label": [0, 7, 9]})
    with pytest.raises(DataError, match="no column 'age'; it has label"):
        TASKS["age_class"].targets({"label": [1]})


def test_the_loss_weighs_rare_classes_more_but_one_on_average():
    head = ClassesHead(TASKS["galaxy"], 8)
    head.expect(torch.tensor([0] * 90 + [1] * 9 + [2] * 1 + [3] * 100))
    assert head.class_weights[2] > head.class_weights[1] > head.class_weights[0]
    share = torch.tensor([90, 9, 1, 100]) / 200
    assert (share * head.class_weights).sum().item() == pytest.approx(1)
