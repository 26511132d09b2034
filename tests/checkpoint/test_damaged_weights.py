"""Files that are no checkpoint, or whose weights can't be right: refused by what is wrong."""

import gzip
import pickle
import random
import tarfile
import zipfile

import numpy as np
import pytest
import support
import torch
from support import TINY_FPN as TINY
from support import saved

from vmb_d2.errors import CheckpointError
from weights_conversion import checkpoint_file
from weights_conversion.convert import convert_checkpoint

FC6 = "roi_heads.box.feature_extractor.fc6.weight"
FC1 = "roi_heads.box_head.fc1.weight"


def zipped(folder, content):
    path = folder / "in.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("x152.pth", content)
    return path.read_bytes()


def tarred(folder, content):
    (folder / "x152.pth").write_bytes(content)
    with tarfile.open(folder / "in.tar", "w") as archive:
        archive.add(folder / "x152.pth", "x152.pth")
    return (folder / "in.tar").read_bytes()


# As Caffe2's Detectron writes them
CAFFE2 = pickle.dumps({"cfg": "MODEL: {}", "blobs": {"conv1_w": np.ones((4, 3, 7, 7))}}, 2)
LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a21\nsize 825758000\n"
NONE = "no PyTorch checkpoint, or a damaged one"
FOREIGN = {
    "HTML": (lambda f, whole: b"\n<!DOCTYPE html>\n<html>", "a web page.*download it again"),
    "LFS": (lambda f, whole: LFS, "a Git LFS pointer.*git lfs pull"),
    "zip": (zipped, "an archive: unpack"),
    "tar": (tarred, "an archive: unpack"),
    "gzip": (lambda f, whole: gzip.compress(whole), "a compressed file: unpack"),
    "Caffe2": (lambda f, whole: CAFFE2, "Caffe2's blobs.*c2_to_pt.py"),
    "yaml": (lambda f, whole: b"MODEL:\n  WEIGHT: x", NONE),
    "random": (lambda f, whole: bytes(range(256)) * 40, NONE),
    "empty": (lambda f, whole: b"", "no whole checkpoint"),
    "truncated": (lambda f, whole: whole[: len(whole) // 2], "no whole checkpoint"),
}


@pytest.mark.parametrize("kind", list(FOREIGN))
def test_what_the_file_is_and_what_to_do(tmp_path, kind):
    content, message = FOREIGN[kind]
    path = saved(tmp_path, {"w": torch.ones(2)})
    path.write_bytes(content(tmp_path, path.read_bytes()))
    with pytest.raises(CheckpointError, match=message) as caught:
        checkpoint_file.read_checkpoint(path)
    text = str(caught.value)
    assert text.startswith(f"{path}: ")
    assert "unsafe" not in text
    assert "\n" not in text


@pytest.mark.parametrize(
    ("name", "message"), [("", "Is a directory"), ("no.pth", "No such file or directory")]
)
def test_what_is_no_file(tmp_path, name, message):
    with pytest.raises(CheckpointError, match=message):
        checkpoint_file.read_checkpoint(tmp_path / name)


def with_other_byte(path, tensor):
    """Change the last byte of the tensor's in the file."""
    content, values = path.read_bytes(), tensor.numpy().tobytes()
    assert content.count(values) == 1
    end = content.index(values) + len(values)
    path.write_bytes(content[: end - 1] + bytes([content[end - 1] ^ 1]) + content[end:])


def test_a_wrong_checksum(tmp_path, state, model):
    source, target = saved(tmp_path, support.with_training_state(state)), tmp_path / "out.pth"
    with_other_byte(source, state[FC6])
    with pytest.raises(
        CheckpointError, match=rf"damaged \(wrong checksum of {FC6}\); delete it, and"
    ):
        convert_checkpoint(source, target, model)
    assert not target.exists()


def test_files_without_checksums_are_read(tmp_path, state, model):
    torch.serialization.set_crc32_options(False)
    try:
        source = saved(tmp_path, state)
    finally:
        torch.serialization.set_crc32_options(True)
    convert_checkpoint(source, tmp_path / "out.pth", model)


@pytest.mark.parametrize(
    ("value", "dtype"),
    [
        (float("nan"), torch.float32),
        (-float("inf"), torch.bfloat16),
    ],
)
def test_values_that_are_no_numbers_name_the_tensor(tmp_path, state, model, value, dtype):
    state = {k: v.to(dtype) for k, v in state.items()}
    state[FC6][3, 5] = value
    with pytest.raises(CheckpointError, match=f"NaN or infinite values in {FC6}$"):
        convert_checkpoint(saved(tmp_path, {"model": state}), tmp_path / "out.pth", model)
    assert not (tmp_path / "out.pth").exists()


@pytest.mark.parametrize(
    ("damage", "message"), [("checksum", "wrong checksum of "), ("values", f"infinite .*{FC1}$")]
)
def test_a_converted_checkpoint_given_by_hand(tmp_path, model, damage, message):
    path = tmp_path / "converted.pth"
    convert_checkpoint(support.vmb_checkpoint(TINY), path, model)
    checkpoint = torch.load(path, weights_only=True)
    if damage == "values":
        checkpoint["model"][FC1][0] = float("nan")
        torch.save(checkpoint, path)
    else:
        with_other_byte(path, checkpoint["model"][FC1])
    with pytest.raises(CheckpointError, match=message):
        support.load_model(path, cache_dir=tmp_path / "cache")


@pytest.mark.slow
@pytest.mark.parametrize("zipped", [True, False])
def test_randomly_damaged_checkpoints_are_refused_or_read(tmp_path, zipped):
    """From a zip file, which has checksums, only as they were."""
    rng = random.Random(0)
    content = {"model": {"a.weight": torch.rand(30, 4), "b": torch.zeros(2)}, "iteration": 3}
    path = saved(tmp_path, content, _use_new_zipfile_serialization=zipped)
    whole, refused = path.read_bytes(), 0
    for _ in range(400):
        damaged = bytearray(whole)
        for _ in range(rng.randrange(1, 4)):
            damaged[rng.randrange(len(damaged))] ^= 1 << rng.randrange(8)
        path.write_bytes(damaged[: rng.choice([len(damaged), rng.randrange(1, len(damaged))])])
        try:
            state = checkpoint_file.state_dict_of(checkpoint_file.read_checkpoint(path), path)
            checkpoint_file.check_content(state, path)
        except CheckpointError as error:
            assert "\n" not in str(error)
            refused += 1
        else:
            assert not zipped or state.keys() == content["model"].keys()
            assert not zipped or all(torch.equal(state[k], v) for k, v in content["model"].items())
    assert 200 < refused < 400
