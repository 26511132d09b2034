"""tools/extract.py as users run it: resuming, bad images, mistakes, no network, full disk."""

import contextlib
import json
import os
import pty
import shutil
import signal
import subprocess
import time

import pytest
import support
from PIL import Image
from support import TINY_FPN, links

from reference import goldens
from vmb_d2.output.open_stores import open_reader

TINY_VINVL = "tiny_vinvl"

pytestmark = pytest.mark.slow  # each run loads PyTorch


def stored(folder):
    """Content and time of the features' files."""
    return {p.name: (p.read_bytes(), p.stat().st_mtime_ns) for p in folder.glob("*.npy")}


@pytest.fixture
def photographs(tmp_path):
    return links(tmp_path / "in", "coffee.png", "rocket.jpg", "chelsea.png")


def test_done_images_are_skipped_and_half_done_ones_are_not(tmp_path, photographs):
    out = tmp_path / "out"
    assert support.extract_tiny(TINY_FPN, photographs, out).returncode == 0
    before = stored(out)
    assert len(before) == 6
    (out / "rocket.npy").unlink()
    done = support.extract_tiny(TINY_FPN, photographs, out)
    assert "1 extracted, 2 there before" in done.stdout
    after = stored(out)
    changed = [name for name in before if before[name] != after[name]]
    assert changed == sorted(changed) == [n for n in before if n.startswith("rocket")]
    assert {n: c for n, (c, _) in before.items()} == {n: c for n, (c, _) in after.items()}
    done = support.extract_tiny(TINY_FPN, photographs, out)
    assert done.returncode == 0
    assert "nothing to do, 3 images are there" in done.stdout


def test_bad_images_are_recorded_and_the_run_goes_on(tmp_path, photographs):
    out = tmp_path / "out"
    broken = photographs / "broken.jpg"
    broken.write_bytes(goldens.image_path("rocket.jpg").read_bytes()[:5000])
    (photographs / "text.png").write_text("no image")
    (photographs / "empty.png").write_bytes(b"")
    (photographs / "nothing.jpg").write_bytes(b"P6\n0 5\n255\n")
    Image.new("RGB", (3000, 1)).save(photographs / "line.png")
    Image.new("1", (20_000, 20_000)).save(photographs / "bomb.png")
    os.symlink(tmp_path / "nowhere.png", photographs / "dangling.png")
    os.symlink(photographs / "loop.png", photographs / "loop.png")
    os.mkfifo(photographs / "pipe.png")
    (photographs / "album.png").mkdir()
    (photographs / "other.webp").touch()
    done = support.extract_tiny(TINY_FPN, photographs, out, "extract.batch_size=2")
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == (
        "error: 9 of 12 images failed; 3 extracted, 0 there before"
    )
    (line,) = [x for x in done.stdout.splitlines() if "not taken" in x]
    assert f"{photographs}: 12 images (2 broken links among them); not taken: 1 .webp (" in line
    assert line.endswith("take those that Pillow reads), 1 folder named like an image")
    reasons = {
        "broken.jpg": "truncated",
        "text.png": "cannot identify image file",
        "empty.png": "cannot identify image file",
        "nothing.jpg": "cannot identify image file",
        "line.png": "3000 x 1 pixels: too narrow",
        "bomb.png": "decompression bomb",
        "dangling.png": "No such file or directory",
        "loop.png": "Too many levels of symbolic links",
        "pipe.png": "is no file",
    }
    for name, reason in reasons.items():
        (line,) = [x for x in done.stdout.splitlines() if f"failed: {photographs / name}" in x]
        assert reason in line
    failures = [json.loads(x) for x in (out / "failures.jsonl").read_text().splitlines()]
    assert {os.path.basename(f["path"]) for f in failures} == set(reasons)
    for failure in failures:
        assert reasons[os.path.basename(failure["path"])] in failure["reason"]
        assert failure["stage"] == "read"
    assert len(stored(out)) == 6
    # What was mended is no failure any more; what wasn't is tried again and stays one.
    Image.new("RGB", (40, 30)).save(broken)
    done = support.extract_tiny(TINY_FPN, photographs, out)
    assert done.stderr.splitlines()[-1] == (
        "error: 8 of 12 images failed; 1 extracted, 3 there before"
    )
    failures = [json.loads(x) for x in (out / "failures.jsonl").read_text().splitlines()]
    assert {os.path.basename(f["path"]) for f in failures} == set(reasons) - {"broken.jpg"}


def test_folders_below_and_names_by_path(tmp_path, photographs):
    (photographs / "sub.d").mkdir()
    (photographs / "chelsea.png").rename(photographs / "sub.d" / "chelsea.1.PNG")
    (photographs / "rocket.jpg").rename(photographs / "sub.d" / "chelsea.2.jpg")
    out = tmp_path / "out"
    (tmp_path / "exclude.txt").write_text("sub.d/chelsea.2.jpg\n")
    options = ["input.recursive=true", "output.format=[mmf,npz,lmdb]", "extract.num_features=5"]
    exclude = f"input.exclude_list={tmp_path / 'exclude.txt'}"
    done = support.extract_tiny(TINY_FPN, photographs, out, *options, exclude)
    assert done.returncode == 0, done.stderr
    for name in ("mmf", "npz", "lmdb"):
        with open_reader(out, name) as reader:
            assert sorted(reader.names()) == ["coffee", "sub.d/chelsea.1"]
    assert (out / "sub.d" / "chelsea.1.npy").exists()
    done = support.extract_tiny(TINY_FPN, photographs, out, *options, "input.names=mmf")
    assert done.returncode == 2
    assert "(both chelsea)" in done.stderr


def label_map(folder, classes, attributes):
    path = folder / "map.json"
    names = {"idx_to_label": ("thing", classes), "idx_to_attribute": ("kind", attributes)}
    content = {
        key: {str(i + 1): f"{name} {i}" for i in range(number)}
        for key, (name, number) in names.items()
    }
    path.write_text(json.dumps(content))
    return path


def test_oscar_gets_the_names_of_the_attributes(tmp_path, photographs):
    model = support.description(TINY_VINVL)
    names = label_map(tmp_path, model.num_classes - 1, model.num_attributes)

    def labels(folder, *options):
        options = ["output.format=[oscar,mmf]", "input.end_index=1", *options]
        done = support.extract_tiny(TINY_VINVL, photographs, folder, *options)
        assert done.returncode == 0, done.stderr
        ((_, content),) = [
            row.split("\t") for row in (folder / "oscar" / "labels.tsv").read_text().splitlines()
        ]
        with open_reader(folder, "mmf") as mmf:
            (name,) = mmf.names()
            return json.loads(content), mmf.read(name), done.stdout

    found, regions, _ = labels(tmp_path / "named", f"output.class_names={names}")
    assert [label["class"] for label in found] == [f"thing {k}" for k in regions.objects]
    pairs = zip(regions.attribute_ids, regions.attribute_scores, strict=True)
    expected = [[f"kind {k}" for k in ids[scores > 0]] for ids, scores in pairs]
    assert any(expected)
    assert [label["attributes"] for label in found] == expected
    stores = json.loads((tmp_path / "named" / "manifest.json").read_text())["stores"]
    keys = ("class_names", "attribute_names")
    assert [[store.get(key) for key in keys] for store in stores] == [[str(names)] * 2] * 2
    found, regions, log = labels(tmp_path / "unnamed")
    assert "classes go by number" in log
    assert [label["class"] for label in found] == [f"class {k}" for k in regions.objects]
    assert not any("attributes" in label for label in found)


@pytest.mark.parametrize(
    ("option", "reason"),
    [
        ("output.class_names", "has 2 names, but there are 100 classes: "),
        ("output.attribute_names", "has 2 names, but there are 40 attributes: "),
    ],
)
def test_names_that_dont_fit_end_the_run_before_anything_is_written(
    tmp_path, photographs, option, reason
):
    names = tmp_path / "few.txt"
    names.write_text("red\nblue\n")
    options = ["output.format=[mmf,oscar]", f"{option}={names}"]
    done = support.extract_tiny(TINY_VINVL, photographs, tmp_path / "out", *options)
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].startswith(f"error: {names} {reason}")
    assert not list((tmp_path / "out").rglob("*.npy"))


def test_the_form_of_layers_is_recorded_and_may_change_between_runs(tmp_path, photographs):
    out = tmp_path / "out"
    for value in ("false", "true"):
        (out / "rocket.npy").unlink(missing_ok=True)
        options = (f"extract.layer_by_layer={value}", f"input.dir={photographs / 'rocket.jpg'}")
        done = support.extract_tiny(TINY_FPN, None, out, *options)
        assert done.returncode == 0, done.stderr
    runs = json.loads((out / "manifest.json").read_text())["runs"]
    assert [run["layer_by_layer"] for run in runs] == [False, True]


@pytest.mark.parametrize(("signum", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_the_run_cleanly(tmp_path, photographs, signum, status):
    out = tmp_path / "out"
    (tmp_path / "in" / "horse.png").symlink_to(goldens.image_path("horse.png"))
    command = support.tiny_command(TINY_FPN, photographs, out, "output.format=[mmf,lmdb]")
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, cwd=support.ROOT, **pipes) as process:
        while not (out / "chelsea.npy").exists() and process.poll() is None:
            time.sleep(0.01)
        process.send_signal(signum)
        stdout, stderr = process.communicate(timeout=300)
    assert process.returncode == status, stderr
    assert "Traceback" not in stderr
    assert stderr.splitlines()[-1].endswith("run the same command to go on")
    count = len(stored(out)) // 2
    assert 1 <= count < 4
    assert f"stopped: {count} of 4 images are stored, 0 failed" in stdout
    with open_reader(out, "lmdb") as reader:
        assert len(list(reader.names())) == count
    done = support.extract_tiny(TINY_FPN, photographs, out, "output.format=[mmf,lmdb]")
    assert f"{4 - count} extracted, {count} there before" in done.stdout


def test_without_a_terminal_progress_is_lines(tmp_path, photographs):
    (photographs / "text.png").write_text("no image")
    done = support.extract_tiny(TINY_FPN, photographs, tmp_path / "out")
    lines = [x for x in done.stdout.splitlines() if " of 4 images, " in x]
    assert lines[0].startswith("1 of 4 images, 0 failed, ")
    assert lines[-1].startswith("4 of 4 images, 1 failed, ")
    assert all(" left" in x and ("images/s" in x or "s/image" in x) for x in lines)
    assert "\r" not in done.stderr
    assert "they will take about" in done.stdout


def test_on_a_terminal_progress_is_a_bar(tmp_path, photographs):
    (photographs / "a.png").write_text("no image")
    main, terminal = pty.openpty()
    command = support.tiny_command(TINY_FPN, photographs, tmp_path / "out")
    with subprocess.Popen(command, cwd=support.ROOT, stdout=subprocess.PIPE, stderr=terminal):
        os.close(terminal)
        shown = b""
        with contextlib.suppress(OSError):  # the terminal's other end is closed
            while chunk := os.read(main, 1000):
                shown += chunk
    os.close(main)
    assert b"4/4 [" in shown
    assert b"failed=1" in shown


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
        "output/manifest.json",
    ]
