"""Pictures of a few bytes whose headers promise gigabytes, and files that are no files."""

import io
import struct
import zlib

from PIL import Image as Pillow


def png(width: int, height: int) -> bytes:
    """An 8-bit grey PNG of that size by its header, and one row of pixels."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    rows = zlib.compress(b"\0" * min(width + 1, 1000))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def gif(width: int, height: int) -> bytes:
    """A GIF of one such frame."""
    frame = struct.pack("<BHHHHB", 0x2C, 0, 0, width, height, 0)
    head = b"GIF89a" + struct.pack("<HHBBB", width, height, 0x80, 0, 0)
    return head + b"\0\0\0\xff\xff\xff" + frame + b"\x02\x02\x4c\x01\0;"


def bmp(width: int, height: int) -> bytes:
    """A BMP without pixels."""
    return b"BM" + struct.pack("<IHHI", 54, 0, 0, 54) + struct.pack("<IiiHHIIiiII", 40, width, height, 1, 24, *[0] * 6)


def tiff(width: int, height: int) -> bytes:
    """A TIFF whose one strip is empty."""
    values = {256: width, 257: height, 258: 8, 259: 1, 262: 1, 273: 8, 277: 1, 278: height, 279: 0}
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in values.items())
    return b"II*\0" + struct.pack("<I", 8) + struct.pack("<H", len(values)) + entries + struct.pack("<I", 0)


def webp(width: int, height: int) -> bytes:
    """A lossless WebP of that size by its header."""
    bits = (width - 1) | (height - 1) << 14
    content = b"\x2f" + struct.pack("<I", bits) + b"\0" * 10
    body = b"WEBPVP8L" + struct.pack("<I", len(content)) + content + b"\0" * (len(content) % 2)
    return b"RIFF" + struct.pack("<I", len(body)) + body


def animated(frames: int) -> bytes:
    """A GIF of many frames, the first of them black."""
    pictures = [Pillow.new("L", (8, 8), index % 256) for index in range(frames)]
    buffer = io.BytesIO()
    pictures[0].save(buffer, "GIF", save_all=True, append_images=pictures[1:])
    return buffer.getvalue()
