"""The link program between two namespaces: rate, delay, loss and reordering that the kernel would not give us."""

import functools
import json
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

from lab.netns import Namespace

ROOT = Path(__file__).resolve().parents[2]


@functools.cache
def program() -> Path:
    """Build the link program, unless it is up to date, and say where it is."""
    built = ROOT / "target" / "release" / "lab-link"
    newest = max(path.stat().st_mtime for path in (ROOT / "tests" / "lab" / "link").rglob("*.*"))
    if not built.exists() or built.stat().st_mtime < newest:
        build = ["cargo", "build", "--quiet", "--release", "--locked", "-p", "lab-link"]
        subprocess.run(build, cwd=ROOT, check=True)
        built.touch()
    return built


class Link:
    """A pair of TUN devices. Direction `ab` leads away from the first namespace.

    The words are those of the link program: `rate 100m`, `delay 15ms`, `jitter 1ms`, `loss 0.01`, `burst 4`,
    `reorder 0.001`, `hold 3ms`, `limit 1000000`, `largest 1280`, `down`, `up`, each with `ab` or `ba` before it for one
    direction alone, and `seed=N` at the start. The devices come without address, and down.
    """

    def __init__(self, first: Namespace, device: str, second: Namespace, other: str, words: Sequence[str] = ()) -> None:
        self.process = subprocess.Popen(
            [program(), f"{first.path}:{device}", f"{second.path}:{other}", *words],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._answer() == "ready", "the link program did not start"

    def _answer(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def ask(self, word: str) -> str:
        """Say a word, return the answer. Raises ValueError for one that is not understood."""
        assert self.process.stdin is not None
        self.process.stdin.write(word + "\n")
        self.process.stdin.flush()
        answer = self._answer()
        if answer.startswith("error") or not answer:
            raise ValueError(answer or "the link program is gone")
        return answer

    def tell(self, *words: str) -> None:
        """Change the link."""
        for word in words:
            self.ask(word)

    def stats(self) -> dict[str, Any]:
        """Counters of both directions."""
        return json.loads(self.ask("stats"))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                pipe.close()
