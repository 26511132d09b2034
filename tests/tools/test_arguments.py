"""Paths on the command line of tools/extract.py: as they are typed, and ~ is the home folder."""

import json
import os
import runpy
import shlex
import shutil
import subprocess
import sys

import hypothesis.strategies as st
import pytest
import support
from hydra.core.override_parser.overrides_parser import OverridesParser
from hypothesis import example, given, settings
from omegaconf import OmegaConf

from vmb_d2.errors import ConfigError
from weights_conversion import convert

sys.path.insert(0, str(support.ROOT / "tools"))
import arguments

sys.path.pop(0)

TINY = support.TINY_FPN
ODD = 'it\'s (my) photos, 100% [a=b] #1 & $x {y} фото é\xa0日本 !;<>|`^\\ "q" ~'
TEXTS = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1)
SPECIAL = st.text("a1.e- ~'\"\\${}[](),=:#é_/", min_size=1)


def read(argument):
    """The value that a configuration gets."""
    override = OverridesParser.create().parse_override(argument)
    return OmegaConf.create({"x": 1, "value": override.value()}).value


def given_to_hydra(*words):
    return read(arguments.for_hydra(words)[-1])


@given(TEXTS | SPECIAL)
@example("${x}")
@example("it's \\${x}\\")
def test_an_option_is_the_text_whatever_characters_it_has(text):
    assert read(arguments.option("output.dir", text)) == (None if text == "???" else text)


@given(TEXTS | SPECIAL)
@settings(max_examples=300)
def test_what_an_error_tells_to_type_is_the_text(text):
    typed = arguments.spelled(f"device={text}")
    if typed is None:
        assert text[0] in "[{"
        return
    words = shlex.split(typed)
    assert read(*words) == (None if text == "???" else text)


@pytest.mark.parametrize(
    "path",
    [
        "/data/my photos",
        "/data/it's",
        "/data/a(1)",
        "/data/фото",
        "/data/日本/é",
        "a,b",
        "a=b",
        "/data/$x",
        "/data/#1",
        "/data/a[1]",
        "[a]",
        "{a:1}",
        "range(0,8)",
        "2024.10",
        "1_000",
        "1e3",
        "true",
        "x ",
        "-x;y&z!",
        "https://host/x.pth?a=1&b=(2)",
    ],
)
def test_a_path_is_what_was_typed(path, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert given_to_hydra(f"model.weights={path}") == path


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("", ""),
        ("null", None),
        ("${x}", 1),
        ("a\\,b", "a,b"),
        ("'a, b'", "a, b"),
        ('"~/a, b"', "/home/me/a, b"),
        ("~/a", "/home/me/a"),
        ("~", "/home/me"),
        ("./~x", "./~x"),
        ("a~", "a~"),
        ("~root/a", "/root/a"),
    ],
)
def test_what_else_a_value_can_mean(value, expected, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", "/home/me")
    for key in ("input.dir", "+output.dir", "cache_dir", "hydra.sweep.dir"):
        assert given_to_hydra(f"{key}={value}") == expected


def test_a_path_that_is_there_is_that_path(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    for name in ("null", "${x}", "a\\,b", "'a, b'", "[a,b]", "~x", "a,b"):
        (tmp_path / name).touch()
        for words in ([], ["-m"]):
            assert given_to_hydra(*words, f"input.list={name}") == name


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("[~/a.txt,b.txt]", ["/home/me/a.txt", "b.txt"]),
        ("['~/a, b.txt',b.txt]", ["/home/me/a, b.txt", "b.txt"]),
        ("[it's.txt, фото (1).txt]", ["it's.txt", "фото (1).txt"]),
        ("[a]", ["a"]),
    ],
)
def test_lists_of_paths(value, expected, monkeypatch):
    monkeypatch.setenv("HOME", "/home/me")
    assert given_to_hydra(f"input.list={value}") == expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("~/a,b c", ["/home/me/a", "b c"]),
        ("it's,фото", ["it's", "фото"]),
        ('"~/a, b",c', ["/home/me/a, b", "c"]),
        ("[~/a,b],[c]", [["/home/me/a", "b"], ["c"]]),
    ],
)
def test_sweeps_over_paths(value, expected, monkeypatch):
    monkeypatch.setenv("HOME", "/home/me")
    _, argument = arguments.for_hydra(["--multirun", f"input.list={value}"])
    values = OverridesParser.create().parse_override(argument).sweep_string_iterator()
    assert [read(f"x={value}") for value in values] == expected


def test_what_can_be_one_path_or_several_is_asked_for(monkeypatch):
    monkeypatch.setenv("HOME", "/home/me")
    with pytest.raises(ConfigError) as error:
        arguments.for_hydra(["-m", "output.dir=~/it's,b"])
    text = str(error.value)
    assert text.startswith("output.dir=~/it's,b: one path is ")
    one, several = text.partition("one path is ")[2].split(", a job for each of several ")
    assert given_to_hydra("-m", *shlex.split(one)) == "/home/me/it's,b"
    (_, argument) = arguments.for_hydra(["-m", *shlex.split(several)])
    override = OverridesParser.create().parse_override(argument)
    assert [read(f"x={v}") for v in override.sweep_string_iterator()] == ["/home/me/it's", "b"]


def test_other_options_and_flags_stay_as_they_are():
    words = [
        "extract.batch_size=2",
        "output.format=[a,b]",
        "-m",
        "+x=~/y",
        "--cfg",
        "job",
        "~model",
    ]
    assert arguments.for_hydra(words) == words


@pytest.fixture
def home(tmp_path):
    """A home folder with a folder of images that has an odd name; a working folder."""
    (tmp_path / "home").mkdir()
    (tmp_path / "work").mkdir()
    support.links(tmp_path / "home" / ODD, "coffee.png")
    return tmp_path


def extract(home, *options):
    """Run tools/extract.py in the working folder; assert that no folder is named ~."""
    cache = support.scratch() / "cache"
    program = support.ROOT / "tools" / "extract.py"
    model = support.tiny_options(TINY, None, None)[:3]
    environment = {"HOME": home / "home", "VMB_D2_CACHE": cache}
    done = support.run_tool(program, *options, *model, cwd=home / "work", **environment)
    assert [p for p in home.rglob("*") if p.name.startswith("~")] == []
    return done


def test_home_and_odd_names_from_input_to_output(home):
    options = [f"input.dir=~/{ODD}", "output.dir=~/out", "cache_dir='~/a cache'"]
    done = extract(home, *options)
    assert done.returncode == 0, done.stderr
    assert (home / "home" / "out" / "coffee.npy").exists()
    assert any((home / "home" / "a cache" / "converted").iterdir())
    assert list((home / "work").iterdir()) == []


def test_a_sweep_and_the_command_that_status_gives(home):
    """Its logs are in the output folder; the jobs get the same paths; so does the next command."""
    (home / "home" / ODD / "bad.png").write_text("no image")
    options = [f"input.dir=~/{ODD}", "output.dir=~/o'ut [1]", "device=cpu", "shard.count=1"]
    sweep = ["-m", "shard.index=0", "hydra/launcher=local_gpus"]
    assert extract(home, *sweep, *options).returncode == 1
    out = home / "home" / "o'ut [1]"
    assert (out / "coffee.npy").exists()
    assert (out / "logs").is_dir()
    status = support.run_tool(
        support.ROOT / "tools" / "status.py", "~/o'ut [1]", HOME=home / "home"
    )
    command = status.stdout.splitlines()[-1].strip()
    (home / "home" / ODD / "bad.png").unlink()
    support.links(home / "home" / ODD, "rocket.jpg")
    (home / "home" / ODD / "rocket.jpg").rename(home / "home" / ODD / "bad.png")
    path = f"{os.path.dirname(sys.executable)}:{os.environ['PATH']}"
    cache = str(support.scratch() / "cache")
    environment = {**os.environ, "PATH": path, "HOME": "/nowhere", "VMB_D2_CACHE": cache}
    done = subprocess.run(["bash", "-c", command], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert (out / "bad.npy").exists()
    manifest = json.loads((out / "shards" / "0-of-1" / "manifest.json").read_text())
    assert manifest["configuration"]["input"]["dir"] == str(home / "home" / ODD)


def test_an_image_list_given_as_the_folder(home):
    (home / "work" / "my list").write_text(f"\n{home / 'home' / ODD / 'coffee.png'}\n")
    done = extract(home, "input.dir=my list")
    assert done.returncode == 2
    assert done.stderr.startswith("error: input.dir=my list: is a list of images")
    (instead,) = shlex.split(done.stderr.strip().rpartition("given as ")[2])
    assert extract(home, instead, "output.dir=~/out").returncode == 0
    assert (home / "home" / "out" / "coffee.npy").exists()


@pytest.mark.parametrize(
    ("tool", "words"),
    [
        ("pack", ["~/a", "~/b", "--to=npz", "--output=~/c"]),
        ("status", ["~/a"]),
        ("compare_features", ["~/a", "~/b", "--json=~/c"]),
        ("visualize", ["~/a", "~/b", "--output=~/c", "--classes=~/d", "--cache-dir=~/e"]),
        ("benchmark", ["--images=~/a", "--weights=~/b", "--model=~/c", "--json=~/d"]),
        ("benchmark", ["--images=~/a", "--temporary=~/b", "--cache-dir=~/c", "--chart=~/d"]),
    ],
)
def test_home_in_the_other_tools(tool, words, monkeypatch):
    monkeypatch.syspath_prepend(support.ROOT / "tools")
    parser = runpy.run_path(support.ROOT / "tools" / f"{tool}.py")["parser"]()
    monkeypatch.setenv("HOME", "/home/me")
    found = str(vars(parser.parse_args(words)))
    assert found.count("/home/me/") == len([word for word in words if "~" in word])
    assert "~" not in found


def test_the_other_tools_make_no_folder_of_that_name(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    pack = support.in_this_process(support.ROOT / "tools" / "pack.py", monkeypatch, capsys)
    for source in ("~/a", "~nobody_here/a"):
        assert pack(source, "--to=npz", "--output=~/b")[0] == 2
    status, _, stderr = pack("a", "--to=npz", "--output=~nobody_here/b")
    assert (status, stderr.count("\n")) == (2, 1)
    assert stderr.startswith("error: ~nobody_here/b: there is no such user")
    assert list(tmp_path.glob("~*")) == []


def test_home_in_the_converters_paths(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("HOME", str(tmp_path))
    shutil.copy(support.yaml_path(TINY), tmp_path / "tiny.yaml")
    shutil.copy(support.vmb_checkpoint(TINY), tmp_path / "in.pth")
    assert convert.main(["~/in.pth", "~/out.pth", "--config=~/tiny.yaml"]) == 0
    assert (tmp_path / "out.pth").exists()


@pytest.mark.parametrize(
    ("flags", "shown"),
    [
        (["--help"], "model= is one of"),
        (["--hydra-help"], "model"),
        (["--version"], "Hydra 1.3"),
        (["--cfg", "job"], "num_features: 100"),
        (["-c", "job", "--resolve", "--package", "input"], "dir: ./~"),
        (["--info", "searchpath"], "hydra"),
        (["--inf", "defaults"], "hydra/launcher"),
        (["--config-name", "nothing"], "nothing"),
    ],
)
def test_flags_of_hydra(home, flags, shown):
    done = extract(home, *flags, "input.dir=./~")
    assert shown in done.stdout + done.stderr
    assert "options are key=value" not in done.stderr
