"""XML files of truth, told apart by what they hold: CVAT's and Pascal VOC's. Declarations and entities are refused."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from xml.etree.ElementTree import Element, TreeBuilder
from xml.parsers import expat

from chextools.errors import InputError
from chextools.inputs import cvat, voc
from chextools.records.records import Failure

_MOST = 2**28  # bytes
_DEEPEST = 50


def records_of(parts: Iterable[bytes], name: str) -> Iterator[dict | Failure]:
    """Records of an XML document. Raises InputError where it is none, or neither CVAT's nor Pascal VOC's."""
    root = parse(parts, name)
    if root.tag == "annotations":
        return cvat.records_of(root, name)
    if root.tag == "annotation":
        return voc.records_of(root, name)
    raise InputError(f"{name}: XML that is neither CVAT's (annotations) nor Pascal VOC's (annotation)")


def parse(parts: Iterable[bytes], name: str) -> Element:
    """The root of an XML document without declarations, which could name other files or grow without bound."""
    builder = TreeBuilder()
    parser = expat.ParserCreate()
    depth = 0

    def start(tag: str, attributes: dict[str, str]) -> None:
        nonlocal depth
        depth += 1
        if depth > _DEEPEST:
            raise InputError(f"{name}: XML nested more than {_DEEPEST} deep")
        builder.start(tag, attributes)

    def end(tag: str) -> None:
        nonlocal depth
        depth -= 1
        builder.end(tag)

    def refuse(*_: object) -> None:
        raise InputError(f"{name}: XML with a document type or entities, which none of these programs write")

    parser.StartElementHandler, parser.EndElementHandler, parser.CharacterDataHandler = start, end, builder.data
    parser.StartDoctypeDeclHandler = parser.EntityDeclHandler = refuse
    size = 0
    try:
        for part in parts:
            size += len(part)
            if size > _MOST:
                raise InputError(f"{name}: XML of more than {_MOST} bytes")
            parser.Parse(part)
        parser.Parse(b"", True)
        return builder.close()
    except (expat.ExpatError, AssertionError, LookupError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{name}: not XML: {error}") from None
