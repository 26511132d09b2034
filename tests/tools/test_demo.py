"""`make demo-released` against a server of this machine: a tiny model under the released names."""

import functools
import http.server
import json
import re
import shutil
import threading

import numpy as np
import pytest
import support
from html_page import Parser

from vmb_d2.stores.mmf import MMFReader

pytestmark = pytest.mark.slow
WEIGHTS = "pythia/detectron_model/detectron_model_x152.pth"
YAML = "pythia/detectron_model/detectron_model_x152.yaml"
CLASSES = "pythia/data/visual_genome_categories.json"
PHOTOGRAPHS = ["camera", "chelsea", "coffee", "rocket"]


@pytest.fixture
def mirror(tmp_path):
    """The folder that is served in place of what was released; ``url`` is the server's."""
    folder = tmp_path / "mirror"
    for file in (WEIGHTS, CLASSES):
        (folder / file).parent.mkdir(parents=True)
    shutil.copy(support.vmb_checkpoint(support.TINY_FPN), folder / WEIGHTS)
    shutil.copy(support.yaml_path(support.TINY_FPN), folder / YAML)
    count = support.description(support.TINY_FPN).num_classes - 1
    names = [{"id": i, "name": f"kind {i} of thing"} for i in range(1, count + 1)]
    (folder / CLASSES).write_text(json.dumps({"categories": names}))
    return folder


@pytest.fixture
def demo(tmp_path, mirror):
    """Runs the demo with that server."""
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=mirror)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield functools.partial(
            support.run_tool,
            "demo/released.py",
            "--output",
            tmp_path / "output",
            VMB_D2_MIRROR=f"http://127.0.0.1:{server.server_port}",
            VMB_D2_CACHE=tmp_path / "cache",
        )
        server.shutdown()
        thread.join()


@pytest.fixture
def page(tmp_path):
    """The page's path; one of an earlier run is there."""
    path = tmp_path / "output" / "released" / "page" / "index.html"
    path.parent.mkdir(parents=True)
    path.write_text("an earlier run's")
    return path


def most_confident(features, name):
    """The five classes, one after the other."""
    rows = MMFReader(features).read(name).cls_prob
    highest = {column: max(row[column] for row in rows) for column in range(rows.shape[1])}
    return sorted(highest.items(), key=lambda item: -item[1])[:5]


def test_the_page_of_the_photographs_and_their_classes(demo, page):
    done = demo()
    assert done.returncode == 0, done.stderr
    assert f"The photographs with their boxes: {page}\n" in done.stdout
    assert "a cat in chelsea.png" in done.stdout
    images = Parser(page).images()
    assert sorted(image["name"] for image in images) == PHOTOGRAPHS
    assert "kind 7 of thing" in page.read_text()
    features = page.parents[1] / "features"
    for photograph in PHOTOGRAPHS:
        best = [f"kind {i + 1} of thing {p:.2f}" for i, p in most_confident(features, photograph)]
        assert f"\n{photograph}: {', '.join(best)}\n" in done.stdout
    assert np.load(features / "coffee.npy").shape[0] == 100


def test_weights_that_cant_be_downloaded(demo, mirror, page, tmp_path):
    (mirror / WEIGHTS).unlink()
    done = demo()
    assert done.returncode == 2
    (line,) = [line for line in done.stderr.splitlines() if WEIGHTS in line]
    assert "can't be downloaded (HTTP 404" in line
    assert re.search(rf"put it at {tmp_path}/cache/\S+/{WEIGHTS}$", line)
    assert "Traceback" not in done.stderr
    assert not page.exists()
