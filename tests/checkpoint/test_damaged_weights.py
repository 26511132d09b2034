"""Files that are no checkpoint, or whose weights can't be right: refused by what is wrong."""

import gzip
import json
import pickle
import random
import struct
import tarfile
import zipfile

import numpy as np
import pytest
import support
import torch
from support import TINY_FPN as TINY
from support import saved

from vmb_d2.checkpoint.pretrained import load_model
from vmb_d2.errors import CheckpointError
from weights_conversion import checkpoint_file
from weights_conversion.convert import convert_checkpoint, main

FC6 = "roi_heads.box.feature_extractor.fc6.weight"
FC1 = "roi_heads.box_head.fc1.weight"


def zipped(folder, *members):
    path = folder / "in.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for member in members:
            archive.writestr(member, b"content")
    return path.read_bytes()


def tarred(folder, mode):
    inside, path = saved(folder, {"w": torch.ones(2)}, "fc7_w.pkl"), folder / "in.tar"
    with tarfile.open(path, mode) as archive:
        archive.add(inside, "vmb_weights/fc7_w.pkl")
    return path.read_bytes()


def caffe2(protocol):
    """As Caffe2's Detectron writes them."""
    blobs = {"conv1_w": np.ones((4, 3, 7, 7), np.float32), "fc6_b": np.zeros(9, np.float32)}
    return pickle.dumps({"cfg": "MODEL: {}", "blobs": blobs}, protocol)


def zoo():
    model = {"stem.conv1.weight": np.ones((4, 3, 7, 7), np.float32)}
    return pickle.dumps({"model": model, "__author__": "MSRA", "matching_heuristics": True})


def safetensors():
    header = json.dumps({"w": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}).encode()
    return struct.pack("<Q", len(header)) + header + bytes(8)


LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a21\nsize 825758000\n"
FOREIGN = {
    "HTML": (lambda f: b"\n<!DOCTYPE html>\n<html>", "a web page", "download it again"),
    "HTML, old": (lambda f: b"\xef\xbb\xbf<HTML><body>", "a web page", "download it again"),
    "XML": (lambda f: b'<?xml version="1.0"?><Error>AccessDenied</Error>', "web page", "download"),
    "LFS": (lambda f: LFS, "a Git LFS pointer", "git lfs pull"),
    "zip": (lambda f: zipped(f, "x/x152.pth", "README"), "x/x152.pth, README", "unpack"),
    "tar": (lambda f: tarred(f, "w"), "vmb_weights/fc7_w.pkl", "unpack"),
    "tar.gz": (lambda f: tarred(f, "w:gz"), "vmb_weights/fc7_w.pkl", "unpack"),
    "gzip": (lambda f: gzip.compress(bytes(999)), "a compressed file", "gunzip"),
    "cut zip": (lambda f: zipped(f, "x152.pth")[:40], "without its end", "again"),
    "Caffe2": (lambda f: caffe2(2), "Caffe2's blobs", "c2_to_pt.py"),
    "Caffe2, as text": (lambda f: caffe2(0), "Caffe2's blobs", "c2_to_pt.py"),
    "zoo": (lambda f: zoo(), "Detectron2's model zoo", "a checkpoint of VMB"),
    "pickle": (lambda f: pickle.dumps({"a": [1]}), "a pickle of another program", "of VMB"),
    "safetensors": (lambda f: safetensors(), "a safetensors file", "torch.save"),
    "array": (lambda f: b"\x93NUMPY\x01\x00", "a NumPy array", "torch.save"),
    "HDF5": (lambda f: b"\x89HDF\r\n\x1a\n" + bytes(99), "an HDF5 file", "torch.save"),
    "yaml": (lambda f: b"MODEL:\n  WEIGHT: x", "a text that begins with 'MODEL: WEIGHT:", "give"),
    "empty": (lambda f: b"", "an empty file", "download"),
}


@pytest.mark.parametrize("kind", list(FOREIGN))
def test_what_the_file_is_and_what_to_do(tmp_path, kind):
    content, what, then = FOREIGN[kind]
    path = tmp_path / "in.pth"
    path.write_bytes(content(tmp_path))
    with pytest.raises(CheckpointError) as caught:
        checkpoint_file.read_checkpoint(path)
    text = str(caught.value)
    assert text.startswith(f"{path}: ")
    assert what in text
    assert then in text
    assert "unsafe" not in text
    assert "\n" not in text


def test_a_folder(tmp_path):
    for name in ("README", "a.pth", "z.yaml", "zz"):
        (tmp_path / name).touch()
    with pytest.raises(CheckpointError, match=r"a folder of a\.pth, README, z\.yaml, \.\.\.: give"):
        checkpoint_file.read_checkpoint(tmp_path)


def test_nothing_in_a_pickle_is_run_to_find_out(tmp_path):
    path = tmp_path / "in.pkl"
    runs = support.Runs(str(tmp_path / "ran"))
    path.write_bytes(pickle.dumps({"first": runs, "blobs": {"conv1_w": runs}}, 2))
    with pytest.raises(CheckpointError, match="Caffe2's blobs"):
        checkpoint_file.read_checkpoint(path)
    assert not (tmp_path / "ran").exists()


def with_other_byte(path, tensor):
    """Change the last byte of the tensor's in the file."""
    content, values = path.read_bytes(), tensor.numpy().tobytes()
    assert content.count(values) == 1
    end = content.index(values) + len(values)
    path.write_bytes(content[: end - 1] + bytes([content[end - 1] ^ 1]) + content[end:])


@pytest.mark.parametrize("dry", [True, False])
def test_a_wrong_checksum_names_the_tensor(tmp_path, state, capsys, dry):
    source, target = saved(tmp_path, support.with_training_state(state)), tmp_path / "out.pth"
    with_other_byte(source, state[FC6])
    where = ["--dry-run"] if dry else [str(target)]
    assert main([str(source), *where, "--config", str(support.yaml_path(TINY))]) == 2
    err = capsys.readouterr().err
    assert f"{source}: damaged, download or copy it again: wrong checksum of {FC6}\n" in err
    assert not target.exists()


def test_a_wrong_checksum_of_what_describes_the_tensors(tmp_path, state, model):
    source = saved(tmp_path, state)
    content = source.read_bytes()
    at = content.index(b"fc6.weight")
    source.write_bytes(content[:at] + b"fc8.weight" + content[at + 10 :])
    with pytest.raises(CheckpointError, match=r"damaged, .*data\.pkl"):
        convert_checkpoint(source, tmp_path / "out.pth", model)


def test_what_is_damaged_beside_the_model_is_no_obstacle(tmp_path, state, model):
    moments = torch.rand(1000)
    source = saved(tmp_path, {"model": state, "optimizer": {"moments": moments}})
    with_other_byte(source, moments)
    convert_checkpoint(source, tmp_path / "out.pth", model)


def test_files_without_checksums_are_read(tmp_path, state, model):
    torch.serialization.set_crc32_options(False)
    try:
        source = saved(tmp_path, state)
    finally:
        torch.serialization.set_crc32_options(True)
    convert_checkpoint(source, tmp_path / "out.pth", model)


def test_tensors_that_share_their_memory_are_named_all(tmp_path):
    whole = torch.rand(1000)
    source = saved(tmp_path, {"a": whole[:500], "b": whole[500:], "c": torch.ones(3)})
    with_other_byte(source, whole)
    state = checkpoint_file.state_dict_of(checkpoint_file.read_checkpoint(source), source)
    with pytest.raises(CheckpointError, match=r"checksum of a, b$"):
        checkpoint_file.check_content(state, source)


@pytest.mark.parametrize(
    ("value", "dtype"),
    [
        (float("nan"), torch.float32),
        (float("inf"), torch.float16),
        (-float("inf"), torch.bfloat16),
    ],
)
def test_values_that_are_no_numbers_name_the_tensor(tmp_path, state, model, value, dtype):
    state = {k: v.to(dtype) for k, v in state.items()}
    state[FC6][3, 5] = value
    with pytest.raises(CheckpointError, match=f"NaN or infinite values in {FC6}$"):
        convert_checkpoint(saved(tmp_path, {"model": state}), tmp_path / "out.pth", model)
    assert not (tmp_path / "out.pth").exists()


@pytest.mark.parametrize("damage", ["checksum", "values"])
def test_a_converted_checkpoint_given_by_hand(tmp_path, model, damage):
    path = tmp_path / "converted.pth"
    convert_checkpoint(support.vmb_checkpoint(TINY), path, model)
    checkpoint = torch.load(path, weights_only=True)
    if damage == "values":
        checkpoint["model"][FC1][0] = float("nan")
        torch.save(checkpoint, path)
    else:
        with_other_byte(path, checkpoint["model"][FC1])
    with pytest.raises(CheckpointError, match=f" {FC1}$"):
        load_model(path, cache_dir=tmp_path / "cache")


def test_a_download_that_is_damaged_can_be_deleted(server, tmp_path, state, model):
    source = saved(tmp_path, state)
    with_other_byte(source, state[FC6])
    server.content = source.read_bytes()
    with pytest.raises(CheckpointError, match=f"{FC6}; delete the file to download it again"):
        load_model(server.url, model, cache_dir=tmp_path / "cache")


@pytest.mark.slow
def test_whatever_is_damaged_in_a_zip_file_it_is_refused_or_read_as_it_was(tmp_path):
    rng = random.Random(0)
    content = {"model": {"a.weight": torch.rand(30, 4), "b": torch.zeros(2)}, "iteration": 3}
    path = saved(tmp_path, content)
    whole, refused = path.read_bytes(), 0
    for _ in range(300):
        damaged = bytearray(whole)
        damaged[rng.randrange(len(damaged))] ^= 1 << rng.randrange(8)
        path.write_bytes(damaged)
        try:
            state = checkpoint_file.state_dict_of(checkpoint_file.read_checkpoint(path), path)
            checkpoint_file.check_content(state, path)
        except CheckpointError as error:
            assert "\n" not in str(error)
            refused += 1
        else:
            assert state.keys() == content["model"].keys()
            assert all(torch.equal(state[k], v) for k, v in content["model"].items())
    assert 150 < refused < 300


@pytest.mark.parametrize("wrapper", ["state_dict", "model"])
def test_the_state_dict_of_others_is_read(tmp_path, state, model, wrapper):
    lightning = {wrapper: {f"model.{k}": v for k, v in state.items()}, "epoch": 3, "callbacks": {}}
    convert_checkpoint(saved(tmp_path, lightning), tmp_path / "out.pth", model)
    convert_checkpoint(support.vmb_checkpoint(TINY), tmp_path / "own.pth", model)
    found, own = (torch.load(tmp_path / n, weights_only=True) for n in ("out.pth", "own.pth"))
    assert all(torch.equal(found["model"][k], v) for k, v in own["model"].items())
