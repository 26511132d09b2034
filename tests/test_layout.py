"""The layout of docs/architecture.md: imports point downwards only, and files stay small."""

import ast

import pytest
import support

PACKAGE = support.ROOT / "vmb_d2"
# From the bottom up. A part imports from itself and from those before it.
PARTS = (
    "version",
    "errors",
    "utils",
    "structures",
    "config",
    "modeling",
    "checkpoint",
    "stores",
    "output",
    "data",
    "selection",
    "extractor",
    "engine",
    "comparison",
    "visualization",
    "status",
    "packing",
    "__init__",
)
FILES = sorted(PACKAGE.rglob("*.py"))
MOST_LINES = 350


def part_of(path):
    return path.relative_to(PACKAGE).with_suffix("").parts[0]


def imports(path):
    """(the part that is imported, the line) of each import of the package's own."""
    folder = path.relative_to(support.ROOT).parent.parts
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom):
            above = folder[: len(folder) - node.level + 1] if node.level else ()
            module = (*above, *(node.module or "").split("."))
            names = (
                [module]
                if len(module) > 1 and module[1]
                else [(module[0], alias.name) for alias in node.names]
            )
        elif isinstance(node, ast.Import):
            names = [tuple(alias.name.split(".")) for alias in node.names]
        else:
            continue
        for name in names:
            if name[0] == "vmb_d2" and len(name) > 1 and name[1]:
                yield name[1], node.lineno


def test_every_part_is_known():
    assert {part_of(path) for path in FILES} == set(PARTS)


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_point_downwards(path):
    own = PARTS.index(part_of(path))
    upwards = [(part, line) for part, line in imports(path) if PARTS.index(part) > own]
    assert not upwards


def test_few_modules_at_the_top():
    assert len(list(PACKAGE.glob("*.py"))) <= 8


def test_no_front_end_in_the_package():
    """Hydra stops at tools/."""
    front_end = {"hydra", "omegaconf", "submitit"}
    for path in FILES:
        for node in ast.walk(ast.parse(path.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and not node.level:
                names = [node.module]
            assert not front_end & {name.split(".")[0] for name in names}, path


@pytest.mark.parametrize("folder", ["vmb_d2", "weights_conversion", "tools"])
def test_files_are_small(folder):
    files = {
        path: len(path.read_text().splitlines()) for path in (support.ROOT / folder).rglob("*.py")
    }
    assert not [f"{path}: {lines}" for path, lines in files.items() if lines > MOST_LINES]
