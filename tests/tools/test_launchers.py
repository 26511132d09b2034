"""Sweeps on one machine, one job after the other or all at a time; the launchers' options."""

import os
import signal

import pytest
import support
import sweeps
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
    assert done.status == 0, done.stderr
    assert done.stderr == ""
    sweeps.assert_same_outputs(out, alone, source, 3)
    assert before.items() <= stored(out, before).items()
    for index in range(3):
        entries = runs(out, index, 3)
        assert sum(run["extracted"] for run in entries) == 4
        assert {run["cuda_visible_devices"] for run in entries} == {"575"[index]}


def test_the_end_of_the_launcher_alone_is_the_end_of_its_jobs(source, tmp_path):
    out = tmp_path / "out"
    command = [*LOCAL, *whole(2), f"input.dir={source}", f"output.dir={out}"]
    with sweeps.Started(*command) as sweep:
        until(lambda: len(sweeps.states(out, 2)) == 2, "both run")
        sweep.process.terminate()
        done = sweep.finish(20)
        assert sweep.group() == []
    assert done.status == 143
    assert done.stderr == "interrupted by SIGTERM; run the same command to go on\n"
    assert sweeps.states(out, 2) == ["interrupted"] * 2


def test_failures_keep_no_other_job_and_no_later_batch_from_its_end(with_a_bad_image, tmp_path):
    """A bad image, a killed process, and a batch after theirs."""
    out = tmp_path / "out"
    command = [*LOCAL, *whole(3), f"input.dir={with_a_bad_image}", f"output.dir={out}"]
    with sweeps.Started(*command, "hydra.sweeper.max_batch_size=2") as sweep:
        (killed,) = until(lambda: runs(out, 1, 3), "the second shard runs")
        os.kill(killed["pid"], signal.SIGKILL)
        done = sweep.finish()
    assert done.status == 2
    bad, lost, last = done.stderr.splitlines()
    assert bad.startswith(f"error: #0: {out}, shard 0-of-3: 1 of 2 images failed; 1 extracted, 0 ")
    assert lost.startswith("error: #1: job ")
    assert " ended as FINISHED, without a result; log: " in lost
    assert last == (
        f"2 of 3 jobs failed; `python tools/status.py {out}` says what is left, and the same "
        "command goes on"
    )
    with open(bad.partition("; log: ")[2]) as log:
        assert f"failed: {with_a_bad_image}/image00.png: cannot identify image file" in log.read()
    assert sweeps.states(out, 3) == ["finished", "running", "finished"]
    (first,), (third,) = runs(out, 0, 3), runs(out, 2, 3)
    assert first["ended"] <= third["started"]


def test_without_a_launcher_the_jobs_come_one_after_the_other(with_a_bad_image, tmp_path):
    out = tmp_path / "out"
    places = [f"input.dir={with_a_bad_image}", f"output.dir={out}"]
    done = sweeps.run("-m", *whole(2), *places)
    assert done.status == 1
    error, last = done.stderr.splitlines()
    assert (
        error
        == f"error: #0: {out}, shard 0-of-2: 1 of 3 images failed; 2 extracted, 0 there before"
    )
    assert last.startswith("1 of 2 jobs failed; ")
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


def test_a_launcher_that_cannot_work_is_refused_in_one_line(tmp_path):
    slurm, local = "hydra/launcher=slurm", "hydra/launcher=local_gpus"
    mistakes = {
        (slurm,): "this machine is in no Slurm cluster: there is no sbatch and no srun on the PATH",
        (slurm, "hydra.launcher.gpu=1"): "hydra.launcher.gpu: no such key; valid here are ",
        (local, "hydra.launcher.gpu=1"): "hydra.launcher.gpu: no such key; valid here are ",
        (slurm, "hydra.launcher.mem_gb=much"): "hydra.launcher.mem_gb: Value 'much' of type",
        (local, "hydra.launcher.timeout_min=x"): "hydra.launcher.timeout_min: Value 'x' of type",
        (local, "hydra.launcher.tasks_per_node=2"): "hydra.launcher.tasks_per_node=2: has to be 1",
        ("hydra/launcher=pbs",): "hydra/launcher=pbs: valid are basic, local_gpus, slurm, ",
    }
    places = [f"input.dir={tmp_path}", f"output.dir={tmp_path / 'out'}"]
    commands = [["-m", *options, *whole(2), *places] for options in mistakes]
    ends = sweeps.forked(commands, PATH=str(tmp_path))
    for (status, stderr), expected in zip(ends, mistakes.values(), strict=True):
        assert status == 2
        assert stderr.startswith(f"error: {expected}")
        assert len(stderr.splitlines()) == 1
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("launcher", "values", "added"),
    [
        (
            "slurm",
            {
                "name": "features",
                "partition": "gpu",
                "account": "lab",
                "qos": "low",
                "constraint": "a100|h100",
                "exclude": "n7",
                "gpus_per_node": None,
                "gres": "gpu:a100:1",
                "cpus_per_task": 2,
                "mem_gb": 3,
                "array_parallelism": 4,
                "timeout_min": 5,
                "max_num_timeout": 6,
                "signal_delay_s": 7,
                "stderr_to_stdout": False,
                "setup": ["module load python"],
                "submitit_folder": "/logs/%j",
            },
            {"nice": 100},
        ),
        (
            "local_gpus",
            {"timeout_min": 5, "stderr_to_stdout": False, "submitit_folder": "/logs/%j"},
            {},
        ),
    ],
)
def test_every_option_of_a_launcher_can_be_set(launcher, values, added):
    given = [f"hydra.launcher.{k}={'null' if v is None else v}" for k, v in values.items()]
    given += [f"+hydra.launcher.additional_parameters.{k}={v}" for k, v in added.items()]
    given = [option.replace("a100|h100", "'a100|h100'") for option in given]
    done = support.extract(
        "--cfg", "hydra", "--package", "hydra.launcher", f"hydra/launcher={launcher}", *given
    )
    assert done.returncode == 0, done.stderr
    found = yaml.safe_load(done.stdout)
    assert {key: found[key] for key in values} == values
    if added:
        assert found["additional_parameters"] == {"requeue": True, **added}
