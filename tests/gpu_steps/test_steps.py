"""Steps: what is made, kept, made again and left out."""

import json

import pytest
from gpu_steps.steps import Step, run_steps

from vmb_d2.errors import ConfigError

MACHINE = {"device_name": "a GPU"}


class Clock:
    def __init__(self):
        self.seconds = 0.0

    def __call__(self):
        return self.seconds


@pytest.fixture
def now():
    return Clock()


@pytest.fixture
def made():
    """The names of the cases in the order in which they were made."""
    return []


@pytest.fixture
def step(made, now):
    """What makes a step whose cases take so many seconds each."""

    def step(name, seconds, weight=1.0, **results):
        def case(key):
            def make():
                made.append(key)
                now.seconds += seconds
                result = results.get(key, {"summary": f"{key} is done"})
                if isinstance(result, Exception):
                    raise result
                return dict(result)

            return make

        return Step(name, {key: case(key) for key in (f"{name}1", f"{name}2", f"{name}3")}, weight)

    return step


@pytest.fixture
def run(tmp_path, now):
    def run(*steps, limit=1000, machine=MACHINE):
        return run_steps(steps, tmp_path, machine, limit, now)

    return run


def content(folder, name):
    return json.loads((folder / f"{name}.json").read_text())


def test_each_result_is_kept(tmp_path, run, step, made, caplog):
    caplog.set_level("INFO")
    assert run(step("a", 1), step("b", 2))
    assert made == ["a1", "a2", "a3", "b1", "b2", "b3"]
    found = content(tmp_path, "b")
    assert (found["step"], found["machine"], found["left_out"]) == ("b", MACHINE, [])
    assert found["cases"]["b2"] == {"summary": "b2 is done", "seconds": 2}
    assert "b: b3: b3 is done (2.0 s)" in caplog.messages


def test_what_is_there_is_not_made_again(tmp_path, run, step, made, caplog):
    caplog.set_level("INFO")
    run(step("a", 1))
    before = (tmp_path / "a.json").read_bytes()
    assert run(step("a", 1), step("b", 1))
    assert made == ["a1", "a2", "a3", "b1", "b2", "b3"]
    assert (tmp_path / "a.json").read_bytes() == before
    assert "a: is there, 3 cases" in caplog.messages


def test_a_run_that_ends_early_goes_on(tmp_path, run, step, made):
    with pytest.raises(KeyboardInterrupt):
        run(Step("a", {**step("a", 1).cases, "a2": ctrl_c}))
    assert list(content(tmp_path, "a")["cases"]) == ["a1"]
    assert content(tmp_path, "a")["left_out"] == ["a2", "a3"]
    assert run(step("a", 1))
    assert made == ["a1", "a2", "a3"]


def ctrl_c():
    raise KeyboardInterrupt


def test_an_error_is_recorded_and_made_again(tmp_path, run, step, made, capsys):
    assert not run(step("a", 1, a2=RuntimeError("too\nlarge")))
    assert made == ["a1", "a2", "a3"]
    assert content(tmp_path, "a")["cases"]["a2"]["error"] == "RuntimeError: too"
    assert "Traceback" in capsys.readouterr().err
    assert run(step("a", 1))
    assert made == ["a1", "a2", "a3", "a2"]


def test_a_result_other_than_it_should_be(run, step, made):
    bad = {"summary": "far apart", "met": False}
    for _ in range(2):
        assert not run(step("a", 1, a1=bad))
    assert made == ["a1", "a2", "a3"]


def test_the_time_is_shared_by_weight(tmp_path, run, step, made, caplog):
    """Of 40 seconds a may take 30, and b what is left."""
    caplog.set_level("INFO")
    assert run(step("a", 20, weight=3), step("b", 5), limit=40)
    assert made == ["a1", "a2"]  # the second ends at 40: there is no time for b
    assert content(tmp_path, "a")["left_out"] == ["a3"]
    assert content(tmp_path, "b")["left_out"] == ["b1", "b2", "b3"]
    assert "b: no time for: b1, b2, b3" in caplog.messages
    assert run(step("a", 1, weight=3), step("b", 5), limit=40)
    assert made == ["a1", "a2", "a3", "b1", "b2", "b3"]
    assert content(tmp_path, "b")["left_out"] == []


def test_what_a_step_leaves_is_the_next_ones(run, step, made):
    """a ends after 3 of its 20 seconds: b has 37."""
    run(step("a", 1), step("b", 12), limit=40)
    assert made == ["a1", "a2", "a3", "b1", "b2", "b3"]


def test_a_step_that_is_there_takes_no_share(run, step, made):
    run(step("a", 1))
    run(step("a", 1, weight=100), step("b", 9), step("c", 9), limit=40)
    assert made[3:] == ["b1", "b2", "b3", "c1", "c2"]


def test_results_of_another_device_are_refused(run, step):
    run(step("a", 1))
    with pytest.raises(ConfigError, match=r"has a\.json of a GPU, not of another"):
        run(step("a", 1), machine={"device_name": "another"})
