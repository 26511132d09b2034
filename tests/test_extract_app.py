"""tools/extract.py as users run it: resuming, bad images, mistakes, no network, full disk."""

import os
import shutil

import pytest
import support
from PIL import Image
from reference import goldens
from support import TINY_FPN, links


@pytest.fixture
def photographs(tmp_path):
    return links(tmp_path / "in", "coffee.png", "rocket.jpg", "chelsea.png")


def test_done_images_are_skipped_and_half_done_ones_are_not(tmp_path, photographs):
    out = tmp_path / "out"
    assert support.extract_tiny(TINY_FPN, photographs, out).returncode == 0
    before = {p.name: (p.read_bytes(), p.stat().st_mtime_ns) for p in out.iterdir()}
    assert len(before) == 6
    (out / "rocket.npy").unlink()
    done = support.extract_tiny(TINY_FPN, photographs, out)
    assert "1 extracted, 2 there before" in done.stdout
    after = {p.name: (p.read_bytes(), p.stat().st_mtime_ns) for p in out.iterdir()}
    changed = [name for name in before if before[name] != after[name]]
    assert changed == sorted(changed) == [n for n in before if n.startswith("rocket")]
    assert {n: c for n, (c, _) in before.items()} == {n: c for n, (c, _) in after.items()}
    done = support.extract_tiny(TINY_FPN, photographs, out)
    assert done.returncode == 0
    assert "nothing to do, 3 images are there" in done.stdout


def test_a_slice_means_the_same_images_whatever_is_done(tmp_path, photographs):
    """chelsea, coffee, rocket: [1:3] is coffee and rocket, also when chelsea or coffee is done."""
    out = tmp_path / "out"
    for _ in range(2):
        options = ("input.start_index=1", "input.end_index=2")
        assert support.extract_tiny(TINY_FPN, photographs, out, *options).returncode == 0
        assert sorted(p.name for p in out.iterdir()) == ["coffee.npy", "coffee_info.npy"]
    (tmp_path / "exclude.txt").write_text("chelsea.png\n")
    options = (f"input.exclude_list={tmp_path / 'exclude.txt'}", "input.start_index=1")
    assert support.extract_tiny(TINY_FPN, photographs, out, *options).returncode == 0
    assert {p.name.split(".")[0] for p in out.iterdir()} >= {"rocket", "rocket_info"}
    assert not (out / "chelsea.npy").exists()


def test_bad_images_are_reported_and_the_run_goes_on(tmp_path, photographs):
    out = tmp_path / "out"
    broken = photographs / "broken.jpg"
    broken.write_bytes(goldens.image_path("rocket.jpg").read_bytes()[:5000])
    (photographs / "text.png").write_text("no image")
    Image.new("RGB", (3000, 1)).save(photographs / "line.png")
    os.symlink(tmp_path / "nowhere.png", photographs / "dangling.png")
    done = support.extract_tiny(TINY_FPN, photographs, out, "extract.batch_size=2")
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == (
        "error: 3 of 6 images failed; 3 extracted, 0 there before"
    )
    for name, reason in (
        ("broken.jpg", "truncated"),
        ("text.png", "cannot identify image file"),
        ("line.png", "3000 x 1 pixels: too narrow"),
    ):
        (line,) = [x for x in done.stdout.splitlines() if f"failed: {photographs / name}" in x]
        assert reason in line
    assert len(list(out.iterdir())) == 6


def test_progress_shows_rate_and_remaining_time(tmp_path, photographs):
    done = support.extract_tiny(TINY_FPN, photographs, tmp_path / "out")
    assert "3/3 [" in done.stderr
    assert "image/s]" in done.stderr or "s/image]" in done.stderr


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        ([], ["input.dir is missing"]),
        (["input.dir="], ["input.dir is missing"]),
        (["input.dir=/no/such"], ["input.dir=/no/such", "No such file"]),
        (["input.foo=1"], ["input.foo", "dir, exclude_list, start_index, end_index"]),
        (["modle=x152"], ["modle", "model, input, output"]),
        (["model=x153"], ["model=x153", "r101_c4, vmb, x101, x152, x152_c4"]),
        (["extract.batching=all"], ["extract.batching", "bucketed, mmf"]),
        (["extract.batch_size=two"], ["extract.batch_size", "two", "Integer"]),
        (["extract.batch_size=0"], ["extract.batch_size=0", "at least 1"]),
        (["extract.num_features=0"], ["extract.num_features=0", "at least 1"]),
        (["extract.confidence_threshold=1.5"], ["extract.confidence_threshold=1.5", "[0, 1)"]),
        (["extract.feature_name=fc5"], ["extract.feature_name=fc5", "fc6, fc7"]),
        (["extract.feature_name=fc5", "model.weights=/no/such.pth"], ["fc5", "fc6, fc7"]),
        (["device=tpu"], ["device=tpu", "auto, cpu"]),
        (["device=cuda:99"], ["device=cuda:99", "auto, cpu"]),
        (["input.exclude_list=/no/list"], ["input.exclude_list=/no/list", "No such file"]),
        (["output.dir=/proc/nothing"], ["output.dir=/proc/nothing"]),
        (["model=r101_c4", "model.weights=???"], ["model.weights is missing"]),
        (["model.weights=/no/such.pth"], ["/no/such.pth", "No such file"]),
        (["model.config_file=/no/such.yaml"], ["/no/such.yaml", "No such file"]),
        (["input.dir=a=b"], ["quotes"]),
    ],
)
def test_mistakes_are_one_line_that_names_the_key(tmp_path, overrides, expected):
    given = {o.split("=")[0] for o in overrides}
    defaults = {
        "model": "vmb",
        "model.config_file": support.yaml_path(TINY_FPN),
        "model.weights": support.vmb_checkpoint(TINY_FPN),
        "input.dir": goldens.image_path("coffee.png"),
        "output.dir": tmp_path,
    }
    if overrides in ([], ["input.dir="]):
        del defaults["input.dir"]
    rest = [f"{key}={value}" for key, value in defaults.items() if key not in given]
    done = support.extract(*overrides, *rest)
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
    assert done.stderr.startswith("error: ")
    assert all(text in done.stderr for text in expected)


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


def test_full_disk_is_one_line_and_what_was_written_stays(tmp_path, photographs):
    out = tmp_path / "out"
    options = ("input.end_index=1",)
    assert support.extract_tiny(TINY_FPN, photographs, out, *options).returncode == 0
    before = {p.name: p.read_bytes() for p in out.iterdir()}
    with support.file_size_limit(20_000):
        done = support.extract_tiny(TINY_FPN, photographs, out)
    assert done.returncode == 2
    assert "can't be written: File too large" in done.stderr.splitlines()[-1]
    assert {p.name: p.read_bytes() for p in out.iterdir()} == before


def test_help_names_every_option():
    done = support.extract("--help")
    assert done.returncode == 0
    for option in ("exclude_list", "start_index", "num_features", "batching", "device", "x152_c4"):
        assert option in done.stdout


def test_runs_from_any_folder_and_leaves_nothing_there(tmp_path):
    source = shutil.copy(goldens.image_path("coffee.png"), tmp_path / "coffee.png")
    work = tmp_path / "work"
    work.mkdir()
    done = support.run_tool(
        support.ROOT / "tools" / "extract.py",
        "model=vmb",
        f"model.config_file={support.yaml_path(TINY_FPN)}",
        f"model.weights={support.vmb_checkpoint(TINY_FPN)}",
        f"input.dir={source}",
        cwd=work,
        VMB_D2_CACHE=support.scratch() / "cache",
    )
    assert done.returncode == 0, done.stderr
    assert sorted(str(p.relative_to(work)) for p in work.rglob("*")) == [
        "output",
        "output/coffee.npy",
        "output/coffee_info.npy",
    ]
