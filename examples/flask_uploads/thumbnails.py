"""Thumbnails, with Pillow; nothing here knows of the web, the database or jobs."""

from __future__ import annotations

import os
from pathlib import Path
from typing import BinaryIO

from PIL import Image, ImageOps

FORMATS = ("JPEG", "PNG", "GIF", "WEBP")


def is_picture(file: BinaryIO) -> bool:
    """Say whether a file begins like a picture of a format that is taken; leave it at its beginning."""
    try:
        with Image.open(file, formats=FORMATS) as picture:
            picture.verify()
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError):
        return False
    finally:
        file.seek(0)
    return True


def make(source: Path, target: Path, size: int) -> None:
    """Write a JPEG of at most so many pixels each way. It is there as a whole or not at all, whoever is killed."""
    with Image.open(source, formats=FORMATS) as picture:
        small = ImageOps.exif_transpose(picture).convert("RGB")
    small.thumbnail((size, size))
    unfinished = target.with_suffix(f".{os.getpid()}.part")
    small.save(unfinished, "JPEG")
    os.replace(unfinished, target)
