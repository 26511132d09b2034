"""Everything works where the file system has no locks, as some network file systems."""

import platform
import subprocess
import sys

import pytest
import support
from programs import lockless
from support import TINY_FPN

from reference.goldens import image_path
from vmb_d2.stores import FORMATS

pytestmark = pytest.mark.skipif(
    platform.machine() not in lockless.MACHINES or sys.platform != "linux",
    reason="how the kernel is asked to refuse locks is known for Linux on x86_64 and aarch64 only",
)

PACK = """
import sys
from vmb_d2.packing.job import pack
from vmb_d2.output.open_stores import open_reader
from vmb_d2.stores import FORMATS

for name, format_ in FORMATS.items():
    folder = sys.argv[1] + ("/shards/0-of-1" if format_.one_file else "")
    pack([folder], name, f"{sys.argv[2]}/{name}", source_format=name)
    with open_reader(f"{sys.argv[2]}/{name}") as reader:
        print(*sorted(reader.names()))
"""


def without_locks(*command):
    program = [
        sys.executable,
        str(support.ROOT / "tests/support/programs/lockless.py"),
        *map(str, command),
    ]
    return subprocess.run(program, capture_output=True, text=True, cwd=support.ROOT, timeout=300)


@pytest.mark.slow
def test_extraction_packing_and_reading(tmp_path):
    code = "import fcntl, sys; fcntl.{}(sys.stdin, fcntl.LOCK_EX | fcntl.LOCK_NB)"
    for call in ("flock", "lockf"):
        done = without_locks(sys.executable, "-c", code.format(call))
        assert "No locks available" in done.stderr
    photographs = tmp_path / "in"
    photographs.mkdir()
    for name in ("coffee.png", "rocket.jpg"):
        (photographs / name).write_bytes(image_path(name).read_bytes())
    classes = support.class_names_file(tmp_path, support.description(TINY_FPN).num_classes - 1)
    options = support.tiny_options(TINY_FPN, photographs, tmp_path / "out")
    done = without_locks(
        sys.executable,
        "tools/extract.py",
        *options,
        "shard.count=1",
        "shard.index=0",
        f"output.format=[{','.join(FORMATS)}]",
        f"output.class_names={classes}",
        f"cache_dir={tmp_path / 'cache'}",
    )
    assert done.returncode == 0, done.stderr
    done = without_locks(sys.executable, "-c", PACK, tmp_path / "out", tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["coffee", "rocket"] * len(FORMATS)
