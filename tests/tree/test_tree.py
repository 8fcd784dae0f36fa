"""The tree keeps its own rules: those that no linter knows."""

import ast
import json
import re
import subprocess
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SOURCES = ROOT / "src" / "coder"
CRATES = sorted(path.parent for path in ROOT.glob("crates/*/Cargo.toml"))


def tracked() -> list[Path]:
    listing = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=False)
    if listing.returncode != 0:
        pytest.skip("not a git checkout")
    paths = [ROOT / name for name in listing.stdout.decode().split("\0") if name]
    assert ROOT / "pyproject.toml" in paths
    return [path for path in paths if path.is_file()]


def room_names(pattern: str) -> set[str]:
    """Rooms named in the first column of ARCHITECTURE.md's table."""
    rows = [line.split("|")[1] for line in (ROOT / "ARCHITECTURE.md").read_text().splitlines() if line.startswith("| ")]
    names = {name for cell in rows for name in re.findall(pattern, cell)}
    assert names
    return names


@pytest.mark.parametrize("crate", CRATES, ids=lambda crate: crate.name)
def test_every_crate_takes_the_lints_of_the_workspace(crate: Path):
    assert tomllib.loads((crate / "Cargo.toml").read_text()).get("lints") == {"workspace": True}


def test_the_architecture_names_exactly_the_crates_there_are():
    assert room_names(r"`crates/(\w+)`") == {crate.name for crate in CRATES}


def test_the_architecture_names_exactly_the_packages_there_are():
    assert room_names(r"`src/coder/(\w+)`") == {path.parent.name for path in SOURCES.glob("*/__init__.py")}


def test_requirements_come_from_the_index_and_are_hashed():
    lines = (ROOT / "requirements.txt").read_text().splitlines()
    assert [line for line in lines if re.search(r"://| @ |^-", line)] == []
    pins = [number for number, line in enumerate(lines) if line[:1].isalnum()]
    assert pins
    unhashed = [
        lines[n] for n in pins if not re.match(r"\S+==\S+( ; .+)? \\$", lines[n]) or "--hash=" not in lines[n + 1]
    ]
    assert unhashed == []


def test_every_direct_dependency_is_pinned():
    def normal(name: str) -> str:
        return re.sub(r"[-_.]+", "-", name).lower()

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = project["dependencies"] + project["optional-dependencies"]["dev"]
    pinned = {normal(match) for match in re.findall(r"(?m)^([\w.-]+)==", (ROOT / "requirements.txt").read_text())}
    assert {normal(re.split(r"[^\w.-]", name, maxsplit=1)[0]) for name in wanted} <= pinned


def test_no_file_names_a_path_of_the_machine_it_was_written_on():
    homes = r"/home/(?!(?:a|me|user)/)[a-z][\w-]*/|/Users/[A-Za-z]|/root/"  # but a made-up user may have a home
    machine = re.compile(rf"(?<![\w.}})*-])(?:{homes}|{re.escape(str(ROOT))}(?![\w-]))".encode())
    found = {
        str(path.relative_to(ROOT)): match.group().decode()
        for path in tracked()
        if path != Path(__file__) and (match := machine.search(path.read_bytes()))
    }
    assert found == {}


def test_every_file_of_vectors_is_in_its_manifest():
    listed = {entry["file"] for entry in json.loads((ROOT / "vectors" / "MANIFEST.json").read_text())}
    there = {path.name for path in (ROOT / "vectors").iterdir() if path.is_file()}
    assert there - {"MANIFEST.json", "README.md"} == listed


def test_only_the_dataplane_imports_the_extension_module():
    def importers(path: Path) -> bool:
        for node in ast.walk(ast.parse(path.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import | ast.ImportFrom) else []
            module = node.module or "" if isinstance(node, ast.ImportFrom) else ""
            if any("_native" in f"{module}.{name}".split(".") for name in names):
                return True
        return False

    found = {path.relative_to(SOURCES).parts[0] for path in SOURCES.rglob("*.py") if importers(path)}
    assert found == {"dataplane"}


def test_links_between_documents_lead_somewhere():
    broken = [
        f"{path.relative_to(ROOT)}: {target}"
        for path in tracked()
        if path.suffix == ".md"
        for target in re.findall(r"\]\(([^)#]+)", path.read_text())
        if "://" not in target and not (path.parent / target).exists()
    ]
    assert broken == []
