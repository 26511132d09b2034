"""Paths on the command line of tools/extract.py: as they are typed, and ~ is the home folder."""

import importlib

import arguments
import hypothesis.strategies as st
import pytest
import support
from hydra.core.override_parser.overrides_parser import OverridesParser
from hypothesis import example, given, settings
from omegaconf import OmegaConf

ODD = 'it\'s (my) photos, 100% [a=b] #1 & $x {y} фото é\xa0日本 !;<>|`^\\ "q" ~'
TEXTS = (
    st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1)
    | st.text("a1.e- ~'\"\\${}[](),=:#é_/", min_size=1)
).filter(lambda text: text != "???")  # for OmegaConf, what is missing


def read(argument):
    """The value that a configuration gets."""
    override = OverridesParser.create().parse_override(argument)
    return OmegaConf.create({"x": 1, "value": override.value()}).value


def given_to_hydra(*words):
    return read(arguments.for_hydra(words)[-1])


@given(TEXTS)
@settings(max_examples=300)
@example("${x}")
@example("it's \\${x}\\")
def test_an_option_is_the_text_whatever_characters_it_has(text):
    assert read(arguments.option("output.dir", text)) == text


@pytest.mark.parametrize(
    "path",
    [
        "/data/it's (1)",
        "/data/日本/é",
        "a,b",
        "a=b",
        "/data/$x #1",
        "[a]",
        "{a:1}",
        "range(0,8)",
        "2024.10",
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
    for key in ["input.list"] if "[" in value else ["input.list", "output.dir"]:
        _, argument = arguments.for_hydra(["--multirun", f"{key}={value}"])
        values = OverridesParser.create().parse_override(argument).sweep_string_iterator()
        assert [read(f"x={value}") for value in values] == expected


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


@pytest.mark.slow
def test_home_and_odd_names_in_a_sweep(tmp_path):
    home, work = tmp_path / "home", tmp_path / "work"
    for folder in (home, work):
        folder.mkdir()
    support.links(home / ODD, "coffee.png")
    sweep = ["-m", "shard.index=0", "shard.count=1", "hydra/launcher=local_gpus", "device=cpu"]
    options = [f"input.dir=~/{ODD}", "output.dir=~/o'ut [1]", "cache_dir='~/a cache'"]
    model = support.tiny_options(support.TINY_FPN, None, None)[:3]
    program = support.ROOT / "tools" / "extract.py"
    done = support.run_tool(program, *sweep, *options, *model, cwd=work, HOME=home)
    assert done.returncode == 0, done.stderr
    assert (home / "o'ut [1]" / "coffee.npy").exists()
    assert (home / "o'ut [1]" / "logs").is_dir()
    assert any((home / "a cache" / "converted").iterdir())
    assert list(work.iterdir()) == []


@pytest.mark.parametrize(
    ("tool", "words"),
    [
        ("pack", ["~/a", "~/b", "--to=npz", "--output=~/c"]),
        ("status", ["~/a"]),
        ("compare_features", ["~/a", "~/b", "--json=~/c"]),
        ("visualize", ["~/a", "~/b", "--output=~/c", "--classes=~/d", "--cache-dir=~/e"]),
        ("benchmark", ["--images=~/a", "--weights=~/b", "--model=~/c", "--json=~/d"]),
    ],
)
def test_home_in_the_other_tools(tool, words, monkeypatch):
    parser = importlib.import_module(tool).parser()
    monkeypatch.setenv("HOME", "/home/me")
    found = str(vars(parser.parse_args(words)))
    assert found.count("/home/me/") == len([word for word in words if "~" in word])
    assert "~" not in found
