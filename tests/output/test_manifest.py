"""manifest.json and failures.jsonl."""

import json
import os

import pytest
import support
from races import at_once

from vmb_d2.errors import OutputError
from vmb_d2.output.failures import FailureLog
from vmb_d2.output.manifest import Manifest, differences
from vmb_d2.output.shards import Shard

SETTINGS = {"weights": "abc", "regions": {"most": 100, "source": "proposals"}, "unknown": None}


def begun(folder, settings=SETTINGS, **run):
    manifest = Manifest(folder)
    manifest.begin(run, settings=settings)
    return manifest


def content(folder):
    return json.loads((folder / "manifest.json").read_text())


def test_a_run_from_its_begin_to_its_end(tmp_path):
    manifest = begun(tmp_path, device=None)
    (run,) = content(tmp_path)["runs"]
    assert (run["state"], run["device"]) == ("running", None)
    assert run["versions"].keys() >= {"vmb_d2", "python", "torch", "detectron2", "numpy"}
    manifest.update({"device": "cpu"}, counts={"images": 2})
    found = content(tmp_path)
    assert (found["runs"][0]["device"], found["counts"]) == ("cpu", {"images": 2})
    manifest.end("finished", {"extracted": 2}, counts={"images": 3, "done": 3})
    found = content(tmp_path)
    assert found == manifest.content
    assert found["settings"] == SETTINGS
    assert found["counts"] == {"images": 3, "done": 3}
    (run,) = found["runs"]
    assert (run["state"], run["device"], run["extracted"]) == ("finished", "cpu", 2)
    assert run["seconds"] >= 0
    assert run["started"] <= run["ended"]


def test_a_run_that_never_ended_has_died_and_only_the_last_runs_are_remembered(tmp_path):
    for number in range(103):
        manifest = begun(tmp_path, number=number)
    manifest.end("interrupted", {})
    runs = content(tmp_path)["runs"]
    assert [run["number"] for run in runs] == list(range(3, 103))
    assert [run["state"] for run in runs[-2:]] == ["died", "interrupted"]


def test_other_settings_are_refused_with_the_difference(tmp_path):
    begun(tmp_path)
    other = {"weights": "abd", "regions": {"most": 36, "source": "proposals"}, "unknown": 1}
    with pytest.raises(OutputError, match="holds features of other settings") as caught:
        Manifest(tmp_path).require(other)
    text = str(caught.value)
    assert 'weights: "abc" there, "abd" now; regions.most: 100 there, 36 now' in text
    assert "allow_mismatch=true" in text
    assert "unknown" not in text
    assert len(Manifest(tmp_path).require(other, allow_mismatch=True)) == 2


def test_what_isnt_known_yet_is_not_compared(tmp_path):
    begun(tmp_path)
    assert Manifest(tmp_path).require({"weights": None, "new": 3}) == []
    assert Manifest(tmp_path / "none").require(SETTINGS) == []
    assert differences({"a": [1, 2], "b": 0}, {"a": (1, 2), "b": 0.0}) == []


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"settings": 3}', b"\xff"])
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


def test_the_first_shard_writes_the_settings_that_all_share(tmp_path):
    first, second = (Manifest(tmp_path, Shard("", 2, index)) for index in range(2))
    first.share(SETTINGS)
    second.share({"weights": "other"})
    expected = {"format": 1, "settings": SETTINGS, "stores": [], "runs": []}
    assert content(tmp_path) == expected
    assert os.listdir(tmp_path) == ["manifest.json"]
    with pytest.raises(OutputError, match='weights: "abc" there, "other" now'):
        second.require({"weights": "other"})
    Manifest(tmp_path, Shard("", 2, 1)).share({"weights": "other"})
    assert content(tmp_path) == expected


@pytest.mark.slow
def test_of_several_shards_at_the_same_moment_one_writes_the_settings(tmp_path):
    def work(number):
        manifest = Manifest(tmp_path, Shard("", 6, number))
        manifest.share({**SETTINGS, "weights": number, "more": "x" * 20000})
        return [m for m in range(6) if not manifest.require({"weights": m}, allow_mismatch=True)]

    for _ in range(6):
        (tmp_path / "manifest.json").unlink(missing_ok=True)
        answers = at_once(*[lambda number=number: work(number) for number in range(6)])
        assert answers == [str([content(tmp_path)["settings"]["weights"]])] * 6
    assert os.listdir(tmp_path) == ["manifest.json"]


def test_shared_settings_that_cant_be_written(tmp_path):
    manifest = Manifest(tmp_path, Shard("", 2, 0))
    with (
        support.file_size_limit(10),
        pytest.raises(OutputError, match=r"manifest\.json: can't be written: File too large"),
    ):
        manifest.share(SETTINGS)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    ("error", "state", "text"),
    [
        (None, "finished", None),
        (OutputError("first\nsecond"), "failed", "first"),
        (ValueError(), "failed", "ValueError"),
        (KeyboardInterrupt("x"), "interrupted", None),
        (SystemExit(1), "interrupted", None),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else "",
)
def test_how_a_run_ends_is_recorded(tmp_path, error, state, text):
    manifest = Manifest(tmp_path)
    raised = None
    try:
        with manifest.recorded(lambda: ({"images": 3}, {"extracted": 2})):
            manifest.begin({}, settings=SETTINGS)
            assert content(tmp_path)["runs"][-1]["state"] == "running"
            if error:
                raise error
    except BaseException as caught:
        raised = caught
    assert raised is error
    (run,) = content(tmp_path)["runs"]
    assert (run["state"], run["extracted"], run.get("error")) == (state, 2, text)
    assert content(tmp_path)["counts"] == {"images": 3}


def test_an_end_without_a_beginning_is_not_recorded(tmp_path):
    manifest = Manifest(tmp_path)
    with pytest.raises(KeyError), manifest.recorded(pytest.fail):
        raise KeyError
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(("error", "expected"), [(None, OutputError), (KeyError(), KeyError)])
def test_an_end_that_cant_be_written_hides_no_other_error(tmp_path, error, expected):
    manifest = begun(tmp_path)
    with (
        support.file_size_limit(5000),
        pytest.raises(expected),
        manifest.recorded(lambda: ({"images": 3}, {"text": "x" * 5000})),
    ):
        if error:
            raise error
    assert content(tmp_path)["runs"][-1]["state"] == "running"


def test_where_a_run_was_is_in_its_entry(tmp_path, monkeypatch):
    for name in [n for n in os.environ if n.startswith("SLURM_") or n == "CUDA_VISIBLE_DEVICES"]:
        monkeypatch.delenv(name)
    begun(tmp_path)
    monkeypatch.setenv("SLURM_JOB_ID", "20")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "5,7")
    begun(tmp_path)
    runs = content(tmp_path)["runs"]
    assert [r.get("job") for r in runs] == [None, "20"]
    assert [r.get("cuda_visible_devices") for r in runs] == [None, "5,7"]
    assert {r["pid"] for r in runs} == {os.getpid()}


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
    log.settle({"b"}.__contains__)
    assert [(e["name"], e["reason"]) for e in log.read()] == [("a", "3"), ("c", "4")]
    log.settle(lambda name: True)
    assert not log.path.exists()
    log.settle(lambda name: True)


def test_failures_that_cant_be_written(tmp_path):
    log = FailureLog(tmp_path / "gone")
    with pytest.raises(OutputError, match=r"failures\.jsonl: can't be written: No such file"):
        log.add("a.png", "a", "x", "read")
