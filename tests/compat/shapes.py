"""The shape of an answer: names and types of its fields, and the few texts that clients compare."""

from typing import Any

from google.protobuf.message import Message

KINDS = {"text": str, "bool": bool, "number": (int, float), "null": type(None), "object": dict, "list": list}


def missing(expected: Any, ours: Any, where: str = "body") -> list[str]:
    """Name each place where ours lacks an expected field, or has another type. More than is expected is welcome."""
    if isinstance(expected, dict):
        return _missing_fields(expected, ours, where) if isinstance(ours, dict) else [where]
    if isinstance(expected, list):
        if not isinstance(ours, list):
            return [where]
        if expected and not ours:
            return [f"{where}[]"]
        return [] if not expected else min((missing(shape, ours[0], f"{where}[]") for shape in expected), key=len)
    kind, _, value = expected.partition(":")
    right = isinstance(ours, KINDS[kind]) and not (kind == "number" and isinstance(ours, bool))
    return [] if right and (not value or ours == value) else [f"{where}: {expected}, not {ours!r}"]


def _missing_fields(expected: dict[str, Any], ours: dict[str, Any], where: str) -> list[str]:
    faults = []
    for name, shape in expected.items():
        if name.startswith("{"):  # any name: a map
            faults += missing(shape, next(iter(ours.values())), f"{where}.{name}") if ours else [f"{where}.{name}"]
        elif name.endswith("?"):  # left out when there is nothing to say
            plain = name[:-1]
            faults += missing(shape, ours[plain], f"{where}.{plain}") if plain in ours else []
        else:
            faults += missing(shape, ours[name], f"{where}.{name}") if name in ours else [f"{where}.{name}"]
    return faults


def fields(message: Message, where: str = "") -> set[str]:
    """List the fields of a message that are set, the keys of maps and the places in lists left out."""
    found = set()
    for field, value in message.ListFields():
        if field.name == "nanos":
            continue  # zero by chance, or because a clock is coarse
        name = f"{where}.{field.name}"
        found.add(f"{name}={value}" if field.enum_type and not _repeats(value) else name)
        for each in _parts(value):
            found |= fields(each, name)
    return found


def _repeats(value: Any) -> bool:
    return hasattr(value, "__len__") and not isinstance(value, str | bytes)


def _parts(value: Any) -> list[Message]:
    if isinstance(value, Message):
        return [value]
    if not _repeats(value):
        return []
    inner = value.values() if hasattr(value, "values") else value
    return [each for each in inner if isinstance(each, Message)]


def pair_ids(recorded: Message, ours: Message, known: dict[bytes, bytes]) -> None:
    """Learn which of our 16-byte ids stands for which recorded one, from two messages that correspond."""
    theirs = {field.name: value for field, value in ours.ListFields()}
    for field, value in recorded.ListFields():
        if field.name not in theirs:
            continue
        if isinstance(value, bytes) and len(value) == 16:
            known.setdefault(value, theirs[field.name])
        for one, other in zip(_parts(value), _parts(theirs[field.name]), strict=False):
            pair_ids(one, other, known)
