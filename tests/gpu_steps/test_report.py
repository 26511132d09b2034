"""The page and the chart of given results."""

import json

import pytest
from gpu_results import CPU, golden, original, rate, speed, step
from gpu_steps import STEPS
from gpu_steps.chart import write_chart
from gpu_steps.report import read_results, write_report
from PIL import Image

from vmb_d2.errors import ConfigError

BATCH = {"batch_size": 5, "shuffled": True, "regions": 300, "matched": 299, "features": 3e-7}
PRICE = {
    "near": 0.83,
    "features_median": 1.8e-2,
    "features_worst": 8.5e-2,
    "same_class": 1.0,
    "given_features_median": 9.2e-3,
    "given_features_worst": 1e-2,
    "given_same_class": 0.991,
}
SIZES = [
    {"batch_size": 1, "network": rate(12)},
    {"batch_size": 2, "error": "the memory doesn't suffice"},
]
SETTING = {"benchmark": True, "deterministic": False, "equal": False, "milliseconds": 48.3}
RESULTS = {
    "parity": step(
        {
            "x152": {"goldens": [golden("a"), golden("b", matched=90, met=False, box=2e-3)]},
            "x152 batches": {"batches": [BATCH]},
            "x101": {"error": "OutOfMemoryError: CUDA out of memory"},
        }
    ),
    "speed": step(
        {
            "x152 fp32": speed(backbone=40.0),
            "x152 bf16": speed(precision="bf16", network=100.0, end_to_end=95.0),
            "x152 original": original(0.25),
            "x152 fp32 batch sizes": {"model": "x152", "precision": "fp32", "sizes": SIZES},
        },
        left_out=["x101 fp32", "x101 bf16"],
    ),
    "precision": step({"x152 bf16": PRICE}),
    "kernels": step(
        {
            "x152 fp32 cuDNN": {"settings": [SETTING]},
            "x152 fp32 memory formats": {
                "formats": {"stem": "contiguous", "res2": "channels_last"},
                **{"regions": 200, "matched": 199, "features": 1.3e-6},
            },
        }
    ),
    "selection": step({"flat": {"milliseconds": {"1": 1.5, "8": 0.25}}}),
    "tests": step(
        {"pytest -m gpu": {"tests": [{"test": "test_a", "outcome": "skipped", "text": "why"}]}}
    ),
}


@pytest.fixture
def page(tmp_path):
    write_report(RESULTS, tmp_path / "gpu.md")
    return (tmp_path / "gpu.md").read_text()


@pytest.mark.parametrize(
    "line",
    [
        "# Measured on a GPU",
        "| x152 fp32, network alone, images/s | at least 18 | 20 | yes |  |",
        "| x152 bf16, network alone, images/s | at least 110 | 100 | no "
        "| ms an image: backbone 1.00, rpn 1.00, roi_head 1.00 |",
        "| x152 tf32, network alone, images/s | at least 65 | - | not measured |  |",
        "| selection, flat scores, ms | at most 2 | 1.5 | yes |  |",
        "| `x152` | 1 of 2 | 190 of 200 | 2.0e-03 px | 4.4e-06 | 200 of 190 |",
        "| `x152` | 5, shuffled | 299 of 300 | 3.0e-07 |",
        "![images a second end to end, by model and precision](gpu.png)",
        "| `x152` | fp32 | 16 | 20 | 55% | 19 (200 images) | 76 | host 3, gpu 5 |",
        "| `x152` | fp32 | 1.00 | 1.00 | 1.00 | 40.00 | 1.00 | 1.00 | 1.00 | 1.00 |",
        f"| `x152` | the original's loop |{' 1.00 |' * 6} 700.00 | 1.00 |",
        "| `x152` | fp32 | 12 | no memory |",
        "| `x152` | bf16 | 83% | 1.8e-02, 8.5e-02 | 100.0% | 9.2e-03, 1.0e-02 | 99.1% |",
        "| `x152` | fp32 | on | off | no | 48.3 |",
        "| `x152` | fp32 | stem contiguous, res2 channels_last | 199 of 200 | 1.3e-06 |",
        "| flat | 1.50 | 0.25 |",
        "| `test_a` | skipped: why |",
        "- parity: x101: OutOfMemoryError: CUDA out of memory",
        "- speed, for want of time: x101 fp32, x101 bf16",
    ],
)
def test_the_page(page, line):
    assert line in page.splitlines()


def test_what_was_run_is_not_missing(page):
    assert "not run" not in page


def test_every_table_has_as_many_cells_in_each_row(page):
    blocks = [block.splitlines() for block in page.split("\n\n") if block.startswith("|")]
    assert len(blocks) == 11
    for rows in blocks:
        assert len({row.count("|") for row in rows}) == 1


def test_a_page_from_a_cpu_says_so_at_its_top(tmp_path):
    results = {"selection": step({"flat": {"milliseconds": {"1": 22.0}}}, machine=CPU)}
    write_report(results, tmp_path / "gpu.md")
    assert [p.name for p in tmp_path.iterdir()] == ["gpu.md"]  # no rates: no chart
    title, _, note = (tmp_path / "gpu.md").read_text().splitlines()[:3]
    assert title == "# What `make gpu` measures"
    assert "Made on a CPU, with small models" in note
    assert "Nothing on this page was measured on a GPU" in note
    page = (tmp_path / "gpu.md").read_text()
    assert "| selection, flat scores, ms | at most 2 | - | not measured |  |" in page
    assert "| flat | 22.00 |" in page
    assert page.endswith("".join(f"- {name}: not run\n" for name in STEPS if name != "selection"))


def test_results_are_read_from_their_folder(tmp_path):
    for name in ("speed", "parity"):
        (tmp_path / f"{name}.json").write_text(json.dumps(RESULTS[name]))
    assert read_results(tmp_path) == {name: RESULTS[name] for name in ("parity", "speed")}


def test_without_results(tmp_path):
    with pytest.raises(ConfigError, match="there are no results: `make gpu` makes them"):
        write_report(read_results(tmp_path), tmp_path / "gpu.md")


def test_a_page_that_cant_be_written(tmp_path):
    with pytest.raises(ConfigError, match=r"no/gpu\.md: can't be written"):
        write_report(RESULTS, tmp_path / "no" / "gpu.md")


def test_the_bars_are_as_long_as_the_rates(tmp_path):
    rates = {"x152": {"fp32": 20.0, "bf16": 80.0}, "x101": {"original": 40.0}}
    write_chart(tmp_path / "a.png", "title", rates)
    image = Image.open(tmp_path / "a.png").convert("RGB")
    colors = {"#4c72b0": 20, "#dd8452": 80, "#999999": 40}
    lengths = {}
    for color in colors:
        rgb = tuple(bytes.fromhex(color[1:]))
        rows = {
            sum(image.getpixel((x, y)) == rgb for x in range(image.width))
            for y in range(image.height)
        }
        lengths[color] = max(rows)
    for color, rate_ in colors.items():
        assert lengths[color] == pytest.approx(lengths["#dd8452"] * rate_ / 80, abs=4)
