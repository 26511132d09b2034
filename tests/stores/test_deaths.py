"""kill -9 at random moments, again and again: nothing lost, nothing double, nothing half."""

import re
import subprocess
import time

import pytest
import support
from fakes import FakeExtractor, small_images

from vmb_d2.engine.job import ExtractionJob
from vmb_d2.engine.pipeline import MOST_UNWRITTEN
from vmb_d2.output.open_stores import open_reader
from vmb_d2.stores import FORMATS

IMAGES, DEATHS = 60, 25


def contents(folder):
    """{(format, feature, image): its regions} of all stores of a run with two features."""
    found = {}
    for name in FORMATS:
        for feature in ("fc6", "fc7"):
            with open_reader(folder / feature, name) as reader:
                names = list(reader.names())
                assert sorted(set(names)) == sorted(names)
                found.update({(name, feature, n): reader.read(n) for n in names})
    return found


@pytest.mark.slow
def test_a_job_that_dies_and_dies_again(tmp_path):
    images = small_images(tmp_path / "in", IMAGES)
    done = support.run_tool(
        "tests/support/programs/dying_job.py",
        tmp_path / "in",
        tmp_path / "out",
        DEATHS,
        0,
        PYTHONPATH=support.TEST_PATH,
    )
    assert done.returncode == 0, done.stderr
    asked, deaths = map(int, re.search(r"asked (\d+), died (\d+)", done.stdout).groups())
    assert deaths >= 3  # or it was never disturbed
    # Each death costs the batches that were not yet written, and no other image is computed twice.
    assert IMAGES <= asked <= IMAGES + 2 * deaths * (MOST_UNWRITTEN + 1)

    extractor = FakeExtractor(feature_names=["fc6", "fc7"])
    job = ExtractionJob(tmp_path / "alone", list(FORMATS), options=extractor.options)
    job.run(images, lambda: extractor)
    expected, found = contents(tmp_path / "alone"), contents(tmp_path / "out")
    assert found.keys() == expected.keys()
    assert len(found) == IMAGES * 2 * len(FORMATS)
    for key in expected:
        support.assert_same_regions(found[key], expected[key])
    leftovers = [p for p in (tmp_path / "out").rglob("*") if p.suffix in (".tmp", ".journal")]
    assert leftovers == []


@pytest.mark.slow
def test_the_app_itself_is_killed_and_goes_on(tmp_path):
    """The real network, killed as soon as the first image is there."""
    source = support.links(tmp_path / "in", "coffee.png", "rocket.jpg", "chelsea.png")
    out = tmp_path / "out"
    options = ["output.format=[lmdb,mmf]", "extract.num_features=20"]
    command = support.tiny_command(support.TINY_FPN, source, out, *options)
    with subprocess.Popen(command, cwd=support.ROOT, stdout=subprocess.DEVNULL) as process:
        while not list(out.glob("*_info.npy")) and process.poll() is None:
            time.sleep(0.01)
        process.kill()
    done = support.extract_tiny(support.TINY_FPN, source, out, *options)
    assert done.returncode == 0, done.stderr
    alone = tmp_path / "alone"
    assert support.extract_tiny(support.TINY_FPN, source, alone, *options).returncode == 0
    for name in ("mmf", "lmdb"):
        with open_reader(out, name) as a, open_reader(alone, name) as b:
            assert sorted(a.names()) == sorted(b.names()) == ["chelsea", "coffee", "rocket"]
            for image in a.names():
                support.assert_same_regions(a.read(image), b.read(image))
    assert '"died"' in (out / "manifest.json").read_text()
