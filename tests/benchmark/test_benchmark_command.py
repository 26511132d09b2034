"""tools/benchmark.py as users run it, on a tiny model."""

import json

import pytest
import support
from benchmarked import numbers, strips

TOOL = support.ROOT / "tools" / "benchmark.py"
ALL = "network,stages,end_to_end,original,selection"


@pytest.fixture
def command(monkeypatch, capsys):
    return support.in_this_process(TOOL, monkeypatch, capsys)


@pytest.fixture
def images(tmp_path):
    strips(tmp_path / "in", 2)
    return tmp_path / "in"


@pytest.fixture
def tiny(tmp_path, images):
    """The options of a tiny model and a few images."""
    return [
        *("--model", support.yaml_path(support.TINY_FPN)),
        *("--weights", support.vmb_checkpoint(support.TINY_FPN)),
        *("--cache-dir", support.scratch() / "cache"),
        *("--images", images),
        *("--temporary", tmp_path),
        *("--repeats", 1),
        *("--device", "cpu"),
    ]


def test_as_a_program(tmp_path, tiny, images):
    files = tmp_path / "out.json", tmp_path / "out.png"
    options = ["--skip", "selection", "--startup", "--endurance", 4, "--batch-sizes", "1,2"]
    done = support.run_tool(TOOL, *tiny, *options, "--json", files[0], "--chart", files[1])
    assert done.returncode == 0, done.stderr
    assert done.stderr.splitlines()[-1] == "memory over 4 images"
    assert "ignored (" in done.stderr
    assert "ignored (" not in done.stdout
    for text in ("fp32, batch size 2\n", "  sum of stages  ", "the original's loop (fp32"):
        assert text in done.stdout
    assert "  nothing to do  " in done.stdout
    found = json.loads(files[0].read_text())
    assert found["weights"] == str(support.vmb_checkpoint(support.TINY_FPN))
    assert [c["batch_size"] for c in found["configurations"]] == [1, 2]
    assert found["start_up"]["nothing_to_do"]["repeats"] == 1
    assert found["endurance"]["images"] == 4
    assert found["endurance"]["network"] == "a stand-in for the network"
    assert [number for way, number in numbers(found) if number < 0] == []
    assert files[1].read_bytes().startswith(b"\x89PNG\r\n")
    assert {p.name for p in tmp_path.iterdir()} == {"in", "out.json", "out.png"}


def test_random_weights_and_json_alone(command, tiny):
    options = ["--skip", "original,end_to_end,selection,stages", "--count", 3, "--json", "-"]
    status, out, _ = command(*tiny, *options, "--weights", "random", "--format", "npz")
    assert status == 0
    found = json.loads(out)
    assert found["weights"] == "random"
    assert found["format"] == "npz"
    assert found["images"]["count"] == 3
    (configuration,) = found["configurations"]
    assert configuration["network"]["macs"] > 0
    assert "stages" not in configuration


def test_nothing_but_endurance(command, tiny):
    options = ["--skip", ALL, "--endurance", 3, "--endurance-network", "model"]
    status, out, _ = command(*tiny, *options)
    assert status == 0
    assert f"memory over 3 images with {support.yaml_path(support.TINY_FPN)}, " in out
    assert "batch size" not in out


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["--precision", "fp32,int8"], "--precision=int8: valid are fp32, tf32, bf16, fp16"),
        (["--batch-sizes", "1,two"], "--batch-sizes=1,two: numbers with commas between"),
        (["--batch-sizes", "0"], "--batch-sizes=0: has to be at least 1"),
        (["--repeats", "0"], "--repeats=0: has to be at least 1"),
        (["--count", "0"], "--count=0: has to be at least 1"),
        (["--endurance", "0"], "--endurance=0: has to be at least 1"),
        (["--endurance", "1", "--endurance-network", "x"],
         "--endurance-network=x: valid are stand-in, model"),
        (["--skip", "rpn"], "--skip=rpn: valid are network, stages, end_to_end, original"),
        (["--format", "csv"], "format 'csv' is unknown; valid are mmf, npz"),
        (["--device", "tpu"], "device=tpu: valid here are auto, cpu"),
        (["--model", "x153"], "valid names: x152, x101, r101_c4, x152_c4"),
        (["--images", "/no/such"], "--images=/no/such: "),
        (["--temporary", "/no/such"], "--temporary=/no/such: No such file or directory"),
        (["--weights", "/no/such.pth"], "/no/such.pth: can't be read: No such file"),
        (["--skip", ALL, "--chart", "/no/such/a.png"], "/no/such/a.png: can't be written: No such"),
        (["--skip", ALL, "--json", "/no/such/a.json"], "/no/such/a.json: can't be written: No"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)  # fmt: skip
def test_mistakes_are_one_line(command, tiny, options, expected):
    status, _, err = command(*tiny, *options)
    assert status == 2
    (line,) = [line for line in err.splitlines() if line.startswith("error: ")]
    assert err.splitlines()[-1] == line
    assert expected in line


def test_weights_are_missing(command, images):
    status, out, err = command("--images", images, "--model", "r101_c4")
    assert (status, out) == (2, "")
    assert err == (
        "error: --weights is missing: a path, a URL, or random (only x152 and x101 have released "
        "ones)\n"
    )


def test_no_images(command, tmp_path):
    (tmp_path / "empty").mkdir()
    status, _, err = command("--images", tmp_path / "empty")
    assert status == 2
    assert err == f"error: --images={tmp_path / 'empty'}: no .png, .jpg, .jpeg file in it\n"


def test_help(command):
    status, out, _ = command("--help")
    assert status == 0
    options = "model weights images count batch-sizes precision device repeats skip format startup"
    for option in f"{options} endurance endurance-network temporary cache-dir json chart".split():
        assert f"--{option}" in out
    assert "Exit status: 0 if everything was measured" in out


def test_every_option_is_explained(command):
    text = (support.ROOT / "docs" / "performance.md").read_text()
    words = command("--help")[1].split()
    options = {word.strip("[],") for word in words if word.strip("[").startswith("--")} - {"--help"}
    assert len(options) == 17
    assert [option for option in options if f"`{option}" not in text] == []
