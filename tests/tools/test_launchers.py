"""Sweeps on one machine, one job after the other or all at a time; the launchers' options."""

import os
import signal

import launching
import pytest
import support
import sweeps
import torch
import yaml
from sweeps import SHARES, manifest, midway, runs, stored, until

LOCAL = ["-m", "hydra/launcher=local_gpus"]


def whole(count):
    return [f"shard.count={count}", f"shard.index=range(0,{count})", *SHARES]


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    return sweeps.large(tmp_path_factory.mktemp("launchers") / "in", 12)


@pytest.fixture(scope="module")
def alone(source):
    """The outputs of a single run."""
    return sweeps.alone(source)


@pytest.fixture
def with_a_bad_image(tmp_path):
    """Six images, of which the first isn't one."""
    folder = sweeps.small(tmp_path / "in", 6)
    (folder / "image00.png").write_text("no image")
    return folder


@pytest.mark.slow
def test_ctrl_c_ends_all_shards_and_the_same_command_goes_on(source, alone, tmp_path):
    """Each shard has one of the GPUs that its user may have; here none is really there."""
    out = tmp_path / "out"
    command = [*LOCAL, *whole(3), f"input.dir={source}", f"output.dir={out}"]
    with sweeps.Started(*command, CUDA_VISIBLE_DEVICES="5,7") as sweep:
        until(lambda: any(midway(out, source, i, 3) for i in range(3)), "one is midway")
        sweep.signal(signal.SIGINT)
        done = sweep.finish(20)
        assert sweep.group() == []
    assert done.status == 130
    assert done.stderr == "interrupted by SIGINT; run the same command to go on\n"
    assert set(sweeps.states(out, 3)) == {"interrupted"}
    before = stored(out, [path.stem for path in source.iterdir()])
    done = sweeps.run(*command, CUDA_VISIBLE_DEVICES="5,7")
    assert (done.status, done.stderr) == (0, "")
    sweeps.assert_same_outputs(out, alone, source, 3)
    assert before.items() <= stored(out, before).items()
    for index in range(3):
        entries = runs(out, index, 3)
        assert sum(run["extracted"] for run in entries) == 4
        assert {run["cuda_visible_devices"] for run in entries} == {"575"[index]}


@pytest.mark.slow
def test_the_end_of_the_launcher_alone_is_the_end_of_its_jobs(source, tmp_path):
    out = tmp_path / "out"
    command = [*LOCAL, *whole(2), f"input.dir={source}", f"output.dir={out}"]
    with sweeps.Started(*command) as sweep:
        until(lambda: any(midway(out, source, i, 2) for i in range(2)), "one is midway")
        sweep.process.terminate()
        done = sweep.finish(20)
        assert sweep.group() == []
    assert done.status == 143
    assert done.stderr == "interrupted by SIGTERM; run the same command to go on\n"
    assert "interrupted" in sweeps.states(out, 2)


@pytest.mark.slow
def test_failed_images_keep_no_later_batch_from_its_start(with_a_bad_image, tmp_path):
    out = tmp_path / "out"
    command = [*LOCAL, *whole(3), f"input.dir={with_a_bad_image}", f"output.dir={out}"]
    done = sweeps.run(*command, "hydra.sweeper.max_batch_size=2")
    assert done.status == 1
    assert done.stderr == f"error: 1 images failed: python tools/status.py {out} lists them\n"
    assert sweeps.states(out, 3) == ["finished"] * 3
    logs = [log.read_text() for log in (out / "logs").rglob("*_log.out")]
    (log,) = (log for log in logs if "1 of 2 images failed" in log)
    assert f"failed: {with_a_bad_image}/image00.png: cannot identify image" in log
    (first,), (third,) = runs(out, 0, 3), runs(out, 2, 3)
    assert first["ended"] <= third["started"]


@pytest.mark.slow
def test_a_killed_job_is_told_of_when_the_others_have_ended(source, tmp_path):
    out = tmp_path / "out"
    with sweeps.Started(*LOCAL, *whole(2), f"input.dir={source}", f"output.dir={out}") as sweep:
        (killed,) = until(lambda: runs(out, 0, 2), "the first shard runs")
        os.kill(killed["pid"], signal.SIGKILL)
        done = sweep.finish()
        assert sweep.group() == []
    assert done.status == 2
    assert done.stderr.startswith("error: Job ")
    assert "has not produced any output (state: FINISHED)" in done.stderr
    assert sweeps.states(out, 2) == ["running", "finished"]


@pytest.mark.slow
def test_without_a_launcher_the_jobs_come_one_after_the_other(with_a_bad_image, tmp_path):
    out = tmp_path / "out"
    done = sweeps.run("-m", *whole(2), f"input.dir={with_a_bad_image}", f"output.dir={out}")
    assert done.status == 1
    assert done.stderr == f"error: 1 images failed: python tools/status.py {out} lists them\n"
    assert f"{out}, shard 0-of-2: 1 of 3 images failed; 2 extracted, 0 there" in done.stdout
    assert "Traceback" not in done.stdout
    (first,), (second,) = runs(out, 0, 2), runs(out, 1, 2)
    assert first["state"] == second["state"] == "finished"
    assert first["pid"] == second["pid"]
    assert first["ended"] <= second["started"]
    assert sorted(path.name for path in out.iterdir() if path.suffix != ".npy") == [
        "logs",
        "manifest.json",
        "shards",
    ]
    assert manifest(out)["settings"]["names"] == "mmf"


@pytest.mark.slow
def test_a_mistake_in_a_sweep_is_one_line(tmp_path):
    slurm, local = "hydra/launcher=slurm", "hydra/launcher=local_gpus"
    mistakes = {
        (slurm,): "hydra/launcher=slurm: this machine is in no Slurm cluster: there is no srun",
        (local, "hydra.launcher.gpu=1"): "hydra.launcher.gpu: no such key; valid here are ",
        (local, "hydra.launcher.timeout_min=x"): "hydra.launcher.timeout_min: Value 'x' of type",
        ("hydra/launcher=pbs",): "hydra/launcher=pbs: valid are basic, local_gpus, slurm, ",
        ("extract.num_features=0",): "extract.num_features=0: has to be at least 1",
    }
    places = [f"input.dir={tmp_path}", f"output.dir={tmp_path / 'out'}"]
    (tmp_path / "image.png").touch()
    shard = ["shard.count=1", "shard.index=0"]
    lists = [sweeps.command("-m", *options, *shard, *places)[2:] for options in mistakes]
    ends = sweeps.forked(lists, PATH=str(tmp_path))
    for (status, stderr), expected in zip(ends, mistakes.values(), strict=True):
        assert status == 2
        assert stderr.splitlines()[-1].startswith(f"error: {expected}")
        assert "Traceback" not in stderr


def test_options_of_the_launchers_can_be_set():
    values = {"gpus_per_node": None, "gres": "gpu:a100:1", "mem_gb": 3, "setup": ["module load x"]}
    given = [f"hydra.launcher.{k}={'null' if v is None else v}" for k, v in values.items()]
    added = "+hydra.launcher.additional_parameters.nice=100"
    shown = ["--cfg", "hydra", "--package", "hydra.launcher"]
    done = support.extract(*shown, "hydra/launcher=slurm", *given, added)
    assert done.returncode == 0, done.stderr
    found = yaml.safe_load(done.stdout)
    assert {key: found[key] for key in values} == values
    assert found["additional_parameters"] == {"requeue": True, "nice": 100}


@pytest.fixture
def no_gpu_settings(monkeypatch):
    for name in (launching.VISIBLE, launching.REMEMBERED, "SUBMITIT_EXECUTOR"):
        monkeypatch.setenv(name, "")  # so that what the tests set is undone
        monkeypatch.delenv(name)


def taken(jobs):
    """What is visible in each job of a sweep, whose launcher hides the GPUs."""
    visible = []
    for number in range(jobs):
        os.environ.update({launching.VISIBLE: "launcher's", "SUBMITIT_EXECUTOR": "local"})
        launching.take_gpu(number)
        visible.append(os.environ.get(launching.VISIBLE))
    return visible


@pytest.mark.parametrize(
    ("visible", "expected"),
    [
        ("5,7", ["5", "7", "5", "7"]),
        ("GPU-8a1f, MIG-22 ,", ["GPU-8a1f", "MIG-22"] * 2),
        ("", [""] * 4),
        ("all", ["0", "1", "2", "0"]),
    ],
)
def test_jobs_take_the_gpus_in_turn(no_gpu_settings, monkeypatch, visible, expected):
    def count():
        assert launching.VISIBLE not in os.environ  # or what the launcher hides is not counted
        return 3

    monkeypatch.setattr(torch.cuda, "device_count", count)
    monkeypatch.setenv(launching.REMEMBERED, visible)
    assert taken(4) == expected


@pytest.mark.parametrize("visible", [None, "2,3"])
def test_a_cluster_chooses_the_gpus_of_its_jobs(no_gpu_settings, monkeypatch, visible):
    monkeypatch.setenv(launching.REMEMBERED, "5,7")
    monkeypatch.setenv("SUBMITIT_EXECUTOR", "slurm")
    if visible is not None:
        monkeypatch.setenv(launching.VISIBLE, visible)
    launching.take_gpu(1)
    assert os.environ.get(launching.VISIBLE) == visible
