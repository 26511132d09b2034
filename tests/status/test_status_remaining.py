"""The commands that finish what a run has left: which they are, and that they do."""

import os
import shlex
import subprocess

import pytest
import support
from fakes import FakeExtractor, small_images
from status_records import (
    fail,
    interrupt,
    leave_lease,
    manifest,
    record_of,
    rewrite,
    rewrite_run,
    run,
    shards,
    spoil,
)

from vmb_d2.output.shards import Shard, source_name
from vmb_d2.packing.job import pack
from vmb_d2.status import next_step, read_status

TOOLS = support.ROOT / "tools"


@pytest.fixture
def images(tmp_path):
    return small_images(tmp_path / "in", 8)


def step(out, here=support.ROOT):
    return next_step(read_status(out), here, TOOLS)


def commands(out, **options):
    return step(out, **options).commands


def words(*parts):
    return shlex.join(["python", "tools/extract.py", *map(str, parts)])


def test_one_command_for_all_that_neither_is_done_nor_runs(images, out):
    run(out, images, shards(8)[0])
    interrupt(out, images, shards(8)[1], after=0)
    fail(out, images, shards(8)[4])
    run(out, images, shards(8)[5])
    (shards(8)[5].folder(out) / "manifest.json").write_text("{")
    run(out, images, shards(8)[7])
    leave_lease(shards(8)[7].folder(out))  # it runs
    following = step(out)
    assert following.what == "finish"
    assert following.unknown == following.remarks == []
    assert following.commands == [
        words("-m", f"output.dir={out}", "shard.count=8", "shard.index=range(1,7)")
    ]


@pytest.mark.parametrize(
    ("done", "choice"),
    [
        ([0, 1, 2, 3, 4, 5, 6], "7"),
        ([0, 1, 2, 3, 4, 7], "5,6"),
        ([0, 1, 2, 3, 7], "4,5,6"),
        ([0, 1, 2, 7], "range(3,7)"),
        ([1, 3], "0,2,4,5,6,7"),
    ],
)
def test_indices_in_a_row_are_a_range(images, out, done, choice):
    for index in done:
        run(out, images, shards(8)[index])
    assert shlex.split(commands(out)[0])[-1] == f"shard.index={choice}"


def test_what_was_asked_for_is_kept_and_quoted(images, out):
    overrides = ["input.dir='a b=c'", "output.format=[mmf,lmdb]", r"x=a\,b\ $HOME", "+y={a:[1,2]}"]
    overrides += ["extract.batch_size=auto"]
    hydra = ["hydra/launcher=slurm", "hydra.launcher.partition='g p u'"]
    first = shards(3)[0]
    run(out, images, first, record=record_of(out, images, first, overrides, hydra))
    (command,) = commands(out)
    expected = [f"output.dir={out}", *overrides, "shard.count=3", "shard.index=1,2", *hydra]
    assert command == words("-m", *expected)
    echoed = subprocess.check_output(["bash", "-c", command.replace("python", "printf '%s\\n'", 1)])
    assert echoed.decode().splitlines() == ["tools/extract.py", "-m", *expected]


def test_shards_that_were_asked_for_otherwise_have_commands_of_their_own(images, out):
    first, second, third, *_ = shards(5)
    interrupt(out, images, first, after=0)
    small = record_of(out, images, second, ["extract.batch_size=1"])
    interrupt(out, images, second, after=0, record=small)
    run(out, images, third)
    rewrite_run(second.folder(out), started="2999-01-01T00:00:00+00:00")
    options = f"output.dir={out}"
    assert commands(out) == [
        words("-m", options, "shard.count=5", "shard.index=0"),
        words("-m", options, "extract.batch_size=1", "shard.count=5", "shard.index=1,3,4"),
    ]


def test_image_lists_that_lack_the_same_shards_share_a_command(images, out):
    def begin(image_list, count, *done):
        for index in done:
            shard = Shard(source_name([image_list]), count, index)
            record = record_of(out, images, shard, [f"input.list={image_list}"], list=image_list)
            run(out, images, shard, record=record)

    begin("a.txt", 3, 0)
    begin("[b.txt,'c d.txt']", 3, 0)
    begin("e.txt", 3, 1)
    begin("f.txt", 2, 0, 1)
    options = ("-m", f"output.dir={out}")
    count = "shard.count=3"
    assert commands(out) == [
        words(*options, "input.list=[b.txt,'c d.txt'],a.txt", count, "shard.index=1,2"),
        words(*options, "input.list=e.txt", count, "shard.index=0,2"),
    ]


def test_an_image_list_without_shards_is_still_one_of_a_sweep(images, out):
    """Not a sweep, it would be a run without shards, into stores of its own."""
    shard = Shard(source_name(["a.txt"]))
    record = record_of(out, images, list="a.txt")
    record["command"]["overrides"] += ["input.list=a.txt"]
    interrupt(out, images, shard, record=record)
    assert commands(out) == [words("-m", f"output.dir={out}", "input.list=a.txt")]


def test_shards_of_lists_that_were_no_sweep_stay_none(images, out):
    """In a sweep they would be other shards."""
    first = shards(3)[0]
    record = record_of(out, images, first, ["input.list=a.txt"], list="a.txt")
    run(out, images, first, record=record)
    options = f"output.dir={out}", "input.list=a.txt", "shard.count=3"
    expected = [words(*options, "shard.index=1"), words(*options, "shard.index=2")]
    assert commands(out) == expected
    del record["configuration"]
    rewrite(first.folder(out) / "manifest.json", configuration=None)
    assert commands(out) == expected


def test_one_shard_of_one(images, out):
    interrupt(out, images, Shard())
    assert commands(out) == [words("-m", f"output.dir={out}", "shard.count=1", "shard.index=0")]


def test_a_run_without_shards(images, out):
    interrupt(out, images, record=record_of(out, images, overrides=["input.list=[a,b]"]))
    assert commands(out) == [words(f"output.dir={out}", "input.list=[a,b]")]


def test_a_run_without_shards_on_a_cluster(images, out):
    record = record_of(out, images, hydra=["hydra/launcher=slurm"])
    interrupt(out, images, record=record)
    assert commands(out) == [words("-m", f"output.dir={out}", "hydra/launcher=slurm")]


def test_from_another_folder(images, out, tmp_path):
    interrupt(out, images)
    command = words(f"output.dir={out}")
    assert commands(out, here=tmp_path) == [f"cd {support.ROOT} && {command}"]
    assert commands(out, here=support.ROOT / "docs" / "..") == [command]
    work = tmp_path / "work here"
    work.mkdir()
    given = {**manifest(out)["command"], "folder": str(work)}
    rewrite(out / "manifest.json", command=given)
    program = TOOLS / "extract.py"
    assert commands(out) == [f"cd '{work}' && python {program} output.dir={out}"]


def test_a_folder_that_was_moved_is_remarked_upon(images, out, tmp_path):
    interrupt(out, images)
    assert step(out).remarks == []
    out.rename(tmp_path / "moved")
    (remark,) = step(tmp_path / "moved").remarks
    assert f"output.dir was {out} then" in remark
    os.symlink(tmp_path / "moved", out)
    assert step(out).remarks == step(tmp_path / "moved").remarks == []


def test_a_relative_folder_is_relative_to_where_the_command_was_given(images, out, tmp_path):
    record = record_of("out", images)
    record["command"]["folder"] = str(tmp_path)
    interrupt(out, images, record=record)
    assert step(out).remarks == []


def test_what_runs_is_waited_for(images, out):
    run(out, images, shards(2)[0])
    spoil(images[7])
    run(out, images, shards(2)[1])
    leave_lease(shards(2)[0].folder(out))
    following = step(out)
    assert (following.what, following.commands) == ("wait", [])


def test_what_failed_is_tried_again_once_all_else_is_done(images, out):
    spoil(images[0])
    spoil(images[7])
    for shard in shards(3)[:2]:
        run(out, images, shard)
    options = ("-m", f"output.dir={out}", "shard.count=3")
    assert (step(out).what, commands(out)) == ("finish", [words(*options, "shard.index=2")])
    run(out, images, shards(3)[2])
    assert (step(out).what, commands(out)) == ("retry", [words(*options, "shard.index=0,2")])


def test_where_the_command_is_not_in_writing_that_is_said(images, out):
    interrupt(out, images, shards(2)[0], record={})
    following = step(out)
    assert (following.what, following.commands) == ("finish", [])
    assert [part.name for part in following.unknown] == ["0-of-2", "1-of-2"]
    for command in ("x", {}, {"overrides": [1], "hydra": [], "folder": "/"}, {"overrides": []}):
        rewrite(shards(2)[0].folder(out) / "manifest.json", command=command)
        assert len(step(out).unknown) == 2


def test_a_packing_is_not_taken_for_the_extraction_before_it(images, out):
    run(out, images)
    (out / "image_001.npy").write_bytes(b"damaged")
    pack([out], "lmdb", out)
    assert manifest(out)["command"]
    following = step(out)
    assert (following.what, following.commands) == ("retry", [])
    assert len(following.unknown) == 1


def test_stores_that_each_shard_has_of_its_own_are_to_be_merged(images, out, tmp_path):
    for shard in shards(2):
        run(out, images, shard, formats=["lmdb"])
    following = step(out, here=tmp_path)
    pack_py = TOOLS / "pack.py"
    assert following.what == "merge"
    assert following.commands == [f"python {pack_py} {out} --to lmdb --output {out}"]
    assert commands(f"{out}/") == [f"python tools/pack.py {out} --to lmdb --output {out}"]
    pack([out], "lmdb", out)
    assert (step(out).what, commands(out)) == ("nothing", [])
    rewrite_run(out, state="interrupted")
    assert step(out).what == "merge"
    rewrite_run(out, state="finished", started="2000-01-01T00:00:00+00:00")
    assert step(out).what == "merge"
    rewrite(out / "manifest.json", runs="damaged")
    assert len(commands(out)) == 1


def test_stores_of_several_features_and_formats_are_to_be_merged(images, out):
    extractor = FakeExtractor(feature_names=["fc6", "fc7"])
    run(out, images, Shard(), extractor, formats=["mmf", "hdf5"])
    pack_py = "python tools/pack.py"
    rest = "--from hdf5 --to hdf5 --output"
    assert commands(out) == [
        f"{pack_py} {out}/{name} {rest} {out}/{name}" for name in ("fc6", "fc7")
    ]
    pack([out / "fc6"], "hdf5", out / "fc6", source_format="hdf5")
    assert commands(out) == [f"{pack_py} {out}/fc7 {rest} {out}/fc7"]
    pack([out / "fc7"], "mmf", out / "fc7", source_format="hdf5")
    assert len(commands(out)) == 1


@pytest.mark.parametrize("formats", [["mmf"], ["mmf", "npz"]])
def test_files_that_lie_together_need_no_merging(images, out, formats):
    for shard in shards(2):
        run(out, images, shard, formats=formats)
    assert (step(out).what, commands(out)) == ("nothing", [])


def test_a_whole_run_needs_no_merging(images, out):
    run(out, images, formats=["lmdb"])
    assert (step(out).what, commands(out)) == ("nothing", [])
