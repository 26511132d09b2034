"""Names of the classes: their file, where it comes from, and how it fits a store."""

import json
import logging
import socket

import pytest

from vmb_d2.errors import ConfigError, DownloadError
from vmb_d2.structures import class_names
from vmb_d2.structures.class_names import ClassNames, class_names_or_numbers, read_class_names


def categories(*entries):
    return json.dumps({"categories": [{"id": i, "name": name} for i, name in entries]}).encode()


YOLK = categories((1, "yolk"), (2, "goal"))
LABEL_MAP = json.dumps(
    {
        "idx_to_label": {"2": "goal", "1": "yolk"},
        "label_to_idx": {"yolk": 1, "goal": 2},
        "idx_to_attribute": {"10": "ten", "2": "two", "1": "one"},
        "predicate_to_idx": {"on": 1},
    }
).encode()


@pytest.mark.parametrize(
    ("content", "names"),
    [
        (YOLK, ["yolk", "goal"]),
        (categories((2, "goal"), (1, "yolk")), ["yolk", "goal"]),
        (categories((0, "__background__"), (1, "yolk"), (2, "goal")), ["yolk", "goal"]),
        (categories((1, "background"), (2, "goal")), ["background", "goal"]),
        (categories((1, "same"), (2, "same")), ["same", "same"]),
        (b"\xef\xbb\xbf" + categories((1, "Ei\u2013\u86cb")), ["Ei\u2013\u86cb"]),
        (categories((1, " two\n lines ")), ["two lines"]),
    ],
)
def test_names_in_the_order_of_their_ids(tmp_path, content, names):
    file = tmp_path / "names.json"
    file.write_bytes(content)
    assert read_class_names(str(file), tmp_path).names == tuple(names)


@pytest.mark.parametrize(
    ("content", "names"),
    [
        (b"yolk\ngoal\n", ["yolk", "goal"]),
        (b"yolk,egg yolk\r\n traffic  light , light\r\n", ["yolk", "traffic light"]),
        (b"\xef\xbb\xbfEi\xe2\x80\x93x\n\n", ["Ei\u2013x"]),
        (YOLK, ["yolk", "goal"]),
        (LABEL_MAP, ["yolk", "goal"]),
    ],
)
def test_files_that_are_not_called_json(tmp_path, content, names):
    (tmp_path / "names.txt").write_bytes(content)
    assert read_class_names(str(tmp_path / "names.txt"), tmp_path).names == tuple(names)


def test_attributes_are_those_of_the_label_map_or_of_a_file_of_their_own(tmp_path):
    label_map, text, classes = (tmp_path / name for name in ("map.json", "a.txt", "c.json"))
    label_map.write_bytes(LABEL_MAP)
    text.write_bytes(b"red,scarlet\nblue\n")
    classes.write_bytes(YOLK)

    def attributes(source, attribute_source=None):
        attribute_source = attribute_source and str(attribute_source)
        names = read_class_names(str(source), tmp_path, attribute_source=attribute_source)
        return names.attributes, names.attribute_source

    assert attributes(label_map) == (("one", "two", "ten"), str(label_map))
    assert attributes(label_map, text) == (("red", "blue"), str(text))
    assert attributes(classes) == (None, "")
    assert attributes(classes, label_map) == (("one", "two", "ten"), str(label_map))
    assert attributes("none", text) == (("red", "blue"), str(text))


def test_names_of_attributes():
    names = ClassNames(("yolk",), False, "c.txt", ("red", "blue"), "a.txt")
    assert names.attributes_of([1, 0]) == ["blue", "red"]
    with pytest.raises(ConfigError, match=r"a\.txt has 2 names, none for the attribute 2"):
        names.attributes_of([0, 2])
    for attributes in (0, 2):
        names.require(1, attributes)
    with pytest.raises(ConfigError, match=r"a\.txt has 2 names, but there are 400 attributes"):
        names.require(1, 400)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (None, "can't be read: No such file"),
        (b"<html>not found</html>", "is no JSON"),
        (b"\xff\xfe\xfa", "is no JSON"),
        (b'["yolk"]', "is no JSON"),
        (b'{"categories": ["yolk"]}', "is no JSON"),
        (b'{"categories": [{"id": 1}]}', "is no JSON"),
        (b'{"idx_to_label": ["yolk"]}', "is no JSON"),
        (categories((1, "a"), (1, "b")), "an id occurs twice"),
        (categories((0, "yolk"), (1, "goal")), "id 0 is 'yolk'"),
    ],
)
def test_anything_else_is_one_line(tmp_path, content, reason):
    file = tmp_path / "names.json"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(ConfigError, match=f"^{file}: {reason}") as caught:
        read_class_names(str(file), tmp_path)
    assert "\n" not in str(caught.value)


def test_the_default_is_fetched_once_into_the_cache(server, tmp_path, monkeypatch):
    server.content = YOLK
    monkeypatch.setattr(class_names, "CLASSES_URL", server.url)
    for source in (None, server.url):
        assert read_class_names(source, tmp_path).names == ("yolk", "goal")
    assert len(server.requests) == 1


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
        with caplog.at_level(logging.WARNING):
            names = class_names_or_numbers(None, tmp_path, with_background=True)
    assert names == ClassNames(None, with_background=True)
    (message,) = [r.getMessage() for r in caplog.records if r.name.startswith("vmb_d2")]
    assert url in message
    assert "give a file of their names" in message


def test_none_asks_nobody(tmp_path):
    assert class_names_or_numbers("none", tmp_path) == ClassNames()
    assert list(tmp_path.iterdir()) == []


def test_indices_without_the_background():
    names = ClassNames(("yolk", "goal"), source="f.json").for_columns(2)
    assert [names[0], names[1]] == ["yolk", "goal"]
    assert [names.number(0), names.number(1)] == [0, 1]
    with pytest.raises(ConfigError, match=r"f\.json has 2 names, none for the class 2"):
        names[2]


@pytest.mark.parametrize("stated", [False, True])
def test_a_column_more_is_the_background(stated):
    names = ClassNames(("yolk", "goal"), with_background=stated).for_columns(3)
    assert [names[i] for i in range(3)] == ["background", "yolk", "goal"]
    assert [names.number(i) for i in range(3)] == [None, 0, 1]


@pytest.mark.parametrize(("columns", "background"), [(1, False), (1600, False), (2, True)])
def test_another_number_of_classes_is_an_error(columns, background):
    names = ClassNames(("yolk", "goal"), background, "f.json")
    with pytest.raises(ConfigError, match=rf"f\.json has 2 names, .* {columns - background} class"):
        names.for_columns(columns)


def test_numbers_are_those_stored():
    names = ClassNames().for_columns(1600)
    assert (names[17], names.number(17)) == ("class 17", 17)
    names = ClassNames(with_background=True)
    assert [names[0], names[17], names.number(17)] == ["background", "class 17", 16]
