"""manifest.json and failures.jsonl."""

import json

import pytest
import support

from vmb_d2.errors import OutputError
from vmb_d2.failures import FailureLog
from vmb_d2.manifest import Manifest, differences

SETTINGS = {"weights": "abc", "regions": {"most": 100, "source": "proposals"}, "unknown": None}


def begun(folder, settings=SETTINGS, **run):
    manifest = Manifest(folder)
    manifest.begin(run, settings=settings)
    return manifest


def content(folder):
    return json.loads((folder / "manifest.json").read_text())


def test_a_run_from_its_begin_to_its_end(tmp_path):
    manifest = begun(tmp_path, device="cpu")
    assert manifest.has_begun
    (run,) = content(tmp_path)["runs"]
    assert (run["state"], run["device"]) == ("running", "cpu")
    assert run["versions"].keys() >= {"vmb_d2", "python", "torch", "detectron2", "numpy"}
    manifest.end("finished", {"images": 3, "done": 3}, {"extracted": 2})
    assert not manifest.has_begun
    found = content(tmp_path)
    assert found["settings"] == SETTINGS
    assert found["counts"] == {"images": 3, "done": 3}
    (run,) = found["runs"]
    assert (run["state"], run["extracted"]) == ("finished", 2)
    assert run["seconds"] >= 0
    assert run["started"] <= run["ended"]


def test_a_run_that_never_ended_has_died(tmp_path):
    begun(tmp_path)
    begun(tmp_path).end("interrupted", {}, {})
    assert [run["state"] for run in content(tmp_path)["runs"]] == ["died", "interrupted"]


def test_only_the_last_runs_are_remembered(tmp_path):
    for number in range(103):
        begun(tmp_path, number=number)
    runs = content(tmp_path)["runs"]
    assert [run["number"] for run in runs] == list(range(3, 103))


def test_other_settings_are_refused_with_the_difference(tmp_path):
    begun(tmp_path)
    other = {"weights": "abd", "regions": {"most": 36, "source": "proposals"}, "unknown": 1}
    with pytest.raises(OutputError, match="holds features of other settings") as caught:
        Manifest(tmp_path).require(other)
    text = str(caught.value)
    assert 'weights: "abc" there, "abd" now; regions.most: 100 there, 36 now' in text
    assert "output.allow_mismatch=true" in text
    assert "unknown" not in text
    assert len(Manifest(tmp_path).require(other, allow_mismatch=True)) == 2


def test_what_isnt_known_yet_is_not_compared(tmp_path):
    begun(tmp_path)
    assert Manifest(tmp_path).require({"weights": None, "new": 3}) == []
    assert Manifest(tmp_path / "none").require(SETTINGS) == []
    assert differences({"a": [1, 2]}, {"a": (1, 2)}) == []


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"settings": 3}', "{", b"\xff"])
def test_what_is_no_manifest(tmp_path, text):
    (tmp_path / "manifest.json").write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(OutputError, match=r"manifest\.json"):
        Manifest(tmp_path)


def test_no_room_leaves_the_old_one(tmp_path):
    begun(tmp_path)
    before = content(tmp_path)
    with support.file_size_limit(10), pytest.raises(OutputError, match="can't be written"):
        begun(tmp_path)
    assert content(tmp_path) == before


def test_failures_are_there_at_once(tmp_path):
    log = FailureLog(tmp_path)
    assert log.read() == []
    log.add("/x/a\udcff.png", "a", "is damaged", "read")
    log.add("/x/b.png", "b", "ä", "boxes")
    entry = {"path": "/x/a\udcff.png", "name": "a", "reason": "is damaged", "stage": "read"}
    assert log.read()[0] == entry
    assert [e["reason"] for e in FailureLog(tmp_path).read()] == ["is damaged", "ä"]


def test_failures_settle_to_the_last_of_each_image_that_is_left(tmp_path):
    log = FailureLog(tmp_path)
    for name, reason in (("a", "1"), ("b", "2"), ("a", "3"), ("c", "4")):
        log.add(f"{name}.png", name, reason, "read")
    with open(log.path, "a") as file:
        file.write('{"path": "d.png", "na')  # a death
    assert log.settle({"b"}.__contains__) == 2
    assert [(e["name"], e["reason"]) for e in log.read()] == [("a", "3"), ("c", "4")]
    assert log.settle(lambda name: True) == 0
    assert not log.path.exists()
    assert log.settle(lambda name: True) == 0


def test_failures_that_cant_be_written(tmp_path):
    log = FailureLog(tmp_path / "gone")
    with pytest.raises(OutputError, match=r"failures\.jsonl: can't be written: No such file"):
        log.add("a.png", "a", "x", "read")
