"""A picture's SVG as PDF, for LaTeX and journals: one page with the same vectors over the same pixels.

Of SVG it knows what svg.py writes. A pixel is three quarters of a point, as in CSS; text is in Helvetica, which every
reader has, stretched to the width that the SVG says.
"""

from __future__ import annotations

import base64
import io
import re
import xml.etree.ElementTree as ET
import zlib
from collections.abc import Iterator

from PIL import Image

_POINTS = 0.75  # to a pixel
_ROUND = 0.5523  # of a circle's radius, where the handles of its four Bezier curves are
_HREF = "{http://www.w3.org/1999/xlink}href"
# Advance widths of Helvetica from space to ~, in thousandths of its size (Adobe's font metrics), and of what else
# text.py lets through, by its WinAnsi code.
_ADVANCES = dict(
    enumerate(
        [278, 278, 355, 556, 556, 889, 667, 191, 333, 333, 389, 584, 278, 333, 278, 278]
        + [556] * 10
        + [278, 278, 584, 584, 584, 556, 1015, 667, 667, 722, 722, 667, 611, 778, 722, 278, 500, 667, 556, 833, 722]
        + [778, 667, 778, 722, 667, 611, 722, 667, 944, 667, 667, 611, 278, 278, 278, 469, 556, 333, 556, 556, 500]
        + [556, 556, 278, 556, 556, 222, 222, 500, 222, 833, 556, 556, 556, 556, 333, 500, 278, 556, 500, 722, 500]
        + [500, 500, 334, 260, 334, 584],
        32,
    )
) | {0x85: 1000, 0x96: 556, 0x97: 1000, 0xB0: 400, 0xB7: 278, 0xD7: 584}


def bytes_of(svg: str, metadata: str = "") -> bytes:
    """The document. metadata: what it says of itself, unseen, on its second line."""
    root = ET.fromstring(svg)
    width, height = (_POINTS * float(root.attrib[side]) for side in ("width", "height"))
    images: list[bytes] = []
    content = "\n".join([f"{_POINTS} 0 0 {-_POINTS} 0 {height:g} cm", *_drawn(root, images)])
    names = " ".join(f"/I{k} {k + 6} 0 R" for k in range(len(images)))
    page = f"/MediaBox [0 0 {width:g} {height:g}] /Resources << /Font << /F 5 0 R >> /XObject << {names} >> >>"
    objects = [
        b"<< /Type /Catalog /Pages 2 0 R >>",
        b"<< /Type /Pages /Kids [3 0 R] /Count 1 >>",
        f"<< /Type /Page /Parent 2 0 R /Contents 4 0 R {page} >>".encode(),
        _stream("", content.encode("cp1252", "replace")),
        b"<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica /Encoding /WinAnsiEncoding >>",
        *images,
    ]
    whole = bytearray(b"%PDF-1.4\n%" + metadata.encode("ascii", "backslashreplace") + b"\n%\xe2\xe3\xcf\xd3\n")
    places = []
    for number, content_of in enumerate(objects, 1):
        places.append(len(whole))
        whole += b"%d 0 obj\n%b\nendobj\n" % (number, content_of)
    start, count = len(whole), len(objects) + 1
    whole += b"xref\n0 %d\n0000000000 65535 f \n" % count + b"".join(b"%010d 00000 n \n" % place for place in places)
    return bytes(whole + b"trailer\n<< /Size %d /Root 1 0 R >>\nstartxref\n%d\n%%%%EOF\n" % (count, start))


def _stream(about: str, content: bytes) -> bytes:
    packed = zlib.compress(content, 6)
    return b"<< %b/Filter /FlateDecode /Length %d >>\nstream\n%b\nendstream" % (about.encode(), len(packed), packed)


def _drawn(element: ET.Element, images: list[bytes]) -> Iterator[str]:
    """The operators of what is inside an element; its images are added to those of the document."""
    for one in element:
        tag, about = one.tag.rpartition("}")[2], one.attrib
        if tag == "g":
            yield f"q 1 0 0 1 {about['transform'].removeprefix('translate(').removesuffix(')')} cm"
            yield from _drawn(one, images)
            yield "Q"
        elif tag == "image":
            x, y, width, height = (float(about[key]) for key in ("x", "y", "width", "height"))
            yield f"q {width:g} 0 0 {-height:g} {x:g} {y + height:g} cm /I{len(images)} Do Q"
            images.append(_image(about[_HREF]))
        elif tag == "text":
            yield _text(about, one.text or "")
        elif tag == "rect" and about["width"] == "100%":
            box = {key: element.attrib[key] for key in ("width", "height")}
            yield _painted(about, _rounded(0, 0, float(box["width"]), float(box["height"]), 0))
        elif tag in _SHAPES:
            yield _painted(about, _SHAPES[tag](about))


def _image(uri: str) -> bytes:
    with Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2])), formats=("PNG",)) as image:
        width, height = image.size
        pixels = image.convert("RGB").tobytes()
    about = f"/Type /XObject /Subtype /Image /Width {width} /Height {height} /ColorSpace /DeviceRGB "
    return _stream(about + "/BitsPerComponent 8 ", pixels)


def _text(about: dict, text: str) -> str:
    code = text.encode("cp1252", "replace")
    size, x, y = (float(about[key]) for key in ("font-size", "x", "y"))
    own = size * sum(_ADVANCES.get(byte, 556) for byte in code) / 1000
    width = float(about["textLength"])
    x -= width / 2 if about.get("text-anchor") == "middle" else 0
    escaped = re.sub(r"([\\()])", r"\\\1", code.decode("cp1252"))
    stretched = 100 * width / own if own else 100
    return (
        f"BT {_ink(about['fill'])} rg /F {size:g} Tf {stretched:.2f} Tz 1 0 0 -1 {x:.2f} {y:.2f} Tm ({escaped}) Tj ET"
    )


def _painted(about: dict, path: str) -> str:
    """A path, filled, stroked or both."""
    fill, stroke = (about.get(key, "none") for key in ("fill", "stroke"))
    state = [f"{_ink(fill)} rg"] if fill != "none" else []
    if stroke != "none":
        state += [f"{_ink(stroke)} RG {about['stroke-width']} w", f"{int('stroke-linejoin' in about)} j"]
        state += [f"{2 * int('stroke-linecap' in about)} J [{about.get('stroke-dasharray', '')}] 0 d"]
    paint = {(True, True): "B", (True, False): "f", (False, True): "S"}.get((fill != "none", stroke != "none"), "n")
    return " ".join([*state, path, paint])


def _ink(colour: str) -> str:
    return " ".join(f"{int(colour[k : k + 2], 16) / 255:.3f}" for k in (1, 3, 5))


def _path(about: dict) -> str:
    """Lines only: M, L and z."""
    found = re.findall(r"([ML])(\S+ [\d.-]+)|(z)", about["d"])
    return " ".join("h" if close else f"{point} {kind.lower()}" for kind, point, close in found)


def _circle(about: dict) -> str:
    x, y, r = (float(about[key]) for key in ("cx", "cy", "r"))
    return _rounded(x - r, y - r, 2 * r, 2 * r, r)


def _rect(about: dict) -> str:
    x, y, width, height, radius = (float(about.get(key, 0)) for key in ("x", "y", "width", "height", "rx"))
    return _rounded(x, y, width, height, radius)


def _rounded(x: float, y: float, width: float, height: float, radius: float) -> str:
    """A box whose corners are quarters of a circle."""
    r = min(radius, width / 2, height / 2)
    if not r:
        return f"{x:g} {y:g} {width:g} {height:g} re"
    k, right, bottom = r * (1 - _ROUND), x + width, y + height
    return " ".join(
        [
            f"{x + r:.3f} {y:.3f} m {right - r:.3f} {y:.3f} l",
            f"{right - k:.3f} {y:.3f} {right:.3f} {y + k:.3f} {right:.3f} {y + r:.3f} c {right:.3f} {bottom - r:.3f} l",
            f"{right:.3f} {bottom - k:.3f} {right - k:.3f} {bottom:.3f} {right - r:.3f} {bottom:.3f} c",
            f"{x + r:.3f} {bottom:.3f} l {x + k:.3f} {bottom:.3f} {x:.3f} {bottom - k:.3f} {x:.3f} {bottom - r:.3f} c",
            f"{x:.3f} {y + r:.3f} l {x:.3f} {y + k:.3f} {x + k:.3f} {y:.3f} {x + r:.3f} {y:.3f} c h",
        ]
    )


_SHAPES = {"rect": _rect, "circle": _circle, "path": _path}
