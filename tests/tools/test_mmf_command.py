"""tools/extract_features_vmb.py: MMF's command line, as what tools/extract.py does."""

import os
import shlex
import subprocess
import sys

import arguments
import pytest
import support
from golden_checks import check_output
from support import TINY_FPN, links

from reference import goldens
from vmb_d2.output.open_stores import open_reader

pytestmark = pytest.mark.slow

PROGRAM = support.ROOT / "tools" / "extract_features_vmb.py"


@pytest.fixture
def work(tmp_path):
    (tmp_path / "work").mkdir()
    return tmp_path / "work"


@pytest.fixture
def source(tmp_path):
    return links(tmp_path / "it's (in)", "coffee.png", "horse.png")


def run(work, source, *flags, model=TINY_FPN):
    """Run it with a tiny model; return (the command that it printed, the finished process)."""
    files = []
    if model:
        checkpoint, config = support.vmb_checkpoint(model), support.yaml_path(model)
        files = [f"--model_file={checkpoint}", "--config_file", config]
    cache = support.scratch() / "cache"
    words = [PROGRAM, *files, f"--image_dir={source}", *flags]
    done = support.run_tool(*words, cwd=work, VMB_D2_CACHE=cache)
    printed = [line for line in done.stdout.splitlines() if line.startswith("python ")]
    return (printed[0] if printed else None), done


def names(folder):
    return sorted(p.name for p in folder.glob("*.npy") if not p.name.endswith("_info.npy"))


def test_features_are_those_of_the_original_in_its_batches_of_two(work, source):
    command, done = run(work, source)
    assert done.returncode == 0, done.stderr
    for path, _, image in goldens.find(rf"{TINY_FPN}\.seed0\.bs2\."):
        check_output(path, work / "output", image)
    # The command that was printed does the same: it finds all that was done.
    cache = str(support.scratch() / "cache")
    path = f"{os.path.dirname(sys.executable)}:{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path, "VMB_D2_CACHE": cache}
    shell = ["bash", "-c", command]
    again = subprocess.run(shell, cwd=work, env=environment, capture_output=True, text=True)
    assert (again.returncode, again.stderr) == (0, "")
    assert "nothing to do, 2 images are there" in again.stdout


def test_every_flag_has_its_option(work, source, tmp_path):
    links(source, "chelsea.png", "rocket.jpg")
    (tmp_path / "leave out").write_text("/elsewhere/chelsea.jpg\n")
    given = ["--output_folder", "my features", "--batch_size=1", "--num_features", "36"]
    given += ["--feature_name=fc7", "--confidence_threshold", "0.3", "--background"]
    given += ["--exclude_list", tmp_path / "leave out", "--start_index=1", "--end_index", "3"]
    _, done = run(work, source, *given)
    assert done.returncode == 0, done.stderr
    assert names(work / "my features") == ["horse.npy", "rocket.npy"]
    options = [
        "extract.num_features=36",
        "extract.feature_name=fc7",
        "extract.confidence_threshold=0.3",
        "extract.background=true",
        "extract.batching=mmf",
    ]
    assert support.extract_tiny(TINY_FPN, source, tmp_path / "out", *options).returncode == 0
    with open_reader(tmp_path / "out") as expected, open_reader(work / "my features") as found:
        for name in ("horse", "rocket"):
            support.assert_same_regions(found.read(name), expected.read(name))


def test_a_list_of_images_and_one_image(work, source, tmp_path):
    """The recipe for Slurm gives a file with a path a line."""
    (tmp_path / "part.0").write_text(f"{source / 'horse.png'}\nrocket.jpg\n")
    for given, option in ((tmp_path / "part.0", "input.list"), (source / "a.png", "input.dir")):
        command, _ = run(work, given, model=None)
        assert arguments.option(option, str(given)) in shlex.split(command)


def test_the_default_list_of_what_to_leave_out(work, source):
    """It is ./list, and counts where it is there."""
    (work / "list").write_text("coffee\n")
    command, done = run(work, source)
    assert done.returncode == 0, done.stderr
    assert "input.exclude_list=./list" in command
    assert names(work / "output") == ["horse.npy"]


@pytest.mark.parametrize(
    ("flags", "option"),
    [
        ([], "model=x152"),
        (["--model_name", "X-101"], "model=x101"),
        (["--model_name=X-101", "--model_file=my.pth"], "model=x101 model.weights=my.pth"),
        (["--config_file=my.yaml"], "model=x152 model.config_file=my.yaml"),
    ],
)
def test_models(work, flags, option):
    command, done = run(work, "nothing", *flags, model=None)
    path, *words = shlex.split(command)[1:]
    assert path == str(support.ROOT / "tools" / "extract.py")
    options = "input.dir=nothing output.dir=./output extract.batching=mmf extract.batch_size=2"
    assert " ".join(words) == f"{option} {options}"
    assert done.returncode == 2
    assert done.stderr == "error: input.dir=nothing: nothing: No such file or directory\n"


def test_mistakes_are_one_line(work, source):
    _, done = run(work, source, "--model_name=X-153", model=None)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "error: --model_name=X-153: valid are X-152, X-101\n"
