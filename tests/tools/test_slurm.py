"""Shards on a real Slurm: started, disturbed in every way, and in the end as one undisturbed run.

The nodes and their GPUs are virtual, all on this machine.
"""

import json
import os
import signal

import pytest
import slurm_cluster
import sweeps
from sweeps import SHARES, manifest, midway, runs, share, stored, until

pytestmark = pytest.mark.slow
SHARDS = 3
IMAGES = 12  # of a shard: enough for a disturbance to come before the last of them
WHOLE = [f"shard.count={SHARDS}", f"shard.index=range(0,{SHARDS})", *SHARES]


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    return sweeps.large(tmp_path_factory.mktemp("slurm") / "in", IMAGES * SHARDS)


@pytest.fixture(scope="module")
def alone(source):
    """The outputs of a single run that nothing disturbs."""
    return sweeps.alone(source)


def log_of(out, job):
    """What all starts of a job have in their log."""
    return (out / "logs" / job / f"{job}_0_log.out").read_text()


def job_of(entry):
    """The job of a run's entry, as Slurm's programs want it."""
    return entry["job"].partition(",")[0]


def disturb(started, out, source, disturbances):
    """Call each shard's disturbance with its run's entry as soon as it has stored two images.

    Returns what each of them had stored by then.
    """
    before = {}

    def all_disturbed():
        assert started.process.poll() is None, started.finish().stderr
        for index in disturbances.keys() - before.keys():
            if entry := midway(out, source, index, SHARDS):
                before[index] = stored(out, share(source, index, SHARDS))
                disturbances[index](entry)
        return disturbances.keys() == before.keys()

    until(all_disturbed, f"shards {list(disturbances)} are midway in {out}")
    return before


def assert_went_on(out, source, index, before):
    """The last start of a shard left as it was what was there, but for the batch under way."""
    names = share(source, index, SHARDS)
    assert before.items() <= stored(out, names).items()
    assert len(names) - runs(out, index, SHARDS)[-1]["extracted"] >= len(before) - 1 > 0


def test_one_command_starts_every_shard_on_a_gpu_of_its_own(slurm, source, alone, tmp_path):
    out, cache = tmp_path / "out", tmp_path / "cache"
    done = slurm.run(*WHOLE, f"input.dir={source}", f"output.dir={out}", f"cache_dir={cache}")
    assert (done.status, done.stderr) == (0, "")
    sweeps.assert_same_outputs(out, alone, source, SHARDS)
    entries = [run for i in range(SHARDS) for run in runs(out, i, SHARDS)]
    assert [run["state"] for run in entries] == ["finished"] * SHARDS
    assert [run["extracted"] for run in entries] == [IMAGES] * SHARDS
    array = entries[0]["job"].partition("_")[0]
    assert [run["job"] for run in entries] == [f"{array}_{i}" for i in range(SHARDS)]
    nodes = slurm.squeue("%N", array)
    places = {(nodes[run["job"]], run["cuda_visible_devices"]) for run in entries}
    assert len(places) == SHARDS
    assert {gpu for _, gpu in places} == {"0", "1"}
    # All of them wanted the converted weights at the same time.
    logs = "".join(log_of(out, run["job"]) for run in entries)
    assert logs.count("converting ") == 1


def test_what_takes_a_shard_away_only_delays_it(slurm, source, alone, tmp_path):
    """Signals to one; a requeueing of one that hangs; a more urgent job in the place of one."""
    out = tmp_path / "out"

    def signal_twice(entry):
        for _ in range(2):
            slurm.call("scancel", "--signal=USR2", job_of(entry))

    def requeue(entry):
        slurm.call("scontrol", "requeue", job_of(entry))
        sweeps.hang(entry["pid"])

    def push_out(entry):
        node = slurm.squeue("%N", job_of(entry))[job_of(entry)]
        urgent = ["--partition=urgent", "--nodes=1", "--gpus-per-node=2", f"--nodelist={node}"]
        slurm.call("sbatch", "--output=/dev/null", *urgent, "--wrap=true")

    with slurm.start(*WHOLE, f"input.dir={source}", f"output.dir={out}") as sweep:
        before = disturb(sweep, out, source, {0: signal_twice, 1: requeue, 2: push_out})
        done = sweep.finish(150)
    assert (done.status, done.stderr) == (0, "")
    sweeps.assert_same_outputs(out, alone, source, SHARDS)
    assert sweeps.states(out, SHARDS) == ["finished"] * SHARDS
    for index, state in enumerate(("interrupted", "died", "interrupted")):
        first, second = runs(out, index, SHARDS)
        assert first["state"] == state
        assert second["job"] == f"{first['job']}, restart 1"
        assert_went_on(out, source, index, before[index])
        if state == "interrupted":
            assert first["extracted"] + second["extracted"] == IMAGES
    assert "this job is preempted" in log_of(out, runs(out, 0, SHARDS)[0]["job"])


def test_shards_without_an_end_are_told_of_and_the_same_command_goes_on(
    slurm, source, alone, tmp_path
):
    """One that is cancelled, one whose process is killed."""
    out = tmp_path / "out"
    options = [*WHOLE, f"input.dir={source}", f"output.dir={out}"]
    jobs = {}

    def cancel(entry):
        jobs[1] = job_of(entry)
        slurm.call("scancel", jobs[1])
        sweeps.hang(entry["pid"])

    def kill(entry):
        jobs[2] = job_of(entry)
        os.kill(entry["pid"], signal.SIGKILL)

    with slurm.start(*options) as sweep:
        before = disturb(sweep, out, source, {1: cancel, 2: kill})
        done = sweep.finish(120)
    assert done.status == 2
    assert f"error: Job {jobs[1]} (task: 0)" in done.stderr
    assert "has not produced any output (state: CANCELLED)" in done.stderr
    assert sweeps.states(out, SHARDS) == ["finished", "running", "running"]
    done = slurm.run(*options)
    assert done.status == 0, done.stderr
    sweeps.assert_same_outputs(out, alone, source, SHARDS)
    assert f"{IMAGES} images are there" in log_of(out, runs(out, 0, SHARDS)[1]["job"])
    for index in (1, 2):
        assert [run["state"] for run in runs(out, index, SHARDS)] == ["died", "finished"]
        assert_went_on(out, source, index, before[index])


def test_a_shard_whose_time_is_up_too_often(slurm, source, tmp_path):
    """Within ten minutes of the limit, the cluster's signal means that the time is up."""
    out = tmp_path / "out"
    options = [f"shard.count={SHARDS}", "shard.index=1", *SHARES]
    places = [f"input.dir={source}", f"output.dir={out}"]
    limits = ["hydra.launcher.timeout_min=10", "hydra.launcher.max_num_timeout=1"]

    def let_time_be_up(entry):
        slurm.call("scancel", "--signal=USR2", job_of(entry))

    with slurm.start(*options, *places, *limits) as sweep:
        first = disturb(sweep, out, source, {1: let_time_be_up})[1]
        until(lambda: len(runs(out, 1, SHARDS)) == 2, "it is queued again, and starts")
        second = disturb(sweep, out, source, {1: let_time_be_up})[1]
        done = sweep.finish()
    assert done.status == 2
    reason = "Job not requeued because: timed-out too many times."
    assert done.stderr.splitlines()[-1] == f"error: {reason}"
    assert f"this job of the sweep failed: {reason}" in log_of(out, job_of(runs(out, 1, SHARDS)[0]))
    assert [run["state"] for run in runs(out, 1, SHARDS)] == ["interrupted", "failed"]
    kept = stored(out, share(source, 1, SHARDS))
    assert len(kept) == sum(run["extracted"] for run in runs(out, 1, SHARDS)) < IMAGES
    assert {**first, **second}.items() <= kept.items()


def test_lists_swept_over_and_jobs_that_fail(slurm, tmp_path):
    """A good list, one with a bad image, one that isn't there, into one folder."""
    source = sweeps.small(tmp_path / "in", 3)
    (source / "image01.png").write_text("no image")
    (tmp_path / "good.txt").write_text("image00.png\n")
    (tmp_path / "bad.txt").write_text("image01.png\nimage02.png\n")
    out = tmp_path / "out"
    lists = ",".join(str(tmp_path / f"{name}.txt") for name in ("good", "bad", "none"))
    places = [f"input.dir={source}", f"input.list={lists}", f"output.dir={out}"]
    done = slurm.run(*places, *SHARES)
    assert done.status == 2
    reason = f"input.list={tmp_path}/none.txt: No such file or directory"
    assert done.stderr.splitlines()[-1] == f"error: {reason}"
    assert sorted(stored(out, ["image00", "image01", "image02"])) == ["image00", "image02"]
    good, bad = sorted((out / "shards").iterdir(), key=lambda folder: "bad" in folder.name)
    assert good.name.startswith("good.")
    assert manifest(good)["counts"] == {"images": 1, "done": 1, "failed": 0}
    assert manifest(bad)["counts"] == {"images": 2, "done": 1, "failed": 1}
    (failure,) = map(json.loads, (bad / "failures.jsonl").read_text().splitlines())
    assert failure["reason"] == "cannot identify image file"
    job = manifest(bad)["runs"][0]["job"]
    assert f"failed: {source}/image01.png: cannot identify image file" in log_of(out, job)
    assert f"this job of the sweep failed: {reason}\n" in log_of(out, job.replace("_1", "_2"))
    done = slurm.run(*[place.replace(f",{tmp_path}/none.txt", "") for place in places], *SHARES)
    assert done.status == 1
    assert done.stderr == f"error: 1 images failed: python tools/status.py {out} lists them\n"


def test_ctrl_c_says_that_the_jobs_go_on(slurm, source, tmp_path):
    hold = "+hydra.launcher.additional_parameters.hold=true"  # an option of sbatch
    options = [f"input.dir={source}", f"output.dir={tmp_path / 'out'}"]
    known = set(slurm.squeue("%F").values())
    with slurm.start(*WHOLE, hold, *options) as sweep:
        (job,) = until(lambda: set(slurm.squeue("%F").values()) - known, "it is submitted")
        sweep.signal(signal.SIGINT)
        done = sweep.finish()
    assert done.status == 130
    assert done.stderr == (
        "interrupted by SIGINT; jobs on the cluster go on: squeue lists them, scancel ends them\n"
    )
    assert set(slurm.squeue("%r", job).values()) == {"JobHeldUser"}
    slurm.call("scancel", job)


def test_what_the_cluster_refuses(slurm, tmp_path):
    launcher = [option for option in slurm_cluster.LAUNCHER if "_per_" not in option]
    places = [f"input.dir={tmp_path}", f"output.dir={tmp_path / 'out'}"]
    done = sweeps.run(
        *launcher, "hydra.launcher.partition=none", *WHOLE, *places, **slurm.environment
    )
    assert done.status == 2
    line = done.stderr.splitlines()[-1]
    assert line.startswith("error: sbatch: error: invalid partition specified: none; ")
    # What would have been submitted is there to be read.
    (script,) = (tmp_path / "out" / "logs").glob(".submission_file_*.sh")
    lines = script.read_text().splitlines()
    for option in (
        "array=0-2%3",
        "cpus-per-task=8",
        "gpus-per-node=1",
        "job-name=vmb_d2",
        "mem=1GB",
        "nodes=1",
        "ntasks-per-node=1",
        "open-mode=append",
        "requeue",
        "signal=USR2@120",
        "time=1440",
    ):
        assert f"#SBATCH --{option}" in lines
