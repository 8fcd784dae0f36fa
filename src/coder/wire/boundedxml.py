"""XML from strangers: a tree of elements, every measure of it bounded, declarations of types and entities refused."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final
from xml.parsers import expat  # its dangers (entities, sizes, depth) are what this module keeps out

from coder.errors import Malformed

MAX_SIZE: Final = 256 * 1024
"""Bytes of a document."""
MAX_ELEMENTS: Final = 8192
MAX_DEPTH: Final = 32


@dataclass(slots=True)
class Element:
    """One element. `name` has no namespace: devices get those wrong."""

    name: str
    text: str = ""
    """The characters directly in it, without white space around them."""
    children: list["Element"] = field(default_factory=list)

    def child(self, name: str) -> "Element | None":
        """Return the first child of that name."""
        return next((one for one in self.children if one.name == name), None)

    def value(self, *path: str) -> str:
        """Return the text at the end of a path of names; empty when there is none."""
        element: Element | None = self
        for name in path:
            element = element.child(name) if element is not None else None
        return element.text if element is not None else ""

    def walk(self) -> Iterator["Element"]:
        """Visit this element and all below it, in the order of the document."""
        yield self
        for one in self.children:
            yield from one.walk()


def parse(document: bytes) -> Element:
    """Read a document and return its root. Raises Malformed."""
    if len(document) > MAX_SIZE:
        raise Malformed(f"an XML document is larger than {MAX_SIZE} bytes")
    reader = _Reader()
    parser = expat.ParserCreate(namespace_separator=" ")
    parser.buffer_text = True
    parser.StartDoctypeDeclHandler = reader.refuse
    parser.EntityDeclHandler = reader.refuse
    parser.StartElementHandler = reader.start
    parser.EndElementHandler = reader.end
    parser.CharacterDataHandler = reader.characters
    try:
        parser.Parse(document.rstrip(b"\0 \t\r\n"), True)
    except (expat.ExpatError, ValueError, LookupError) as error:  # the latter two: unheard-of encodings
        raise Malformed(f"not well-formed XML: {error}") from None
    if reader.root is None:
        raise Malformed("an XML document is empty")
    return reader.root


class _Reader:
    """Builds the tree out of the parser's calls."""

    def __init__(self) -> None:
        self.root: Element | None = None
        self._open: list[Element] = []
        self._texts: list[list[str]] = []
        self._count = 0

    def start(self, name: str, _attributes: dict[str, str]) -> None:
        self._count += 1
        if self._count > MAX_ELEMENTS or len(self._open) >= MAX_DEPTH:
            raise Malformed("an XML document has too many elements")
        element = Element(name.rpartition(" ")[2])
        if self._open:
            self._open[-1].children.append(element)
        else:
            self.root = element
        self._open.append(element)
        self._texts.append([])

    def end(self, _name: str) -> None:
        self._open.pop().text = "".join(self._texts.pop()).strip(" \t\r\n")

    def characters(self, text: str) -> None:
        self._texts[-1].append(text)

    def refuse(self, *_declaration: object) -> None:
        raise Malformed("an XML document declares types or entities")
