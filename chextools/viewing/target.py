"""Where pictures go, and what each says it was made from, so that a run goes on where another left off."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, PngImagePlugin

from chextools.errors import InputError
from chextools.plumbing import files, jsontext
from chextools.viewing import png
from chextools.viewing.colours import THEMES
from chextools.viewing.sketch import Sketch
from chextools.viewing.text import legible

FORMATS = ("png", "svg", "pdf")
_STAMP = "chex-view"  # the text chunk that says what a PNG was made from


@dataclass(frozen=True)
class Target:
    """Where pictures go: a folder that exists. force: replace files. resume: keep what is finished.

    format: of `FORMATS`. theme: of `THEMES`.
    """

    folder: str | Path
    force: bool = False
    resume: bool = False
    format: str = "png"
    theme: str = "dark"

    def path(self, *parts: str) -> Path:
        return Path(self.folder, f"{'_'.join(parts)}.{self.format}")

    def finished(self, path: Path, made_from: str) -> list[dict] | None:
        """What a former run found when it made this picture; None if it is to be made.

        Raises InputError for a file that must not be replaced.
        """
        if not os.path.lexists(path):
            return None
        stamp = _stamp_of(path) if self.resume else {}
        if stamp.get("digest") == made_from:
            return stamp["found"] if stamp["whole"] else None
        if self.force:
            return None
        if self.resume:
            raise InputError(f"{path}: made from another record, truth or setting; use --force to replace it")
        raise InputError(f"{path}: exists; use --force to replace it")

    def write(self, path: Path, picture: Sketch, made_from: str, found: Sequence[dict]) -> None:
        """Write a picture with what was found in it; it is finished if nothing in it has failed."""
        whole = not any("failed" in each for each in found)
        told = jsontext.dumps({"digest": made_from, "whole": whole, "found": found})
        theme = THEMES[self.theme]
        with files.atomic(path, self.force or self.resume, clean=False) as stream:
            if self.format == "svg":
                from chextools.viewing import svg

                stream.write(svg.text_of(picture, theme, f"{_STAMP} {told}").encode("ascii", "xmlcharrefreplace"))
            elif self.format == "pdf":
                from chextools.viewing import pdf, svg

                stream.write(pdf.bytes_of(svg.text_of(picture, theme), f"{_STAMP} {told}"))
            else:
                stamp = PngImagePlugin.PngInfo()
                stamp.add_text(_STAMP, told)
                png.image_of(picture, theme).save(stream, "PNG", pnginfo=stamp, compress_level=4)


def _stamp_of(path: Path) -> dict:
    """What one of our pictures says it was made from; empty for any other file."""
    with contextlib.suppress(OSError, SyntaxError, ValueError, TypeError, KeyError):
        if path.suffix == ".svg":
            import html

            with open(path, encoding="ascii") as stream:
                _, line = stream.readline(), stream.readline()
            stamp = json.loads(html.unescape(line.removeprefix(f"<metadata>{_STAMP} ").removesuffix("</metadata>\n")))
        elif path.suffix == ".pdf":
            with open(path, encoding="latin-1") as stream:
                _, line = stream.readline(), stream.readline()
            stamp = json.loads(line.removeprefix(f"%{_STAMP} "))
        else:
            with Image.open(path, formats=["PNG"]) as image:
                stamp = json.loads(image.info[_STAMP])
        if isinstance(stamp["whole"], bool) and all(isinstance(each, dict) for each in stamp["found"]):
            return stamp
    return {}


def plain_name(task: str) -> str:
    """A task as part of a file's name: a folder or shell minds nothing in it, and no two tasks have the same."""
    plain = re.sub(r"[^A-Za-z0-9 .,()+-]", "-", legible(task))[:40]
    return plain if plain == task else f"{plain}-{hashlib.sha256(task.encode('utf-8', 'replace')).hexdigest()[:8]}"
