"""A program that has nothing to extract, or is used wrongly, ends without loading PyTorch."""

import json

import pytest
import support

from reference import goldens

# The program, and then its exit status and which of the modules it has imported.
WATCHED = """
import json, runpy, sys
program = sys.argv.pop(1)
sys.path.insert(0, "tools")
status = 0
try:
    runpy.run_path(f"tools/{program}.py", run_name="__main__")
except SystemExit as end:
    status = end.code
print(json.dumps([status, "torch" in sys.modules]))
"""
COFFEE = goldens.image_path("coffee.png")


def watched(program, *arguments):
    """The exit status, whether torch was imported, and all that was printed."""
    cache = support.scratch() / "cache"
    done = support.run_tool("-c", WATCHED, program, *arguments, VMB_D2_CACHE=cache)
    return *json.loads(done.stdout.splitlines()[-1]), done.stdout + done.stderr


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """An output folder in which coffee.png is done."""
    out = tmp_path_factory.mktemp("done") / "out"
    status, loaded, text = watched("extract", *options(out))
    assert (status, loaded) == (0, True), text
    return out


def options(out, *more):
    return [*support.tiny_options(support.TINY_FPN, COFFEE, out), "output.format=[mmf,lmdb]", *more]


@pytest.mark.slow
def test_with_nothing_to_do(done):
    status, loaded, text = watched("extract", *options(done))
    assert "nothing to do, 1 images are there" in text
    assert (status, loaded) == (0, False)
    status, loaded, text = watched("extract", *options(done, "extract.num_features=36"))
    assert "holds features of other settings" in text
    assert "output.allow_mismatch=true" in text
    assert (status, loaded) == (2, False)


@pytest.mark.parametrize("program", ["pack", "status"])
def test_help(program):
    status, loaded, text = watched(program, "--help")
    assert (status, loaded) == (0, False)
    assert f"python tools/{program}.py" in text


@pytest.mark.parametrize("mistake", ["modle=x152", "input.dir=/no/such"])
def test_mistakes(tmp_path, mistake):
    given = [o for o in options(tmp_path / "out") if o.split("=")[0] != mistake.split("=")[0]]
    status, loaded, text = watched("extract", *given, mistake)
    assert (status, loaded) == (2, False)
    assert "error: " in text
