"""manifest.json and failures.jsonl."""

import json
import os

import pytest
import support
from races import at_once

from vmb_d2.errors import OutputError
from vmb_d2.output.failures import FailureLog
from vmb_d2.output.manifest import Manifest, differences, has_inclusive_boxes, recorded_names
from vmb_d2.output.shards import Shard

SETTINGS = {"weights": "abc", "regions": {"most": 100, "source": "proposals"}, "unknown": None}


def begun(folder, settings=SETTINGS, **run):
    folder.mkdir(exist_ok=True)
    manifest = Manifest(folder)
    manifest.begin(run, settings=settings)
    return manifest


def content(folder):
    return json.loads((folder / "manifest.json").read_text())


def test_a_run_from_its_begin_to_its_end(tmp_path, monkeypatch):
    monkeypatch.setenv("SLURM_JOB_ID", "20")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "5,7")
    manifest = Manifest(tmp_path)
    with manifest.recorded(lambda: ({"images": 3, "done": 3}, {"extracted": 2})):
        manifest.begin({"device": None}, settings=SETTINGS)
        (run,) = content(tmp_path)["runs"]
        assert (run["state"], run["device"]) == ("running", None)
        assert run["versions"].keys() >= {"vmb_d2", "python", "torch", "detectron2", "numpy"}
        manifest.update({"device": "cpu"}, counts={"images": 2})
        found = content(tmp_path)
        assert (found["runs"][0]["device"], found["counts"]) == ("cpu", {"images": 2})
    found = content(tmp_path)
    assert found == manifest.content
    assert found["settings"] == SETTINGS
    assert found["counts"] == {"images": 3, "done": 3}
    (run,) = found["runs"]
    assert (run["state"], run["device"], run["extracted"]) == ("finished", "cpu", 2)
    assert run["seconds"] >= 0
    assert run["started"] <= run["ended"]
    where = {"pid": os.getpid(), "job": "20", "cuda_visible_devices": "5,7"}
    assert run.items() >= where.items()


def test_a_run_that_never_ended_has_died_and_only_the_last_runs_are_remembered(tmp_path):
    for number in range(103):
        begun(tmp_path, number=number)
    runs = content(tmp_path)["runs"]
    assert [run["number"] for run in runs] == list(range(3, 103))
    assert [run["state"] for run in runs[-2:]] == ["died", "running"]


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


@pytest.mark.parametrize("text", [b"", b"[]", b'{"settings": 3}', b"\xff"])
def test_what_is_no_manifest(tmp_path, text):
    (tmp_path / "manifest.json").write_bytes(text)
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

    for _ in range(2):
        (tmp_path / "manifest.json").unlink(missing_ok=True)
        answers = at_once(*[lambda number=number: work(number) for number in range(6)])
        assert answers == [str([content(tmp_path)["settings"]["weights"]])] * 6
    assert os.listdir(tmp_path) == ["manifest.json"]


@pytest.mark.parametrize(
    ("error", "state", "text"),
    [
        (OutputError("first\nsecond"), "failed", "first"),
        (KeyboardInterrupt("x"), "interrupted", None),
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
        support.file_size_limit(10),
        pytest.raises(expected),
        manifest.recorded(lambda: ({"images": 3}, {})),
    ):
        if error:
            raise error
    assert content(tmp_path)["runs"][-1]["state"] == "running"


def test_failures_are_there_at_once(tmp_path):
    log = FailureLog(tmp_path)
    assert log.read() == []
    entry = {"path": "/x/a\udcff.png", "name": "a", "reason": "ä", "stage": "read"}
    log.add(**entry)
    assert FailureLog(tmp_path).read() == [entry]


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


def of_model(convention):
    return {"model": {"box_convention": convention}}


def test_whether_boxes_are_inclusive(tmp_path):
    assert has_inclusive_boxes(tmp_path)
    for convention in ("vmb", "vinvl", "bua", "frcnn_vg"):
        folder = tmp_path / convention
        begun(folder, of_model(convention))
        for path in (folder, folder / "lxmert.tsv", folder / "fc6" / "lxmert.tsv"):
            assert has_inclusive_boxes(path) == (convention != "frcnn_vg")


def test_the_files_of_names(tmp_path):
    nothing = {"class_names": None, "attribute_names": None}
    assert recorded_names(tmp_path) == nothing
    begun(tmp_path / "x152", of_model("vmb"))
    assert recorded_names(tmp_path / "x152" / "lxmert.tsv") == nothing
    begun(tmp_path / "vinvl", of_model("vinvl"))
    assert recorded_names(tmp_path / "vinvl") == {**nothing, "class_names": "none"}
    files = {"class_names": "/objects.txt", "attribute_names": "/attributes.txt"}
    shard = Manifest(tmp_path / "vinvl", Shard(count=2))
    shard.folder.mkdir(parents=True)
    shard.begin({}, settings=of_model("vinvl"), stores=[{"format": "mmf"}, files])
    assert recorded_names(tmp_path / "vinvl") == files
    manifest = begun(tmp_path / "bua", of_model("bua"))
    manifest.update({}, stores=[{"attribute_names": "/attributes.txt"}])
    assert recorded_names(tmp_path / "bua") == {**files, "class_names": "none"}
