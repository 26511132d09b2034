"""Listing, naming, excluding and slicing."""

import os

import pytest

from vmb_d2.data import image_list as inputs
from vmb_d2.errors import ConfigError, InputError


def make(folder, *names):
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")
    return folder


def below(folder, paths):
    return [os.path.relpath(path, folder) for path in paths]


def test_images_of_a_folder_sorted_by_path(tmp_path):
    make(tmp_path, "b.png", "a.jpeg", "C.JPG", "notes.txt", ".hidden.png", "sub/d.png", "e.jpg.bak")
    (tmp_path / "folder.png").mkdir()
    assert below(tmp_path, inputs.list_images(tmp_path)) == ["C.JPG", "a.jpeg", "b.png"]


def test_folders_below_and_links_to_folders(tmp_path):
    make(tmp_path / "in", "b.png", "a/z.Png", "a/deep/er/y.jpg", "a/.git/x.png", "c.png/inside.png")
    make(tmp_path / "elsewhere", "x.jpeg")
    (tmp_path / "in" / "link").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "in" / "a" / "loop").symlink_to(tmp_path / "in" / "a")
    found = below(tmp_path / "in", inputs.list_images(tmp_path / "in", recursive=True))
    assert found == ["a/deep/er/y.jpg", "a/z.Png", "b.png", "c.png/inside.png", "link/x.jpeg"]
    assert below(tmp_path / "in", inputs.list_images(tmp_path / "in")) == ["b.png"]


def test_nothing_to_list(tmp_path):
    make(tmp_path, "sub/a.png", "b.webp")
    with pytest.raises(InputError, match=r"input_dir=.*no \.png.*recursive=true.*1 \.webp \("):
        inputs.list_images(tmp_path)
    with pytest.raises(InputError, match="No such file"):
        inputs.list_images(tmp_path / "none")


def test_what_is_not_taken_is_counted_in_one_line(tmp_path, caplog):
    caplog.set_level("INFO")
    make(tmp_path, "a.png", "b.JPG", "1.webp", "2.WEBP", "3.tif", "a.txt", ".x.webp", "x.gif.gz")
    (tmp_path / "album.jpg").mkdir()
    (tmp_path / "gone.png").symlink_to(tmp_path / "nowhere")
    (tmp_path / "gone.txt").symlink_to(tmp_path / "nowhere")
    inputs.list_images(tmp_path)
    (line,) = caplog.messages
    assert line == (
        f"{tmp_path}: 3 images (1 broken link among them); not taken: 2 .webp, 1 .tif "
        "(the extensions [png,jpg,jpeg,webp,tif], or a list of paths, take those that Pillow "
        "reads), 1 folder named like an image"
    )
    caplog.clear()
    make(tmp_path, "album.jpg/deep/y.webp")
    inputs.list_images(tmp_path, recursive=True)
    (line,) = caplog.messages
    assert "3 .webp, 1 .tif" in line
    assert "folder" not in line


def test_other_extensions(tmp_path):
    make(tmp_path, "a.png", "b.WebP", "c.tif", "d.tiff")
    found = inputs.list_images(tmp_path, extensions=["webp", ".TIF"])
    assert below(tmp_path, found) == ["b.WebP", "c.tif"]


def test_links_and_pipes_named_like_images_are_left_to_fail(tmp_path):
    make(tmp_path, "a.png")
    (tmp_path / "loop.png").symlink_to(tmp_path / "loop.png")
    (tmp_path / "gone.jpg").symlink_to(tmp_path / "nowhere")
    os.mkfifo(tmp_path / "pipe.png")
    os.mkfifo(tmp_path / "pipe")
    expected = ["a.png", "gone.jpg", "loop.png", "pipe.png"]
    assert below(tmp_path, inputs.list_images(tmp_path)) == expected
    for name in expected:
        assert inputs.list_images(tmp_path / name) == [str(tmp_path / name)]
        assert inputs.root_of(tmp_path / name) == str(tmp_path)


def test_a_folder_below_that_cant_be_listed_is_left_to_fail(tmp_path, monkeypatch):
    make(tmp_path, "a.png", "sub.d/b.png", "sub.d/gone/c.png")
    (tmp_path / "sub.d" / "loop").symlink_to(tmp_path / "sub.d" / "loop")
    (tmp_path / "sub.d" / "link").symlink_to(tmp_path / "nowhere")
    scandir = os.scandir

    def refuse(path):
        if str(path).endswith("gone"):
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    found = inputs.list_images(tmp_path, recursive=True)
    expected = ["a.png", "sub.d/b.png", "sub.d/gone/", "sub.d/loop/"]
    assert [path.removeprefix(f"{tmp_path}/") for path in found] == expected
    assert [inputs.is_folder(path) for path in found] == [False, False, True, True]
    for naming in inputs.NAMINGS:
        images = inputs.name_images(found, naming, tmp_path)
        assert [image.name for image in images[2:]] == expected[2:]
    (tmp_path / "exclude.txt").write_text("sub.d/gone\n")
    left = inputs.without_excluded(images, tmp_path / "exclude.txt", "relative", tmp_path)
    assert [image.name for image in left] == ["a.png", "sub.d/b.png", "sub.d/loop/"]


def test_lists_of_paths(tmp_path):
    (tmp_path / "1.txt").write_text("\ufeffb.jpg\r\n\n  /abs/a.png \nsub/../c d.gif\n", "utf-8")
    (tmp_path / "2.txt").write_bytes(b"caf\xe9.jpg\nb.jpg")
    paths = inputs.read_image_lists([tmp_path / "1.txt", tmp_path / "2.txt"], "/root")
    latin = "/root/caf\udce9.jpg"
    assert paths == sorted(["/abs/a.png", "/root/b.jpg", "/root/c d.gif", latin])


def test_lists_that_are_none(tmp_path):
    (tmp_path / "empty.txt").write_text("\n")
    with pytest.raises(InputError, match=r"input_list=.*no path"):
        inputs.read_image_lists([tmp_path / "empty.txt"])
    with pytest.raises(InputError, match=r"input_list=.*none\.txt: No such file"):
        inputs.read_image_lists([tmp_path / "none.txt"])


@pytest.mark.parametrize(
    ("naming", "names"),
    [
        ("mmf", ["x", "y"]),
        ("relative", ["x.1", "sub/y"]),
        ("relative_with_extension", ["x.1.jpg", "sub/y.png"]),
    ],
)
@pytest.mark.parametrize("folder", ["in", "in/", "./in", "/abs/in", "", ".", "./", "..", "/"])
def test_names(naming, names, folder):
    paths = [os.path.join(folder, "x.1.jpg"), os.path.join(folder, "sub", "y.png")]
    images = inputs.name_images(paths, naming, folder)
    assert [image.name for image in images] == names
    assert [image.path for image in images] == paths


def test_names_that_there_are_not():
    with pytest.raises(ConfigError, match=r"names=x: valid are mmf, relative"):
        inputs.name_images(["a.png"], "x")
    with pytest.raises(InputError, match="no name before its first dot"):
        inputs.name_images(["in/.png"], "mmf")
    for path, folder in (
        ("/elsewhere/a.png", "in"),
        ("in/../a.png", "in"),
        ("inside/a.png", "in"),
        ("in//../..", ".."),
        ("../../a.png", ".."),
        ("/a.png", ""),
    ):
        with pytest.raises(InputError, match="isn't in input_dir="):
            inputs.name_images([path], "relative", folder)


def test_exclude_list_takes_names_and_paths(tmp_path):
    images = inputs.name_images([f"in/{c}.x.jpg" for c in "abcde"])
    (tmp_path / "list.txt").write_text("a\n\nsome/where/b.jpg\n c.png \nin/d.x.jpg")
    assert inputs.without_excluded(images, tmp_path / "list.txt") == images[4:]
    with pytest.raises(InputError, match=r"exclude_list"):
        inputs.without_excluded(images, tmp_path / "none.txt")


def test_exclude_list_of_relative_paths(tmp_path):
    paths = ["in/a/x.1.jpg", "in/b/x.1.jpg", "in/c/x.1.jpg", "in/d/x.1.jpg"]
    images = inputs.name_images(paths, "relative", "in")
    (tmp_path / "list.txt").write_text("a/x.1\nb/x.1.jpg\nin/c/x.1.jpg\nx.1\nx")
    assert inputs.without_excluded(images, tmp_path / "list.txt", "relative", "in") == images[3:]


def test_two_images_of_one_name_are_refused_with_a_list():
    paths = ["x.jpg", "x.png", "y.1.jpg", "y.2.jpg", "z.jpg"]
    images = inputs.name_images(paths)
    with pytest.raises(InputError, match="under one name") as caught:
        inputs.select_images(images)
    text = str(caught.value)
    assert "x.jpg and x.png (both x); y.1.jpg and y.2.jpg (both y)" in text
    assert "z.jpg" not in text
    assert "names=relative" in text
    assert inputs.select_images(images, 1, 3) == images[1:3]
    assert inputs.select_images(images, 3) == images[3:]
    with pytest.raises(InputError, match=r"\(both x\)"):
        inputs.select_images(inputs.name_images(paths, "relative"))
    assert len(inputs.select_images(inputs.name_images(paths, "relative_with_extension"))) == 5
