"""The architecture: imports go down the layers only, without cycles, and gradio stays with the page."""

import ast
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
# As mtl/__init__.py and CONTRIBUTING.md state them; a name stands for the module or the whole package.
LAYERS = (
    ("errors", "config", "files", "command", "model_files", "place"),
    ("dicom", "photo", "frame", "device", "model", "losses", "metrics"),
    ("data", "checkpoint"),
    ("training", "analysis", "evaluation", "export", "hub"),
    ("api",),
    ("bench", "serve", "cli", "ui"),
    ("app", "__main__"),
)
LEVELS = {name: level for level, names in enumerate(LAYERS) for name in names}


def modules() -> dict[str, Path]:
    """Dotted name -> file of everything that is shipped: mtl.* and app."""
    files = {ROOT / "app.py"} | set((ROOT / "mtl").rglob("*.py"))
    return {
        ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path for path in sorted(files)
    }


MODULES = modules()


def imports(path: Path) -> Iterator[str]:
    """Every dotted name that a file imports, in functions too, but not for type checkers only."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for_types = {
        node
        for branch in ast.walk(tree)
        if isinstance(branch, ast.If) and ast.unparse(branch.test) == "TYPE_CHECKING"
        for statement in branch.body
        for node in ast.walk(statement)
    }
    for node in set(ast.walk(tree)) - for_types:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path.name}: a relative import"
            # The version is the one thing that the root itself defines.
            for alias in [alias for alias in node.names if alias.name != "__version__"]:
                name = f"{node.module}.{alias.name}"
                yield name if name in MODULES else str(node.module)


def own_imports(name: str) -> set[str]:
    return {imported for imported in imports(MODULES[name]) if imported.split(".")[0] == "mtl"}


def part(module: str) -> str:
    """What of LAYERS a module belongs to."""
    return module.removeprefix("mtl.").split(".")[0]


INSIDE = [name for name in MODULES if name != "mtl"]


def test_every_module_has_a_layer() -> None:
    assert {part(name) for name in INSIDE} == set(LEVELS)


@pytest.mark.parametrize("name", INSIDE)
def test_imports_go_down(name: str) -> None:
    for imported in own_imports(name):
        assert imported != "mtl", f"{name} imports the package root; import from the defining module"
        assert imported in MODULES, f"{name} imports {imported}"
        assert LEVELS[part(imported)] <= LEVELS[part(name)], f"{name} is below {imported}"


def test_there_are_no_cycles() -> None:
    order = list(TopologicalSorter({name: own_imports(name) for name in INSIDE}).static_order())
    assert set(INSIDE) <= set(order)


def test_parts_of_one_layer_form_no_cycle() -> None:
    graph: dict[str, set[str]] = {}
    for name in INSIDE:
        graph.setdefault(part(name), set()).update(part(imported) for imported in own_imports(name))
    TopologicalSorter({name: below - {name} for name, below in graph.items()}).prepare()


@pytest.mark.parametrize("name", [name for name in INSIDE if part(name) not in ("ui", "serve", "app")])
def test_gradio_stays_with_the_page(name: str) -> None:
    assert not {imported for imported in imports(MODULES[name]) if imported.split(".")[0] == "gradio"}


def test_the_package_states_its_layers() -> None:
    docstring = ast.get_docstring(ast.parse(MODULES["mtl"].read_text(encoding="utf-8"))) or ""
    assert "imports go down only" in docstring
    assert all(name in docstring for name in LEVELS if name not in ("app", "__main__"))


def test_the_network_reads_no_files_and_nothing_trains_in_it() -> None:
    assert set(imports(MODULES["mtl.model"])) <= {
        "torch", "torch.nn.functional", "torchvision.models", "mtl.config",
    }  # fmt: skip
