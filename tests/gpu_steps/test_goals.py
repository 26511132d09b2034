"""The goals: which are met, and what costs most where one isn't."""

import pytest
from gpu_results import original, speed
from gpu_steps.goals import outcomes, shortfalls


def outcome(results, goal):
    (found,) = [o for o in outcomes(results) if o.goal.startswith(goal)]
    return found


def test_without_results_nothing_is_measured_or_short():
    assert len(outcomes({})) == 12
    assert {(o.figure, o.met) for o in outcomes({})} == {(None, False)}
    assert shortfalls({}) == []


@pytest.mark.parametrize(
    ("precision", "rate", "met"),
    [
        ("fp32", 18, True),
        ("fp32", 17.9, False),
        ("tf32", 65, True),
        ("tf32", 64, False),
        ("bf16", 110, True),
        ("bf16", 109, False),
    ],
)
def test_the_networks_rate(precision, rate, met):
    results = {"speed": {f"x152 {precision}": speed(precision=precision, network=rate)}}
    found = outcome(results, f"x152 {precision}, network alone")
    assert (found.figure, found.met) == (pytest.approx(rate), met)


def test_the_stages_that_cost_most():
    times = {"backbone": 40.0, "rpn": 9.0, "write": 20.0, "decode": 3.0}
    case = speed(network=17.0, end_to_end=15.0, **times)
    lines = shortfalls({"speed": {"x152 fp32": case}})
    assert lines == [
        "below the goal for H100 and H200: x152 fp32, network alone, images/s: 17 (at least 18); "
        "ms an image: backbone 40.00, rpn 9.00, roi_head 1.00",
        "below the goal for H100 and H200: x152 fp32, end to end, share of the network's rate: "
        "0.882 (at least 0.9); ms an image: write 20.00, decode 3.00, resize 1.00",
    ]


@pytest.mark.parametrize(("loop", "met"), [(0.38, True), (0.39, False)])
def test_times_the_original(loop, met):
    results = {"speed": {"x152 fp32": speed(), "x152 original": original(loop)}}
    found = outcome(results, "x152 fp32, end to end, times the original's")
    assert (found.figure, found.met) == (pytest.approx(19 / loop), met)


@pytest.mark.parametrize(("took", "met"), [(2.0, True), (2.1, False)])
def test_selection(took, met):
    results = {"selection": {"flat": {"milliseconds": {"1": took, "8": 9.0}}}}
    assert outcome(results, "selection, flat")[2:4] == (took, met)


def test_errors_and_other_models_are_no_figures():
    cases = {
        "x152 fp32": {"error": "RuntimeError: no"},
        "x101 fp32": speed(model="x101", network=1.0),
        "x152 original": {"summary": "its loop is not emulated", "model": "x152"},
    }
    assert shortfalls({"speed": cases, "selection": {"flat": {"error": "no"}}}) == []
