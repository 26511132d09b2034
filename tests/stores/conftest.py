"""A store of each format in an output folder."""

import pytest

from vmb_d2.stores import FORMATS


@pytest.fixture(params=FORMATS)
def format_(request):
    return FORMATS[request.param]


@pytest.fixture
def folder(tmp_path):
    """An output folder."""
    (tmp_path / "out").mkdir()
    return tmp_path / "out"


@pytest.fixture
def path(folder, format_):
    """Where the store of the format lies in it."""
    return folder / format_.place
