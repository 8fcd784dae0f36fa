"""The bundled scripts and styles: found by their manifest, served with a name that changes with their content."""

import json
from pathlib import Path
from typing import Final

from starlette.requests import Request
from starlette.responses import FileResponse, PlainTextResponse, Response

FOLDER: Final = Path(__file__).parent / "static"
PATH = "/static"
_FOREVER = "public, max-age=31536000, immutable"
_KINDS = {".js": "text/javascript; charset=utf-8", ".css": "text/css; charset=utf-8", ".txt": "text/plain"}


class Assets:
    """What `make assets` built; nothing when it has not run."""

    def __init__(self, folder: Path = FOLDER) -> None:
        self._folder = folder
        try:
            self._names: dict[str, str] = json.loads((folder / "manifest.json").read_text())
            self._files = {each.name for each in folder.iterdir()}
        except (OSError, ValueError):
            self._names, self._files = {}, set()

    @property
    def built(self) -> bool:
        """Whether there are any."""
        return bool(self._names)

    def url(self, name: str) -> str:
        """Return where an asset is; empty when it was not built."""
        file = self._names.get(name)
        return f"{PATH}/{file}" if file else ""

    async def serve(self, request: Request) -> Response:
        """Answer with one file, compressed where the browser takes that."""
        name = request.path_params["file"]
        kind = _KINDS.get(Path(name).suffix)
        if name not in self._files or kind is None:
            return PlainTextResponse("There is no such file.", 404)
        headers = {"Cache-Control": _FOREVER, "Vary": "Accept-Encoding", "Cross-Origin-Resource-Policy": "same-origin"}
        if f"{name}.gz" in self._files and "gzip" in request.headers.get("accept-encoding", ""):
            return FileResponse(
                self._folder / f"{name}.gz", media_type=kind, headers=headers | {"Content-Encoding": "gzip"}
            )
        return FileResponse(self._folder / name, media_type=kind, headers=headers)
