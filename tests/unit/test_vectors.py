"""The recorded vectors are exactly those the manifest describes."""

import hashlib
import json
from pathlib import Path

VECTORS = Path(__file__).parents[2] / "vectors"
MANIFEST = json.loads((VECTORS / "MANIFEST.json").read_text())


def test_every_vector_file_is_in_the_manifest_with_its_digest() -> None:
    recorded = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in VECTORS.glob("*.json")}
    del recorded["MANIFEST.json"]
    assert {entry["file"]: entry["sha256"] for entry in MANIFEST} == recorded


def test_every_entry_says_where_it_comes_from_and_who_reads_it() -> None:
    for entry in MANIFEST:
        assert all(entry[name] for name in ("implementation", "holds", "read_by")), entry["file"]


def test_the_readers_named_exist() -> None:
    root = VECTORS.parent
    assert all((root / reader).exists() for entry in MANIFEST for reader in entry["read_by"])
