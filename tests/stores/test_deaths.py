"""kill -9 at random moments, again and again: nothing lost, nothing double, nothing half."""

import re

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
