"""tools/benchmark.py as users run it, on a tiny model."""

import json
import re

import pytest
import support
from benchmarked import strips

pytestmark = pytest.mark.slow

TOOL = support.ROOT / "tools" / "benchmark.py"
ALL = "network,stages,end_to_end,original"


@pytest.fixture
def command(monkeypatch, capsys):
    return support.in_this_process(TOOL, monkeypatch, capsys)


@pytest.fixture
def images(tmp_path):
    strips(tmp_path / "in", 2)
    return tmp_path / "in"


@pytest.fixture
def tiny(images):
    """The options of a tiny model and a few images."""
    return [
        *("--model", support.yaml_path(support.TINY_FPN)),
        *("--weights", support.vmb_checkpoint(support.TINY_FPN)),
        *("--cache-dir", support.scratch() / "cache"),
        *("--images", images),
        *("--repeats", 1),
        *("--device", "cpu"),
    ]


def test_as_a_program(tmp_path, tiny):
    options = ["--precision", "fp32,bf16", "--batch-sizes", "1,2", "--count", 3, "--format", "npz"]
    done = support.run_tool(TOOL, *tiny, *options, "--json", tmp_path / "out.json")
    assert done.returncode == 0, done.stderr
    assert done.stderr.splitlines()[-1] == "bf16, batch size 2: 1 of 1"
    for text in ("bf16, batch size 2\n", "  sum of stages  ", "the original's loop (fp32"):
        assert text in done.stdout
    found = json.loads((tmp_path / "out.json").read_text())
    assert found["weights"] == str(support.vmb_checkpoint(support.TINY_FPN))
    assert (found["format"], found["images"]["count"]) == ("npz", 3)
    assert len(found["configurations"]) == 4
    assert {p.name for p in tmp_path.iterdir()} == {"in", "out.json"}


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["--precision", "fp32,int8"], "--precision=int8: valid are fp32, tf32, bf16, fp16"),
        (["--batch-sizes", "1,two"], "--batch-sizes=two: has to be a whole number, at least 1"),
        (["--repeats", "2,3"], "--repeats=2,3: has to be a whole number, at least 1"),
        (["--count", "0"], "--count=0: has to be a whole number"),
        (["--skip", "rpn"], "--skip=rpn: valid are network, stages, end_to_end, original"),
        (["--images", "/no/such"], "--images=/no/such: "),
        (["--skip", ALL, "--json", "/no/such/a.json"], "/no/such/a.json: can't be written: No"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_mistakes_are_one_line(command, tiny, options, expected):
    status, _, err = command(*tiny, *options)
    assert status == 2
    (line,) = [line for line in err.splitlines() if line.startswith("error: ")]
    assert err.splitlines()[-1] == line
    assert expected in line


def test_weights_are_missing(command, images):
    status, out, err = command("--images", images, "--model", "r101_c4")
    assert (status, out) == (2, "")
    assert err == "error: --weights is missing: only x152, x101, frcnn_vg have released ones\n"


def test_every_option_is_explained(command):
    status, text, _ = command("--help")
    assert status == 0
    assert "Exit status: 0 if everything was measured" in text
    options = set(re.findall(r"--[a-z-]+", text)) - {"--help"}
    docs = (support.ROOT / "docs" / "performance.md").read_text()
    assert set(re.findall(r"^\| `(--[a-z-]+)", docs, re.MULTILINE)) == options
