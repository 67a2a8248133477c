"""What other libraries would win over Pillow's reduced decoding of JPEG, which chex-prep --pack and chex-train use.

    python tests/bench/bench_jpeg.py IMAGE [--size N] [--runs N]

IMAGE is a full-size CXR; it is written at several qualities, read whole from memory, and decoded to gray at the least
of libjpeg's scales (1/8 to 1) that is no smaller than --size. Prints the least processor milliseconds of each library
that is there (simplejpeg, PyTurboJPEG, pyvips), how many times faster than Pillow that is, and how many pixels have
another grey level, and by how much at most. Decoding is nine tenths of packing: what wins 1.5 times here would win 1.4
there.

Found (AMD EPYC, one core; a radiograph of 2320 x 2828 to 1/4, at qualities 75, 90 and 95): simplejpeg 1.07, 1.02 and
1.02 times as fast as Pillow, with its fast DCT 1.09, 1.03 and 1.03, pyvips 0.75, 0.81 and 0.85, all with the same grey
levels. The same libjpeg-turbo is under all of them, and what takes the time is the Huffman code, no byte of which can
be skipped; so none of them is an extra of ours. PyTurboJPEG calls the library that simplejpeg brings along.
"""

from __future__ import annotations

import argparse
import io
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from PIL import Image

QUALITIES = (75, 90, 95)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("image", type=Path)
    parser.add_argument("--size", type=int, default=320)
    parser.add_argument("--runs", type=int, default=30)
    options = parser.parse_args()
    source = Image.open(options.image).convert("L")
    print(f"{source.width} x {source.height}, decoded for {options.size} pixels\n")
    print("| library | quality | KiB | ms | against Pillow | pixels that differ |\n|---|---|---|---|---|---|")
    for quality in QUALITIES:
        packed = io.BytesIO()
        source.save(packed, "JPEG", quality=quality)
        data, size = packed.getvalue(), options.size
        decoders = dict(libraries(source.size, size))
        least = dict.fromkeys(decoders, float("inf"))
        for _ in range(options.runs):  # in turn, so that a busy machine slows all
            for name, decode in decoders.items():
                start = time.process_time()
                decode(data)
                least[name] = min(least[name], time.process_time() - start)
        expected = decoders["Pillow"](data)
        for name, decode in decoders.items():
            found = decode(data)
            off = np.abs(found.astype(int) - expected) if found.shape == expected.shape else None
            told = f"{(off > 0).mean():.1%}, by {off.max()}" if off is not None else f"other size, {found.shape}"
            cells = (f"{least[name] * 1e3:.1f}", f"{least['Pillow'] / least[name]:.2f}x", told)
            print(f"| {name} | {quality} | {len(data) / 1024:.0f} | " + " | ".join(cells) + " |", flush=True)


def libraries(whole: tuple[int, int], size: int) -> Iterator[tuple[str, Callable[[bytes], np.ndarray]]]:
    """(name, JPEG to uint8 [h, w]) of Pillow and those others that are installed."""
    scale = next((n for n in (8, 4, 2) if min(whole) // n >= size), 1)

    def pillow(data: bytes) -> np.ndarray:
        image = Image.open(io.BytesIO(data))
        image.draft("L", (size, size))
        return np.asarray(image)

    yield "Pillow", pillow
    try:
        import simplejpeg

        least = {"min_height": whole[1] // scale, "min_width": whole[0] // scale, "min_factor": 1}
        yield "simplejpeg", lambda data: simplejpeg.decode_jpeg(data, "GRAY", **least)[:, :, 0]
        fast = {"fastdct": True, "fastupsample": True}
        yield "simplejpeg, fast DCT", lambda data: simplejpeg.decode_jpeg(data, "GRAY", **least, **fast)[:, :, 0]
    except ImportError:
        pass
    try:
        import turbojpeg

        turbo = turbojpeg.TurboJPEG()
        gray = turbojpeg.TJPF_GRAY
        yield "PyTurboJPEG", lambda data: turbo.decode(data, gray, scaling_factor=(1, scale))[:, :, 0]
    except (ImportError, RuntimeError):
        pass
    try:
        import pyvips

        pyvips.cache_set_max(0)
        yield (
            "pyvips",
            lambda data: pyvips.Image.jpegload_buffer(data, shrink=scale).numpy().reshape(-1, whole[0] // scale),
        )
    except (ImportError, OSError):
        pass


if __name__ == "__main__":
    main()
