"""manifest.json and failures.jsonl."""

import json
import os
import signal

import pytest
import support
from races import at_once

from vmb_d2.errors import OutputError
from vmb_d2.output.failures import FailureLog
from vmb_d2.output.manifest import Manifest, differences
from vmb_d2.utils import interruption

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


def test_the_first_to_claim_a_folder_says_its_settings(tmp_path):
    first, second = Manifest(tmp_path), Manifest(tmp_path)
    first.claim(SETTINGS)
    second.claim({"weights": "other"})
    expected = {"format": 1, "settings": SETTINGS, "stores": [], "runs": []}
    assert content(tmp_path) == first.content == second.content == expected
    assert os.listdir(tmp_path) == ["manifest.json"]


def test_of_several_at_the_same_moment_one_claims_the_folder(tmp_path):
    def work(number):
        manifest = Manifest(tmp_path)
        manifest.claim({**SETTINGS, "weights": number, "more": "x" * 20000})
        return manifest.settings["weights"]

    for _ in range(6):
        (tmp_path / "manifest.json").unlink(missing_ok=True)
        answers = at_once(*[lambda number=number: work(number) for number in range(6)])
        assert answers == [str(content(tmp_path)["settings"]["weights"])] * 6
    assert os.listdir(tmp_path) == ["manifest.json"]


def test_a_folder_that_has_settings_keeps_them(tmp_path):
    begun(tmp_path).end("finished", {}, {})
    before = content(tmp_path)
    manifest = Manifest(tmp_path)
    manifest.claim({"weights": "other"})
    assert content(tmp_path) == manifest.content == before


def test_a_claim_that_cant_be_written(tmp_path):
    manifest = Manifest(tmp_path)
    with (
        support.file_size_limit(10),
        pytest.raises(OutputError, match=r"manifest\.json: can't be written: File too large"),
    ):
        manifest.claim(SETTINGS)
    assert os.listdir(tmp_path) == []
    with pytest.raises(OutputError, match=r"manifest\.json: can't be written: No such file"):
        Manifest(tmp_path / "gone").claim(SETTINGS)


def test_what_is_known_later_is_added_to_the_run(tmp_path):
    begun(tmp_path).end("finished", {"images": 1}, {})
    manifest = begun(tmp_path, device=None)
    manifest.note({"device": "cpu"}, settings={"weights": "now"}, counts={"images": 2})
    found = content(tmp_path)
    assert [run.get("device") for run in found["runs"]] == [None, "cpu"]
    assert found["runs"][-1]["state"] == "running"
    assert (found["settings"], found["counts"]) == ({"weights": "now"}, {"images": 2})
    assert found == manifest.content


@pytest.mark.parametrize(
    ("error", "state", "text"),
    [
        (None, "finished", None),
        (OutputError("first\nsecond"), "failed", "first"),
        (ValueError(), "failed", "ValueError"),
        (KeyboardInterrupt("x"), "interrupted", None),
        (SystemExit(1), "interrupted", None),
        (GeneratorExit(), "interrupted", None),
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
    assert not manifest.has_begun


def test_an_end_without_a_beginning_is_not_recorded(tmp_path):
    def outcome():
        raise AssertionError("asked")

    manifest = Manifest(tmp_path)
    with manifest.recorded(outcome):
        pass
    with pytest.raises(KeyError), manifest.recorded(outcome):
        raise KeyError
    assert os.listdir(tmp_path) == []


def test_an_end_that_cant_be_written_hides_no_other_error(tmp_path):
    outcome = {"images": 3}, {"text": "x" * 5000}
    manifest = begun(tmp_path)
    with (
        support.file_size_limit(5000),
        pytest.raises(OutputError, match="can't be written"),
        manifest.recorded(lambda: outcome),
    ):
        pass
    manifest = begun(tmp_path)
    with (
        support.file_size_limit(5000),
        pytest.raises(KeyError),
        manifest.recorded(lambda: outcome),
    ):
        raise KeyError
    assert content(tmp_path)["runs"][-1]["state"] == "running"


def test_a_signal_at_the_end_waits_until_it_is_recorded(tmp_path):
    def outcome():
        os.kill(os.getpid(), signal.SIGINT)
        return {}, {}

    manifest = begun(tmp_path)
    with (
        pytest.raises(interruption.Interrupted),
        interruption.handled(),
        manifest.recorded(outcome),
    ):
        pass
    assert content(tmp_path)["runs"][-1]["state"] == "finished"


def test_where_a_run_was_is_in_its_entry(tmp_path, monkeypatch):
    for name in [n for n in os.environ if n.startswith("SLURM_") or n == "CUDA_VISIBLE_DEVICES"]:
        monkeypatch.delenv(name)
    begun(tmp_path)
    monkeypatch.setenv("SLURM_JOB_ID", "20")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    begun(tmp_path)
    monkeypatch.setenv("SLURM_ARRAY_JOB_ID", "17")
    monkeypatch.setenv("SLURM_ARRAY_TASK_ID", "3")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "5,7")
    begun(tmp_path)
    runs = content(tmp_path)["runs"]
    assert [r.get("job") for r in runs] == [None, "20", "17_3"]
    assert [r.get("cuda_visible_devices") for r in runs] == [None, "", "5,7"]
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
    assert log.settle({"b"}.__contains__) == 2
    assert [(e["name"], e["reason"]) for e in log.read()] == [("a", "3"), ("c", "4")]
    assert log.settle(lambda name: True) == 0
    assert not log.path.exists()
    assert log.settle(lambda name: True) == 0


def test_failures_that_cant_be_written(tmp_path):
    log = FailureLog(tmp_path / "gone")
    with pytest.raises(OutputError, match=r"failures\.jsonl: can't be written: No such file"):
        log.add("a.png", "a", "x", "read")
