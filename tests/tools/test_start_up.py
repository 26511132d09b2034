"""What tools/extract.py imports: nothing of the network, unless there is something to extract."""

import json
import shutil

import pytest
import support

from reference import goldens

# The program, and then its exit status and which of the modules it has imported.
WATCHED = """
import json, runpy, sys
sys.path.insert(0, "tools")
status = 0
try:
    runpy.run_path("tools/extract.py", run_name="__main__")
except SystemExit as end:
    status = end.code
found = [name for name in ("torch", "torchvision", "detectron2") if name in sys.modules]
print(json.dumps([status or 0, found]))
"""
FORMATS = "output.format=[mmf,npz,lmdb,hdf5,lxmert_tsv]"
NETWORK = ["torch", "torchvision", "detectron2"]


def watched(*options):
    """The exit status, what is imported of the network, and all that was printed."""
    done = support.run_tool("-c", WATCHED, *options, VMB_D2_CACHE=support.scratch() / "cache")
    status, found = json.loads(done.stdout.splitlines()[-1])
    return status, found, done.stdout + done.stderr


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """An output folder in which coffee.png is done."""
    out = tmp_path_factory.mktemp("done") / "out"
    status, found, text = watched(*options(out, FORMATS))
    assert (status, found) == (0, NETWORK), text
    return out


def options(out, *more):
    coffee = goldens.image_path("coffee.png")
    return [*support.tiny_options(support.TINY_FPN, coffee, out), *more]


@pytest.mark.parametrize("shard", [[], ["shard.count=1", "shard.index=0"]])
def test_with_nothing_to_do(done, shard):
    if shard:  # its formats with one file are its own
        assert watched(*options(done, FORMATS, *shard))[:2] == (0, NETWORK)
    status, found, text = watched(*options(done, FORMATS, *shard))
    assert "nothing to do, 1 images are there" in text
    assert (status, found) == (0, [])


def test_with_a_batch_size_to_be_found_out_and_nothing_to_do(done):
    status, found, text = watched(*options(done, FORMATS, "extract.batch_size=auto"))
    assert "nothing to do, 1 images are there" in text
    assert (status, found) == (0, [])


@pytest.mark.parametrize("kind", ["coco", "store"])
def test_with_given_boxes_and_nothing_to_do(done, tmp_path, kind):
    path = done / "features.lmdb"
    if kind == "coco":
        images = [{"id": 1, "file_name": "coffee.png"}]
        annotations = [{"image_id": 1, "bbox": [0, 0, 99, 99]}]
        path = tmp_path / "instances.json"
        path.write_text(json.dumps({"images": images, "annotations": annotations}))
        status, found, text = watched(
            *options(tmp_path / "out", f"boxes.file={path}", "boxes.format=xyxy")
        )
        assert (status, found) == (2, [])
        assert "is COCO's annotations, with boxes.format=xywh; leave the option out" in text
    given = options(tmp_path / "out", f"boxes.file={path}")
    assert watched(*given)[:2] == (0, NETWORK)
    assert watched(*given)[:2] == (0, [])


def test_help():
    status, found, text = watched("--help")
    assert (status, found) == (0, [])
    assert "model= is one of" in text


@pytest.mark.parametrize(
    "mistake",
    [
        "modle=x152",
        "input.dir=/no/such",
        "extract.num_features=0",
        "extract.batch_size=0",
        "extract.batch_size=big",
        "extract.feature_name=fc5",
        "output.format=zip",
        "shard.count=8",
        "boxes.file=/no/boxes.json",
    ],
)
def test_mistakes(tmp_path, mistake):
    given = [o for o in options(tmp_path / "out") if o.split("=")[0] != mistake.split("=")[0]]
    status, found, text = watched(*given, mistake)
    assert (status, found) == (2, [])
    assert "error: " in text


def test_settings_that_differ(done, tmp_path):
    shutil.copytree(done, tmp_path / "out")
    status, found, text = watched(*options(tmp_path / "out", "extract.num_features=36"))
    assert (status, found) == (2, [])
    assert "holds features of other settings" in text


def test_the_package_is_complete_where_it_is_needed():
    code = (
        "import sys; sys.path.insert(0, 'tools'); import package_alone, vmb_d2\n"
        "from vmb_d2 import errors\n"
        "assert not hasattr(vmb_d2, 'get_cfg') and 'torch' not in sys.modules\n"
        "package_alone.complete()\n"
        "assert vmb_d2.get_cfg('x152').MODEL.META_ARCHITECTURE == 'VMBRCNN'\n"
        "modeling = sys.modules['vmb_d2.modeling']\n"
        "package_alone.complete()\n"
        "assert sys.modules['vmb_d2.modeling'] is modeling and vmb_d2.errors is errors\n"
        "from detectron2.modeling import META_ARCH_REGISTRY\n"
        "assert META_ARCH_REGISTRY.get('VMBRCNN') is vmb_d2.modeling.VMBRCNN\n"
    )
    done = support.run_tool("-c", code)
    assert (done.returncode, done.stderr) == (0, "")
