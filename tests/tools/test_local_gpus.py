"""tools/local_gpus.py: each job of a sweep on this machine gets a GPU of its own."""

import importlib
import os

import pytest
import support
import torch


@pytest.fixture
def gpus(monkeypatch):
    """The module, in a process without settings of its own."""
    monkeypatch.syspath_prepend(support.ROOT / "tools")
    module = importlib.import_module("local_gpus")
    for name in (module.VISIBLE, module.REMEMBERED, "SUBMITIT_EXECUTOR"):
        monkeypatch.setenv(name, "")  # so that what the tests set is undone
        monkeypatch.delenv(name)
    return module


def taken(gpus, jobs):
    """What is visible in each job of a sweep, whose launcher hides the GPUs."""
    visible = []
    for job in range(jobs):
        os.environ.update({gpus.VISIBLE: "launcher's", "SUBMITIT_EXECUTOR": "local"})
        gpus.take_one(job)
        visible.append(os.environ.get(gpus.VISIBLE))
    return visible


def test_jobs_take_the_gpus_in_turn(gpus, monkeypatch):
    monkeypatch.setenv(gpus.VISIBLE, "5,7")
    gpus.remember()
    assert taken(gpus, 4) == ["5", "7", "5", "7"]


@pytest.mark.parametrize(
    ("visible", "expected"),
    [
        ("3", ["3", "3"]),
        ("GPU-8a1f, MIG-22 ,", ["GPU-8a1f", "MIG-22"]),
        ("", ["", ""]),
    ],
)
def test_what_the_gpus_are_called_does_not_matter(gpus, monkeypatch, visible, expected):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    monkeypatch.setenv(gpus.VISIBLE, visible)
    gpus.remember()
    assert taken(gpus, 2) == expected


@pytest.mark.parametrize("remembers", [True, False])
def test_without_a_choice_all_are_taken_in_turn(gpus, monkeypatch, remembers):
    def count():
        assert gpus.VISIBLE not in os.environ  # or what the launcher hides would not be counted
        return 3

    monkeypatch.setattr(torch.cuda, "device_count", count)
    if remembers:
        gpus.remember()
        assert os.environ[gpus.REMEMBERED] == "all"
    assert taken(gpus, 4) == ["0", "1", "2", "0"]


def test_without_gpus_none_is_taken_nor_hidden(gpus, monkeypatch):
    """Hidden ones would not be missed by device=auto, which says why PyTorch finds none."""
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    assert taken(gpus, 2) == [None, None]


def test_a_job_that_remembers_again_keeps_what_the_first_process_remembered(gpus, monkeypatch):
    monkeypatch.setenv(gpus.VISIBLE, "5,7")
    gpus.remember()
    monkeypatch.setenv(gpus.VISIBLE, "launcher's")
    gpus.remember()
    assert taken(gpus, 2) == ["5", "7"]


@pytest.mark.parametrize("executor", [None, "slurm", "debug"])
@pytest.mark.parametrize("visible", [None, "", "2,3"])
def test_elsewhere_nothing_is_touched(gpus, monkeypatch, executor, visible):
    monkeypatch.setenv(gpus.REMEMBERED, "5,7")
    if executor:
        monkeypatch.setenv("SUBMITIT_EXECUTOR", executor)
    if visible is not None:
        monkeypatch.setenv(gpus.VISIBLE, visible)
    gpus.take_one(1)
    assert os.environ.get(gpus.VISIBLE) == visible
