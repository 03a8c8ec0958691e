"""The house rules that a program can check: floors, one reader per statement, sizes, docstrings, clean files.

Each rule is a function from a directory to a list of sentences, empty when the rule is kept. The first half of the
tests holds the repository to them; the second half breaks each on a made-up tree, to show that it can fail.
"""

from __future__ import annotations

import ast
import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from floors import FLOORS, UPWARD

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "graphile_worker_py"

# Modules that may execute statements: why.
EXECUTORS = {
    "_database": "the only module that runs statements",
    "_psycopg2": "runs them for it on a connection of the other driver",
    "_awaited": "the same on an asynchronous one",
}

# "module.function": why it takes more than three positional parameters.
POSITIONAL: dict[str, str] = {}

MAX_FILE_LINES = 400
MAX_FUNCTION_LINES = 60
MAX_POSITIONAL = 3
VAGUE_NAMES = {"utils.py", "util.py", "common.py", "helpers.py", "base.py", "types.py", "misc.py"}
LOCK_FILES = re.compile(r"(?i)(^|[.-])lock(b|file)?(\.(json|ya?ml))?$|^pylock\..*toml$|shrinkwrap\.json$")
FOREIGN = {
    "a registry host": re.compile(
        r"pypi[.]org|pythonhosted[.]org|registry[.](npmjs|yarnpkg)|(deb|security)[.]debian[.]org"
    ),
    "a path of one machine": re.compile(r"(?<![\w.$}~])/(?:home|Users|root|work|private)/[\w.]|[A-Z]:\\\\?Users\\"),
}

Function = ast.FunctionDef | ast.AsyncFunctionDef


def modules(package: Path) -> dict[str, Path]:
    """Return every module of a package by its dotted name without the package's; the package itself is ""."""
    found = {}
    for path in sorted(package.rglob("*.py")):
        parts = path.relative_to(package).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def parse(path: Path) -> ast.Module:
    return ast.parse(path.read_text("utf-8"), str(path))


def absolute(node: ast.ImportFrom, path: Path, package: Path) -> str:
    """Return the dotted name an import-from starts at, relative ones resolved."""
    if not node.level:
        return node.module or ""
    parents = path.relative_to(package.parent).parts[: -node.level]
    return ".".join([*parents, *([node.module] if node.module else [])])


def named_imports(path: Path, package: Path) -> Iterator[tuple[str, int]]:
    """Yield every dotted name a module imports: at its top, in functions, under TYPE_CHECKING, by import_module."""
    for node in ast.walk(parse(path)):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            start = absolute(node, path, package)
            yield from ((f"{start}.{alias.name}", node.lineno) for alias in node.names)
        elif isinstance(node, ast.Call) and called(node) in {"import_module", "__import__"}:
            yield from ((str(text.value), node.lineno) for text in node.args[:1] if isinstance(text, ast.Constant))


def called(node: ast.Call) -> str:
    function = node.func
    return function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")


def imports(path: Path, package: Path, known: dict[str, Path]) -> Iterator[tuple[str, int]]:
    """Yield the modules of this package that a module imports; a name defined in a module counts as that module."""
    for dotted, line in named_imports(path, package):
        first, *rest = dotted.split(".")
        if first != package.name:
            continue
        while rest and ".".join(rest) not in known:
            rest.pop()
        yield ".".join(rest), line


def broken_floors(
    package: Path, floors: tuple[tuple[str, ...], ...], *, upward: dict[tuple[str, str], str]
) -> list[str]:
    known = modules(package)
    heights = {name: -depth for depth, floor in enumerate(floors) for name in floor}
    problems = [f"{path}: give the module {name!r} a floor" for name, path in known.items() if name not in heights]
    unused = set(upward)
    for name, path in known.items():
        for target, line in imports(path, package, known):
            unused.discard((name, target))
            if name not in heights or target not in heights or target == name or (name, target) in upward:
                continue
            if heights[target] >= heights[name]:
                problems.append(f"{path}:{line}: {name!r} imports {target!r}, which is not on a lower floor")
    return problems + [f"the exception {pair} is not needed" for pair in sorted(unused)]


def strings(path: Path) -> Iterator[str]:
    """Yield the string literals of a module that are neither docstrings nor keys of a dict."""
    tree = parse(path)
    keys = {id(key) for node in ast.walk(tree) if isinstance(node, ast.Dict) for key in node.keys}
    docs = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in keys | docs:
            yield node.value


def misread_statements(package: Path) -> list[str]:
    """Find the files under sql/ whose name is not a string in exactly one module."""
    texts = {name: set(strings(path)) for name, path in modules(package).items()}
    problems = []
    for statement in sorted(path.stem for path in package.glob("sql/*.sql")):
        readers = [name for name in texts if statement in texts[name]]
        if len(readers) != 1:
            problems.append(f"sql/{statement}.sql must have one reader, it has {len(readers)}: {', '.join(readers)}")
    return problems


def stray_statements(package: Path, *, executors: dict[str, str]) -> list[str]:
    """Find calls that run SQL, and string literals that are SQL, outside the modules that may."""
    problems = []
    verbs = re.compile(
        r"\s*(select\s.+\sfrom|insert\s+into|update\s.+\sset|delete\s+from|with\s+\w+\s+as\s*\(|listen|notify)\s",
        re.I | re.S,
    )
    for name, path in modules(package).items():
        if name in executors:
            continue
        for node in ast.walk(parse(path)):
            runs = isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)
            if runs and called(node) in {"execute", "executemany", "stream"}:
                problems.append(f"{path}:{node.lineno}: .{called(node)}() outside {', '.join(executors)}")
        problems += [f"{path}: a statement outside sql/: {text[:40]!r}" for text in strings(path) if verbs.match(text)]
    return problems


def functions(path: Path) -> Iterator[tuple[str, Function, bool]]:
    """Yield (dotted name, node, is a method) for each function of a module, nested ones too."""

    def walk(node: ast.AST, prefix: str) -> Iterator[tuple[str, Function, bool]]:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, Function):
                yield f"{prefix}{child.name}", child, isinstance(node, ast.ClassDef)
            named = isinstance(child, Function | ast.ClassDef)
            yield from walk(child, f"{prefix}{child.name}." if named else prefix)

    yield from walk(parse(path), "")


def decorators(node: Function | ast.ClassDef) -> set[str]:
    return {ast.unparse(decorator).split("(")[0].rpartition(".")[2] for decorator in node.decorator_list}


def oversized(tree: Path) -> list[str]:
    problems = []
    for path in sorted(tree.rglob("*.py")):
        lines = len(path.read_text("utf-8").splitlines())
        if lines > MAX_FILE_LINES:
            problems.append(f"{path}: {lines} lines, at most {MAX_FILE_LINES}")
        for name, node, _ in functions(path):
            lines = (node.end_lineno or node.lineno) - node.lineno + 1
            if lines > MAX_FUNCTION_LINES:
                problems.append(f"{path}:{node.lineno}: {name} has {lines} lines, at most {MAX_FUNCTION_LINES}")
    return problems


def crowded_signatures(package: Path, *, exceptions: dict[str, str]) -> list[str]:
    problems = []
    for module, path in modules(package).items():
        for name, node, is_method in functions(path):
            bound = is_method and "staticmethod" not in decorators(node)
            count = len(node.args.posonlyargs) + len(node.args.args) - bound
            if (count > MAX_POSITIONAL) != (f"{module}.{name}" in exceptions):
                problems.append(f"{path}:{node.lineno}: {name} takes {count} positional parameters; see POSITIONAL")
    return problems


def undocumented(package: Path) -> list[str]:
    """Find modules, and public classes, functions and methods of any module, that say nothing about themselves."""

    def walk(node: ast.AST, prefix: str) -> Iterator[str]:
        for child in ast.iter_child_nodes(node):
            if not isinstance(child, Function | ast.ClassDef):
                yield from walk(child, prefix) if isinstance(child, ast.If | ast.Try) else ()
            elif not child.name.startswith("_"):
                if not ast.get_docstring(child) and not decorators(child) & {"overload", "setter"}:
                    yield f"{prefix}:{child.lineno}: {child.name} needs a docstring"
                yield from walk(child, prefix) if isinstance(child, ast.ClassDef) else ()

    problems = []
    for path in modules(package).values():
        tree = parse(path)
        if tree.body and not ast.get_docstring(tree):
            problems.append(f"{path}: the module needs a docstring")
        problems += walk(tree, str(path))
    return problems


def repository_files(root: Path) -> Iterator[Path]:
    """Yield what is ours: no environments, caches or build results. Works in a source archive too, which has no git."""
    for directory, folders, files in os.walk(root):
        folders[:] = sorted(
            name
            for name in folders
            if not name.startswith(".") or name in {".ci", ".github"}
            if name not in {"build", "dist", "node_modules", "__pycache__"} and not name.endswith(".egg-info")
        )
        yield from (Path(directory, name) for name in sorted(files) if name != ".git")  # a file in a linked worktree


def unclean_files(root: Path) -> list[str]:
    problems = []
    for path in repository_files(root):
        name = path.relative_to(root).as_posix()
        if path.name in VAGUE_NAMES:
            problems.append(f"{name}: a name that says nothing")
        if LOCK_FILES.search(path.name):
            problems.append(f"{name}: a lock file")
        text = path.read_text("utf-8", errors="replace")
        problems += [f"{name}: {what}: {hit[0]!r}" for what, rule in FOREIGN.items() if (hit := rule.search(text))]
    return problems


def assert_none(problems: list[str]) -> None:
    assert not problems, "\n" + "\n".join(problems)


def test_imports_go_strictly_down() -> None:
    assert_none(broken_floors(PACKAGE, FLOORS, upward=UPWARD))


def test_the_floors_name_each_module_once() -> None:
    assert sorted(sum(FLOORS, ())) == sorted(modules(PACKAGE))


def test_every_statement_has_exactly_one_reader() -> None:
    assert_none(misread_statements(PACKAGE))


def test_statements_are_ascii() -> None:
    """A database whose encoding lacks a character refuses the statement, comments and all."""
    for path in [*(PACKAGE / "sql").glob("*.sql"), *(ROOT / "migrations").glob("*.sql")]:
        assert path.read_text("utf-8").isascii(), path


def test_no_statement_runs_elsewhere() -> None:
    assert_none(stray_statements(PACKAGE, executors=EXECUTORS))


@pytest.mark.parametrize("folder", ["graphile_worker_py", "tests", "examples", "benchmarks"])
def test_files_and_functions_are_short(folder: str) -> None:
    assert_none(oversized(ROOT / folder))


def test_signatures_have_few_positional_parameters() -> None:
    assert_none(crowded_signatures(PACKAGE, exceptions=POSITIONAL))


def test_public_names_are_documented() -> None:
    assert_none(undocumented(PACKAGE))


def test_files_are_clean() -> None:
    assert_none(unclean_files(ROOT))


# The rules on made-up trees.


def house(root: Path, files: dict[str, str]) -> Path:
    """Write a package called house, and return its folder."""
    for name, text in files.items():
        path = root / "house" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, "utf-8")
    return root / "house"


@pytest.mark.parametrize(
    "line",
    [
        "import house.roof",
        "from house.roof import tile",
        "from house import roof",
        "from . import roof",
        "from .roof import tile",
        "def f():\n    from house import roof",
        "if TYPE_CHECKING:\n    from house.roof import tile",
        "importlib.import_module('house.roof')",
        "from house.wall import brick",
    ],
)
def test_an_import_that_does_not_go_down_is_found(tmp_path: Path, line: str) -> None:
    package = house(tmp_path, {"__init__.py": "from house import roof", "roof.py": "", "floor.py": line, "wall.py": ""})
    floors = (("",), ("roof",), ("floor", "wall"))
    (problem,) = broken_floors(package, floors, upward={})
    assert "'floor' imports" in problem
    target = "wall" if "wall" in line else "roof"
    assert broken_floors(package, floors, upward={("floor", target): "because"}) == []


def test_a_module_without_a_floor_and_an_idle_exception_are_found(tmp_path: Path) -> None:
    package = house(tmp_path, {"__init__.py": "", "a/__init__.py": "", "a/b.py": "from .. import a\nimport os"})
    assert [line.split(": ")[1] for line in broken_floors(package, (("a",), ("",)), upward={})] == [
        "give the module 'a.b' a floor"
    ]
    floors = (("a.b",), ("a",), ("",))
    assert broken_floors(package, floors, upward={("a", "a.b"): "once"}) == ["the exception ('a', 'a.b') is not needed"]


def test_statements_with_no_reader_or_two_are_found(tmp_path: Path) -> None:
    files = {"sql/idle.sql": "", "sql/fine.sql": "", "sql/shared.sql": "", "b.py": "run('shared')"}
    package = house(tmp_path, {**files, "a.py": "'idle'\nrun('shared')\nrun('fine')\nx = {'idle': 1}"})
    found = [line.split(" must")[0] for line in misread_statements(package)]
    assert found == ["sql/idle.sql", "sql/shared.sql"]


@pytest.mark.parametrize(
    "line", ["cursor.execute('x')", "c.cursor().executemany(q, p)", "q = 'SELECT 1 FROM x '", "q = 'delete from x '"]
)
def test_a_statement_outside_its_room_is_found(tmp_path: Path, line: str) -> None:
    package = house(tmp_path, {"a.py": line, "b.py": "execute(job)\nlog('select a task from the list')\ncopy.copy(x)"})
    assert len(stray_statements(package, executors={"b": "-"})) == 1
    assert stray_statements(package, executors={"a": "-", "b": "-"}) == []


def test_long_files_and_functions_are_found(tmp_path: Path) -> None:
    body = "    pass\n"
    package = house(tmp_path, {"a.py": "def f():\n" + body * 59, "b.py": "class A:\n  def f():\n" + body * 60})
    (problem,) = oversized(package)
    assert "A.f has 61 lines" in problem
    (package / "c.py").write_text("\n" * 401)
    assert len(oversized(package)) == 2


def test_crowded_signatures_are_found(tmp_path: Path) -> None:
    fine = "def f(a, b, c, *, d): ...\nclass A:\n  def f(self, a, b, c): ...\n"
    package = house(
        tmp_path, {"a.py": fine + "  @staticmethod\n  def g(a, b, c, d): ...", "b.py": "def f(a, /, b, c, d): ..."}
    )
    assert [line.split(": ")[1].split()[0] for line in crowded_signatures(package, exceptions={})] == ["A.g", "f"]
    assert crowded_signatures(package, exceptions={"a.A.g": "-", "b.f": "-"}) == []


def test_undocumented_names_are_found(tmp_path: Path) -> None:
    package = house(
        tmp_path, {"a.py": "class A:\n  def f(self): ...\n  def _g(self): ...\ndef _h(): ...", "empty.py": ""}
    )
    assert [line.split(": ")[1].split()[0] for line in undocumented(package)] == ["the", "A", "f"]


def test_unclean_files_are_found(tmp_path: Path) -> None:
    home, registry = "/ho" + "me/ann/x", "https://registry." + "npmjs.org"
    package = house(
        tmp_path, {"utils.py": "", "uv.lock": "", "package-lock.json": "{}", "a.md": home, "b.sh": registry}
    )
    house(tmp_path, {".venv/base.py": home, "lock_jobs.sql": "", "ok.md": "$HOME/x ~/home/x example.com/home/"})
    names = [line.split(":")[0] for line in unclean_files(package)]
    assert names == ["a.md", "b.sh", "package-lock.json", "utils.py", "uv.lock"]
