"""tools/extract.py used wrongly, or where the network is gone: one line that says what to mend."""

import signal
import subprocess
import sys

import pytest
import support
import sweeps

from reference import goldens
from vmb_d2.config import MODEL_NAMES

MISTAKES = [
    ([], ["input.dir is missing"]),
    (["input.list=/no/list.txt"], ["input.list=/no/list.txt", "No such file"]),
    (["input.names=x"], ["input.names=x", "mmf, relative, relative_with_extension"]),
    (["input.max_failures=-1"], ["input.max_failures=-1", "at least 0"]),
    (["input.exclude_list=/no/list"], ["input.exclude_list=/no/list", "No such file"]),
    (["boxes.file=/no/boxes.json"], ["boxes.file=/no/boxes.json", "No such file"]),
    (["output.format=zip"], ["'zip'", "valid are mmf"]),
    (["output.format=[mmf,{a:1}]"], ["output.format", "a value or a list"]),
    (["output.foreign=x"], ["output.foreign=x", "keep, redo"]),
    (["output.dtype=float64"], ["output.dtype=float64", "float32, float16"]),
    (["input.dir=/no/such"], ["input.dir=/no/such", "No such file"]),
    (["input.foo=1"], ["input.foo", "dir, list, recursive, extensions, names, exclude_list"]),
    (["modle=x152"], ["modle", "model, input, shard, boxes, output"]),
    (["model=x153"], ["model=x153", "bua, frcnn_vg, r101_c4, vinvl, vmb, x101, x152, x152_c4"]),
    (["extract.batch_size=two"], ["extract.batch_size=two", "number, at least 1, or auto"]),
    (
        ["extract.batch_size=auto", "extract.batching=mmf"],
        ["extract.batch_size=auto", "a number", "extract.batching=bucketed"],
    ),
    (["extract.batching=all"], ["extract.batching", "bucketed, mmf"]),
    (["extract.workers=-1"], ["extract.workers=-1", "at least 0"]),
    (["extract.num_features=0"], ["extract.num_features=0", "at least 1"]),
    (["extract.min_features=5", "extract.max_features=3"], ["extract.min_features=5"]),
    (["extract.feature_name=fc5"], ["extract.feature_name=fc5", "fc6, fc7"]),
    (["extract.confidence_threshold=1.5"], ["extract.confidence_threshold=1.5", "[0, 1)"]),
    (["extract.compile=graphs", "device=cpu"], ["extract.compile=graphs", "off, inductor"]),
    (["device=tpu"], ["device=tpu", "auto, cpu"]),
    (["precision=tf32", "device=cpu"], ["precision=tf32", "cpu", "fp32, bf16"]),
    (["output.dir=/proc/nothing"], ["output.dir=/proc/nothing"]),
    (["model=r101_c4", "model.weights=???"], ["model.weights is missing"]),
    (["model.weights=/no/such.pth"], ["/no/such.pth", "No such file"]),
    (["model.config_file=/no/such.yaml"], ["/no/such.yaml", "No such file"]),
    (["photos"], ["photos: an option is key=value"]),
    (["input.dir=~nobody_here/x"], ["~nobody_here/x: there is no such user", "./~nobody_here/x"]),
    (["device=it's"], ["""type 'device="it'"'"'s"'"""]),
    (["input.list=a.txt,b.txt"], ["'input.list=a.txt,b.txt'", "key=[value1,value2]"]),
    (["shard.count=2", "shard.index=range(0,2)"], ["shard.index=range(0,2)", "--multirun"]),
    (["shard.count=8"], ["shard.index and shard.count go together", "shard.index='range(0,8)'"]),
    (["shard.index=8", "shard.count=8"], ["shard.index=8", "valid are 0 to 7"]),
    (["shard.index=a", "shard.count=8"], ["shard.index", "'a'", "Integer"]),
    (["shard.index=0", "shard.count=3"], ["shard.count=3", "cut into 2 shards", "shard.count=2"]),
]


def options_of(overrides, folder):
    given = {o.split("=")[0] for o in overrides}
    defaults = {
        "model": "vmb",
        "model.config_file": support.yaml_path(support.TINY_FPN),
        "model.weights": support.vmb_checkpoint(support.TINY_FPN),
        "input.dir": goldens.image_path("coffee.png"),
        "output.dir": folder,
    }
    if not overrides:
        del defaults["input.dir"]
    rest = [f"{key}={value}" for key, value in defaults.items() if key not in given]
    return [*overrides, *rest]


@pytest.fixture(scope="module")
def ends(tmp_path_factory):
    """(exit status, stderr) of the program with each of the mistakes."""
    folder = tmp_path_factory.mktemp("out")
    (folder / "shards" / "1-of-2").mkdir(parents=True)
    (folder / "shards" / "1-of-2" / "failures.jsonl").touch()
    return sweeps.forked([options_of(overrides, folder) for overrides, _ in MISTAKES])


@pytest.mark.slow
@pytest.mark.parametrize("number", range(len(MISTAKES)), ids=[" ".join(m[0]) for m in MISTAKES])
def test_mistakes_are_one_line_that_names_the_key(ends, number):
    status, stderr = ends[number]
    assert status == 2
    assert len(stderr.splitlines()) == 1
    assert stderr.startswith("error: ")
    assert [text for text in MISTAKES[number][1] if text not in stderr] == []


@pytest.mark.slow
def test_no_network_is_one_line_with_the_url_and_the_place(tmp_path):
    """The released weights' URL, with a proxy that refuses every connection."""
    done = support.extract(
        "model=x101",
        f"input.dir={goldens.image_path('coffee.png')}",
        f"output.dir={tmp_path / 'out'}",
        f"cache_dir={tmp_path / 'cache'}",
        https_proxy="http://127.0.0.1:9",
    )
    assert done.returncode == 2
    (line,) = [x for x in done.stderr.splitlines() if x.startswith("error: ")]
    url = "https://dl.fbaipublicfiles.com/pythia/detectron_model/detectron_model.pth"
    place = f"{tmp_path}/cache/downloads/dl.fbaipublicfiles.com/pythia/detectron_model"
    assert url in line
    assert f"put it at {place}/detectron_model.pth" in line


def test_traceback_on_request(tmp_path):
    done = support.extract("input.dir=/no/such", f"output.dir={tmp_path}", HYDRA_FULL_ERROR=1)
    assert done.returncode != 0
    assert "Traceback" in done.stderr


def test_help_names_options_and_every_model():
    done = support.extract("--help")
    assert done.returncode == 0
    for option in ("exclude_list", "start_index", "num_features", "batching", "device"):
        assert option in done.stdout
    for model in MODEL_NAMES:
        assert f"\n  {model} " in done.stdout


def test_help_whose_reader_has_ended():
    """As in `--help | head`."""
    command = [sys.executable, support.ROOT / "tools" / "extract.py", "--help"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(command, **pipes) as process:
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 128 + signal.SIGPIPE
