"""The full-size models, end to end through tools/extract.py, against the original's goldens.

Tolerances as in test_extract_goldens.py. Takes about 1.5 minutes a model on two CPU cores and up to
6 GB of memory, and 2 GB of disk that is freed after each.
"""

import shutil

import pytest
import support
import torch
from reference import goldens
from test_extract_goldens import check


@pytest.mark.parametrize("model", support.FULL_MODELS)
def test_golden(tmp_path, model):
    weights = tmp_path / "vmb.pth"
    torch.save({"model": support.vmb_state(model)}, weights)
    ((path, _, image),) = goldens.find(rf"{model}\.seed0\.bs1\.")
    try:
        done = support.extract(
            f"model={model}",
            f"model.weights={weights}",
            f"input.dir={goldens.image_path(image)}",
            f"output.dir={tmp_path / 'out'}",
            f"cache_dir={tmp_path / 'cache'}",
        )
        assert done.returncode == 0, done.stderr
        check(path, tmp_path / "out", image)
    finally:
        weights.unlink()
        shutil.rmtree(tmp_path / "cache", ignore_errors=True)
