"""What users install: the wheel, the source archive and an editable checkout each carry all they need.

Archives are built once, then each is installed into an environment of its own. To stay quick, that environment borrows
the dependencies of this one; what it imports as graphile_worker_py must still be its own copy, and a test says so.
"""

from __future__ import annotations

import email.message
import email.parser
import os
import re
import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from pathlib import Path

import psycopg
import pytest

ROOT = Path(__file__).resolve().parent.parent
WAYS = ["wheel", "sdist", "editable"]

pytestmark = pytest.mark.timeout(300)  # builds and installs, on machines of any age


def run(*command: str | Path, cwd: Path) -> str:
    """Run a command as in a shell of its own, without what this process was told by its environment."""
    private = re.compile("PYTHON|PYTEST|PIP_(?!CERT)|PG|DATABASE_URL|GRAPHILE|COV")
    environment = {name: value for name, value in os.environ.items() if not private.match(name)}
    done = subprocess.run(
        command, cwd=cwd, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
    return done.stdout


@pytest.fixture(scope="session")
def archives(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Build the source archive, and the wheel from that archive: so it is seen to be complete."""
    folder = tmp_path_factory.mktemp("dist")
    run(sys.executable, "-m", "build", "--no-isolation", "--outdir", folder, cwd=ROOT)
    (wheel,), (sdist,) = folder.glob("*.whl"), folder.glob("*.tar.gz")
    return {"wheel": wheel, "sdist": sdist}


@pytest.fixture(scope="session", params=WAYS)
def environment(
    request: pytest.FixtureRequest, archives: dict[str, Path], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """Make a virtual environment, install the package into it in one of three ways, and return its folder."""
    folder = tmp_path_factory.mktemp(request.param)
    run(sys.executable, "-m", "venv", "--without-pip", folder, cwd=folder)
    (packages,) = folder.glob("lib/python3*/site-packages")
    # A line of a .pth file adds a folder after our own, and does not follow the .pth files in it: the checkout that
    # this environment is an editable install of stays out of sight.
    (packages / "borrowed.pth").write_text(sysconfig.get_path("purelib") + "\n" + sysconfig.get_path("platlib") + "\n")
    what = ["--editable", ROOT] if request.param == "editable" else [archives[request.param]]
    pip = [sys.executable, "-m", "pip", "--python", folder / "bin" / "python", "--disable-pip-version-check"]
    offline = ["--no-deps", "--no-index", "--no-build-isolation", "--ignore-installed"]
    run(*pip, "install", *offline, *what, cwd=folder)
    return folder


@pytest.mark.parametrize("environment", WAYS, indirect=True)
def test_an_installed_package_migrates_a_database_and_adds_a_job(
    environment: Path, database_url: str, tmp_path: Path
) -> None:
    command = environment / "bin" / "graphile-worker-py"
    run(command, "migrate", "--database", database_url, cwd=tmp_path)
    run(command, "add", "x", "--database", database_url, cwd=tmp_path)
    with psycopg.connect(database_url) as connection:
        jobs = connection.execute("select task_identifier, attempts from graphile_worker.jobs").fetchall()
    assert jobs == [("x", 0)]


def test_an_installed_package_is_its_own_copy(environment: Path, tmp_path: Path) -> None:
    code = "import graphile_worker_py; print(graphile_worker_py.__file__)"
    file = Path(run(environment / "bin" / "python", "-c", code, cwd=tmp_path).strip())
    editable = "editable" in environment.name
    assert file.is_relative_to(ROOT if editable else environment)


def test_the_version_is_said_once(environment: Path, tmp_path: Path) -> None:
    source = (ROOT / "graphile_worker_py" / "_version.py").read_text("utf-8")
    (version,) = re.findall(r'(?m)^__version__ = "(.+?)"', source)
    assert version not in (ROOT / "pyproject.toml").read_text("utf-8")
    assert version in run(environment / "bin" / "graphile-worker-py", "--version", cwd=tmp_path)
    code = "import importlib.metadata; print(importlib.metadata.version('graphile-worker-py'))"
    assert run(environment / "bin" / "python", "-c", code, cwd=tmp_path).strip() == version


def test_the_wheel_holds_what_the_package_reads_and_nothing_else(archives: dict[str, Path]) -> None:
    with zipfile.ZipFile(archives["wheel"]) as wheel:
        names = {name for name in wheel.namelist() if ".dist-info/" not in name}
    expected = {"pytest_graphile_worker_py.py"}
    for source, inside in {
        "graphile_worker_py": "graphile_worker_py",
        "migrations": "graphile_worker_py/migrations",
        "examples/notifications": "graphile_worker_py/examples/notifications",
    }.items():
        files = [path for path in (ROOT / source).rglob("*") if path.is_file() and "__pycache__" not in path.parts]
        assert files
        expected |= {f"{inside}/{path.relative_to(ROOT / source).as_posix()}" for path in files}
    assert "graphile_worker_py/py.typed" in names
    assert names == expected


def test_the_source_archive_holds_the_tests_the_documents_and_the_examples(archives: dict[str, Path]) -> None:
    with tarfile.open(archives["sdist"]) as sdist:
        names = {name.partition("/")[2] for name in sdist.getnames()}
    for folder in ("benchmarks", "docs", "examples", "graphile_worker_py", "migrations", "tests"):
        files = {path.relative_to(ROOT).as_posix() for path in (ROOT / folder).rglob("*.*") if path.is_file()}
        assert {file for file in files if "__pycache__" not in file} <= names
    assert {"LICENSE", "README.md", "CHANGELOG.md", "Makefile", ".ci/run", "pyproject.toml"} <= names
    assert "pytest_graphile_worker_py.py" in names
    assert not any(part in name for name in names for part in (".venv", "__pycache__", ".git/"))


def metadata(wheel: Path) -> email.message.Message:
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        return email.parser.Parser().parsestr(archive.read(name).decode())


def test_every_extra_that_is_promised_can_be_asked_for(archives: dict[str, Path]) -> None:
    about = metadata(archives["wheel"])
    extras = {"embedded", "demo", "django", "flask", "sqlalchemy", "reload", "dev"}
    assert set(about.get_all("Provides-Extra", [])) == extras
    core = [line for line in about.get_all("Requires-Dist", []) if "extra ==" not in line]
    assert {re.split(r"[\[<>=]", line)[0] for line in core} == {
        "psycopg", "psycopg-pool", "attrs", "cattrs", "click", "json5", "rich", "tomli",
    }  # fmt: skip
