"""Generates `src/coder/wire/proto/*_pb2.py` and their stubs. With --check it only says whether they are up to date."""

import sys
import tempfile
from pathlib import Path

import grpc_tools
from grpc_tools import protoc

ROOT = Path(__file__).resolve().parent.parent
SOURCE = ROOT / "src"
PROTO = Path("coder/wire/proto")
SCHEMAS = ("tailnet", "agent")


def generate(into: Path) -> dict[Path, bytes]:
    """Runs the compiler and returns each generated file, by its path below `src`."""
    arguments = [
        "protoc",
        f"-I{SOURCE}",
        f"-I{Path(grpc_tools.__file__).parent / '_proto'}",
        f"--plugin=protoc-gen-mypy={Path(sys.executable).parent / 'protoc-gen-mypy'}",
        f"--python_out={into}",
        f"--mypy_out=quiet:{into}",
        *(str(PROTO / f"{name}.proto") for name in SCHEMAS),
    ]
    if protoc.main(arguments) != 0:
        sys.exit("the protobuf compiler refused the schemas")
    return {
        PROTO / f"{name}_pb2{suffix}": (into / PROTO / f"{name}_pb2{suffix}").read_bytes()
        for name in SCHEMAS
        for suffix in (".py", ".pyi")
    }


def main() -> None:
    """Writes the modules, or compares them."""
    with tempfile.TemporaryDirectory() as scratch:
        files = generate(Path(scratch))
    if "--check" in sys.argv[1:]:
        stale = [str(path) for path, text in files.items() if not _same(SOURCE / path, text)]
        if stale:
            sys.exit(f"out of date, run scripts/proto.py: {', '.join(stale)}")
        return
    for path, text in files.items():
        (SOURCE / path).write_bytes(text)


def _same(path: Path, text: bytes) -> bool:
    return path.is_file() and path.read_bytes() == text


if __name__ == "__main__":
    main()
