"""Of all formats: every kind of death, a full disk, and damage, in a store and around it."""

import contextlib
import functools
import itertools
import os
import random
import shutil

import deaths
import pytest
import support
from store_files import LMDBS, ONE_FILE, check, kept, numbered, write

from vmb_d2.errors import OutputError, StoreError
from vmb_d2.stores import FORMATS

one_file = pytest.mark.parametrize("format_", ONE_FILE, indirect=True)


@pytest.mark.slow
def test_killed_at_any_moment(format_, path):
    rng = random.Random(format_.name)
    flushed = set()

    def work(send):
        writer = format_.writer(path)
        waiting = []
        for i in itertools.count():
            ((name, regions),) = numbered([i]).items()
            if name not in writer:
                writer.write(name, regions)
                waiting.append(name)
            if len(waiting) == 3:
                writer.flush()
                send("\n".join(waiting))
                waiting = []

    for i in range(15):
        flushed.update(deaths.killed(work, rng.uniform(0, 0.2), after_first=i % 3 == 0))
        if flushed:
            with format_.reader(path) as reader:
                there = list(reader.names())
                assert flushed <= set(there)
                assert len(there) == len(set(there))
                for name in rng.sample(there, min(10, len(there))):
                    ((_, regions),) = numbered([int(name.split()[-1])]).items()
                    support.assert_same_regions(reader.read(name), kept(regions, format_.name))
    assert flushed
    images = numbered(range(max(int(name.split()[-1]) for name in there) + 5))
    writer = format_.writer(path)
    assert flushed <= {name for name in images if name in writer}
    for name, regions in images.items():
        if name not in writer:
            writer.write(name, regions)
    writer.close()
    check(format_, path, images)


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in FORMATS if name not in LMDBS])
def test_machine_dies_at_every_step(tmp_path, monkeypatch, name):
    """LMDB's writing can't be watched from here; that it survives this is what it is made for."""
    format_ = FORMATS[name]
    rng = random.Random(0)
    folder = tmp_path / "out"
    path = folder / format_.place
    images = numbered(range(6))
    names = list(images)
    base = tmp_path / "base"
    base.mkdir()
    write(base / format_.place, format_.name, {n: images[n] for n in names[:2]})
    for below in ("0", "1", "2"):
        if not format_.one_file:
            (base / format_.place / below).mkdir(exist_ok=True)
    for fatal_step in itertools.count(1):
        for lost in (False, True):
            shutil.rmtree(folder, ignore_errors=True)
            shutil.copytree(base, folder)
            flushed, begun = set(names[:2]), set(names[:2])
            with monkeypatch.context() as patch:
                machine = deaths.Machine(folder, patch, fatal_step)
                with contextlib.suppress(deaths.PowerFailure):
                    writer = format_.writer(path)
                    try:
                        for n in names[2:5]:
                            begun.add(n)
                            writer.write(n, images[n])
                            if n != names[2]:
                                writer.flush()
                                flushed |= begun
                        writer.close()
                    finally:
                        writer.abandon()
            machine.leave(rng if lost else None)
            with format_.reader(path) as reader:
                there = set(reader.names())
            assert flushed <= there <= begun
            check(format_, path, {n: images[n] for n in there})
            writer = format_.writer(path)
            assert {n for n in names if n in writer} == there
            for n in names:
                if n not in writer:
                    writer.write(n, images[n])
            writer.close()
            check(format_, path, images)
        if not machine.dead:
            break
    assert fatal_step > 5


def big(numbers):
    """About 130 KB each."""
    return {f"image {i}": support.some_regions(i, count=32, dimension=1024) for i in numbers}


def write_until_full(format_, path, images):
    """Write with a flush each until it fails. Returns what was flushed."""
    flushed = {}
    writer = format_.writer(path)
    with pytest.raises(OutputError) as caught:
        for name, regions in images.items():
            writer.write(name, regions)
            writer.flush()
            flushed[name] = regions
    assert "\n" not in str(caught.value)
    assert str(path) in str(caught.value)
    writer.abandon()
    return flushed, str(caught.value)


def go_on(format_, path, images, there):
    writer = format_.writer(path)
    assert [name for name in images if name in writer] == list(there)
    for name, regions in images.items():
        if name not in writer:
            writer.write(name, regions)
    writer.close()
    check(format_, path, images)


@pytest.mark.slow
def test_a_full_disk(format_, tmp_path):
    (tmp_path / "disk").mkdir()
    path = tmp_path / "disk" / format_.place
    images = big(range(60 if format_.name == "uniter" else 30))

    def work(disk):
        flushed, reason = write_until_full(format_, path, images)
        assert "no space left" in reason.lower()
        assert len(flushed) > 5
        check(format_, path, flushed)
        disk.resize("9m")
        go_on(format_, path, images, flushed)
        disk.make_read_only()
        check(format_, path, images)
        with pytest.raises(OutputError) as caught:
            writer = format_.writer(path)
            writer.write("new", support.some_regions())
        assert str(path) in str(caught.value)

    deaths.on_small_disk(tmp_path / "disk", "3m", work)


@pytest.mark.parametrize("name", ["b", "sub/b"])
def test_a_store_that_is_deleted_is_not_made_again(format_, folder, path, name):
    writer = format_.writer(path)
    writer.write("a", support.some_regions())
    writer.flush()
    shutil.rmtree(folder)
    with pytest.raises(OutputError, match="No such file or directory") as caught:
        writer.write(name, support.some_regions())
        writer.flush()
    writer.abandon()
    assert str(path) in str(caught.value)
    assert not folder.exists()


@one_file
def test_a_store_that_is_replaced_is_left_alone(format_, folder, path):
    writer = format_.writer(path)
    writer.write("a", support.some_regions())
    writer.flush()
    shutil.move(path, folder / "moved")
    write(path, format_.name, {"other": support.some_regions(1)})
    writer.write("b", support.some_regions())
    with pytest.raises(OutputError, match="was replaced"):
        writer.flush()
    writer.abandon()
    check(format_, path, {"other": support.some_regions(1)})


def test_where_no_store_can_be(format_, tmp_path):
    (tmp_path / "file").write_text("text\n")
    (tmp_path / "folder").mkdir()
    is_file = support.data_file(format_.name, path := tmp_path / "folder") == path
    wrong_kind = "folder" if is_file and format_.one_file else "file"
    for place in (
        tmp_path / wrong_kind,
        tmp_path / "file" / "below",
        tmp_path / "missing" / "below",
        "/proc/nothing",
    ):
        with pytest.raises(OutputError) as caught:
            format_.writer(place)
        assert str(place) in str(caught.value)
        assert "\n" not in str(caught.value)
    assert (tmp_path / "file").read_text() == "text\n"
    assert os.listdir(tmp_path / "folder") == []


@one_file
def test_a_file_of_something_else_is_left_alone(format_, path):
    file = support.data_file(format_.name, path)
    file.parent.mkdir(exist_ok=True)
    for content in (b"x", b"some text\nof lines\n", b"\0" * 10_000, b"a\t" * 9 + b"b\n"):
        file.write_bytes(content)
        with pytest.raises(OutputError, match=path.name) as caught:
            format_.writer(path)
        assert "\n" not in str(caught.value)
        assert file.read_bytes() == content


def errors_of(*works):
    """The one line that each of the works on a damaged store fails with, if it does."""
    errors = []
    for work in works:
        try:
            work()
        except (StoreError, OutputError) as error:
            errors.append(str(error))
            assert "\n" not in errors[-1]
    return errors


def read_all(format_, path):
    """Read what can be read. Raises StoreError if something can't."""
    with format_.reader(path) as reader:
        works = [functools.partial(reader.read, name) for name in reader.names()]
        errors = errors_of(*works)
    if errors:
        raise StoreError(errors[0])


def write_one(format_, path):
    writer = format_.writer(path)
    try:
        writer.write("new", support.some_regions())
        writer.close()
    finally:
        writer.abandon()


def damaged(content, rng):
    """Copies of a file's content with something wrong."""
    for size in {0, 1, *(rng.randrange(len(content)) for _ in range(20)), len(content) - 1}:
        yield content[:size]
    for _ in range(150):
        place = rng.randrange(len(content))
        yield content[:place] + bytes([rng.randrange(256)]) + content[place + 1 :]
    for _ in range(20):
        begin, length = rng.randrange(len(content)), rng.randrange(1, 600)
        yield content[:begin] + bytes(length) + content[begin + length :]


def cut(content, rng):
    """Copies that lack a page or more at the end."""
    for _ in range(170):
        yield content[: rng.randrange(len(content) - 4096)]
    yield content


@pytest.mark.slow
def test_every_damage_is_an_error_of_one_line(format_, folder, path):
    """In a child, since damage that gets to a library could end the process."""
    write(path, format_.name, numbered(range(4)))
    files = [file for file in sorted(folder.rglob("*")) if file.is_file()]
    if not format_.one_file:
        files = files[:2]
    whole = folder.with_name("whole")
    shutil.copytree(folder, whole)
    # LMDB's library follows a damaged file's numbers out of it. A file that is cut is seen.
    damages = cut if format_.name in LMDBS else damaged

    def work(send):
        rng = random.Random(format_.name)
        for file in files:
            wrongs = damages(file.read_bytes(), rng)
            for wrong in itertools.islice(wrongs, 0, None, max(len(files) // 2, 1)):
                file.write_bytes(wrong)
                errors = errors_of(lambda: read_all(format_, path))
                if format_.one_file:  # a folder's files have no part in writing others
                    errors += errors_of(lambda: write_one(format_, path))
                    shutil.rmtree(folder)
                    shutil.copytree(whole, folder)
                assert all(str(path) in error for error in errors)
                send(len(errors))
            shutil.copyfile(whole / file.relative_to(folder), file)

    counts = deaths.in_child(work)
    assert len(counts) > 150
    assert len(set(counts)) > 1
    check(format_, path, numbered(range(4)))


@pytest.mark.parametrize("name", ["mmf", "npz", "openvqa", "lmdb"])
def test_no_code_in_a_pickle_is_run(tmp_path, name):
    made = tmp_path / "made"
    regions = support.some_regions(extra={"split": support.Runs(str(made))})
    write(tmp_path / "store", name, {"a": regions})
    reader = FORMATS[name].reader(tmp_path / "store")
    with reader, pytest.raises(StoreError, match=r"store/.*: .*posix\.mkdir"):
        reader.read("a")
    assert not made.exists()
