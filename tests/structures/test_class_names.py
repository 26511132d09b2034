"""Names of the classes: their file, where it comes from, and how it fits a store."""

import json
import logging
import socket

import pytest

from vmb_d2.errors import ConfigError, DownloadError
from vmb_d2.structures import class_names
from vmb_d2.structures.class_names import (
    ClassNames,
    class_names_or_numbers,
    parse_class_names,
    read_class_names,
)
from vmb_d2.utils import downloads


def categories(*entries):
    return json.dumps({"categories": [{"id": i, "name": name} for i, name in entries]}).encode()


YOLK = categories((1, "yolk"), (2, "goal"))


@pytest.mark.parametrize(
    ("content", "names"),
    [
        (YOLK, ["yolk", "goal"]),
        (categories((2, "goal"), (1, "yolk")), ["yolk", "goal"]),
        (categories((0, "__background__"), (1, "yolk"), (2, "goal")), ["yolk", "goal"]),
        (categories((0, "Background"), (1, "yolk")), ["yolk"]),
        (categories((1, "background"), (2, "goal")), ["background", "goal"]),
        (categories((1, "same"), (2, "same")), ["same", "same"]),
        (b"\xef\xbb\xbf" + categories((1, "Ei\u2013\u86cb")), ["Ei\u2013\u86cb"]),
        (categories((1, " two\n lines ")), ["two lines"]),
        (b'{"categories": [{"id": 1, "name": "half \\ud83d", "other": []}]}', ["half ?"]),
    ],
)
def test_names_in_the_order_of_their_ids(content, names):
    assert parse_class_names(content) == tuple(names)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"<html>not found</html>", "no JSON"),
        (b"", "no JSON"),
        (b"\xff\xfe\xfa", "no JSON"),
        pytest.param(b"[" * 100_000, "no JSON", id="deep"),
        (b'["yolk"]', 'no list "categories"'),
        (b'{"categories": {}}', 'no list "categories"'),
        (b'{"categories": []}', 'no list "categories"'),
        (b'{"categories": ["yolk"]}', '"yolk" has no number'),
        (b'{"categories": [{"name": "yolk"}]}', "has no number as id"),
        (b'{"categories": [{"id": 1}]}', "has no number as id and text as name"),
        (b'{"categories": [{"id": true, "name": "yolk"}]}', "has no number"),
        (b'{"categories": [{"id": -1, "name": "yolk"}]}', "has no number"),
        (categories((1, "a"), (1, "b")), "id 1 occurs twice"),
        (categories((0, "yolk"), (1, "goal")), "id 0 is 'yolk'"),
    ],
)
def test_anything_else_is_one_line(tmp_path, content, reason):
    file = tmp_path / "names.json"
    file.write_bytes(content)
    with pytest.raises(ConfigError, match=reason) as caught:
        read_class_names(str(file), tmp_path)
    assert str(file) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_file_that_cant_be_read(tmp_path):
    with pytest.raises(ConfigError, match=r"none\.json: can't be read: No such file"):
        read_class_names(str(tmp_path / "none.json"), tmp_path)


def test_the_default_is_fetched_once_into_the_cache(server, tmp_path, monkeypatch):
    server.content = YOLK
    monkeypatch.setattr(class_names, "CLASSES_URL", server.url)
    for source in (None, server.url):
        assert read_class_names(source, tmp_path).names == ("yolk", "goal")
    assert len(server.requests) == 1
    assert downloads.cached_path(server.url, tmp_path).read_bytes() == YOLK


def test_a_mirror_has_the_default_too(server, tmp_path, monkeypatch):
    server.content = YOLK
    monkeypatch.setenv("VMB_D2_MIRROR", f"http://127.0.0.1:{server.server_port}")
    assert class_names_or_numbers(None, tmp_path).names == ("yolk", "goal")
    assert server.requests == ["/pythia/data/visual_genome_categories.json"]


def test_without_a_network_the_default_is_numbers_and_a_given_url_an_error(
    tmp_path, monkeypatch, caplog
):
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))  # bound but not listening: connections are refused
        url = f"http://127.0.0.1:{unused.getsockname()[1]}/names.json"
        with pytest.raises(DownloadError, match="Connection refused"):
            class_names_or_numbers(url, tmp_path)
        monkeypatch.setattr(class_names, "CLASSES_URL", url)
        with pytest.raises(DownloadError, match="Connection refused"):
            read_class_names(None, tmp_path)
        with caplog.at_level(logging.WARNING):
            names = class_names_or_numbers(None, tmp_path, with_background=True)
    assert names == ClassNames(None, with_background=True)
    (message,) = [r.getMessage() for r in caplog.records if r.name.startswith("vmb_d2")]
    for part in (url, "Connection refused", "give a file of their names"):
        assert part in message
    assert "\n" not in message


def test_none_asks_nobody(tmp_path):
    assert class_names_or_numbers("none", tmp_path) == ClassNames()
    assert list(tmp_path.iterdir()) == []


def test_indices_without_the_background():
    names = ClassNames(("yolk", "goal"), source="f.json").for_columns(2)
    assert [names[0], names[1]] == ["yolk", "goal"]
    assert [names.number(0), names.number(1)] == [0, 1]
    for index in (-1, 2):
        with pytest.raises(ConfigError, match=rf"f\.json has 2 names, and none for .* {index} "):
            names[index]


@pytest.mark.parametrize("stated", [False, True])
def test_a_column_more_is_the_background(stated):
    names = ClassNames(("yolk", "goal"), with_background=stated).for_columns(3)
    assert [names[i] for i in range(3)] == ["background", "yolk", "goal"]
    assert [names.number(i) for i in range(3)] == [None, 0, 1]


def test_the_background_stated_where_no_column_shows_it():
    names = ClassNames(("yolk", "goal"), with_background=True)
    assert [names[i] for i in range(3)] == ["background", "yolk", "goal"]


@pytest.mark.parametrize("columns", [0, 1, 4, 1600])
def test_another_number_of_classes_is_an_error(columns):
    with pytest.raises(ConfigError, match=rf"f\.json has 2 names, .* {columns} classes"):
        ClassNames(("yolk", "goal"), source="f.json").for_columns(columns)


def test_the_background_stated_but_not_there_is_an_error():
    with pytest.raises(ConfigError, match="has 2 names and the store 2 columns"):
        ClassNames(("yolk", "goal"), with_background=True).for_columns(2)


def test_numbers_are_those_stored():
    names = ClassNames().for_columns(1600)
    assert names[17] == "class 17"
    assert names.number(17) == 17
    names = ClassNames(with_background=True)
    assert [names[0], names[17]] == ["background", "class 17"]
    assert names.number(17) == 16
