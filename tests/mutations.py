"""Ways to break a file, blindly or knowing its format, from (rng, content, content of another
file)."""

import json
import re
import struct
import zipfile
import zlib
from collections.abc import Sequence
from io import BytesIO

import numpy as np

INTERESTING = (
    0,
    1,
    127,
    128,
    255,
    256,
    32767,
    65535,
    1 << 20,
    (1 << 31) - 1,
    1 << 31,
    (1 << 32) - 1,
)
TEXTS = (
    "",
    "..",
    "../x.png",
    "/etc/passwd",
    "C:\\x.png",
    "a\0b",
    "x" * 5000,
    '"',
    "\r\n",
    ",,,",
    "é",
    "NaN",
    "-1",
)
VALUES = (
    *TEXTS,
    *INTERESTING,
    None,
    True,
    -1,
    2**70,
    1e308,
    float("nan"),
    "\ud800",
    "imagenet",
    [],
    {},
    [[1]],
)
Random = np.random.Generator


def pick(rng: Random, items: Sequence):
    return items[int(rng.integers(len(items)))]


def place(rng: Random, size: int) -> int:
    """A position, two times of three near the head or the tail, where the structure is."""
    near = int(rng.integers(min(size, 1024) + 1))
    return pick(rng, (near, size - near, int(rng.integers(size + 1))))


def anywhere(rng: Random, data: bytes, other: bytes) -> bytes:
    """Bytes changed, cut, doubled, deleted or taken from another file, whatever they mean."""
    start, length = place(rng, len(data)), int(2 ** rng.uniform(0, 12))
    end = start + length
    match int(rng.integers(7)):
        case 0:
            flips = rng.integers(0, 256, min(length, 8), np.uint8) & rng.integers(
                0, 256, min(length, 8), np.uint8
            )
            noise = bytes(a ^ int(b) for a, b in zip(data[start:end], flips, strict=False))
            return data[:start] + noise + data[start + len(noise) :]
        case 1:
            number = struct.pack(pick(rng, ("<I", ">I")), pick(rng, INTERESTING))[
                -pick(rng, (1, 2, 4)) :
            ]
            return data[:start] + number + data[start + len(number) :]
        case 2:
            return data[:start]
        case 3:
            return data[:end] + data[start:]
        case 4:
            return data[:start] + data[end:]
        case 5:
            return data[:start] + other[start:end] + data[end:]
        case _:
            return data[:start] + other[place(rng, len(other)) :]


def png(rng: Random, data: bytes, _: bytes) -> bytes:
    """Chunks changed in their fields, order or length, with the right checksum."""
    chunks, at = [], 8
    while at < len(data):
        (length,) = struct.unpack(">I", data[at : at + 4])
        chunks.append([data[at + 4 : at + 8], data[at + 8 : at + 8 + length], length])
        at += length + 12
    chunk = pick(rng, chunks)
    match int(rng.integers(5)):
        case 0:
            side, value = pick(rng, (0, 4)), pick(rng, (*INTERESTING, 512, 13000))
            chunks[0][1] = chunks[0][1][:side] + struct.pack(">I", value) + chunks[0][1][side + 4 :]
        case 1:
            chunks[0][1] = chunks[0][1][:8] + bytes(rng.integers(0, 17, 5, np.uint8))
        case 2:
            chunk[2] = pick(rng, INTERESTING)
        case 3:
            kind = pick(
                rng,
                (
                    b"tEXt",
                    b"zTXt",
                    b"iTXt",
                    b"iCCP",
                    b"PLTE",
                    b"tRNS",
                    b"eXIf",
                    b"acTL",
                    b"fcTL",
                    b"IEND",
                ),
            )
            bomb = b"a\0\0" + zlib.compress(bytes(1 << 22))
            content = pick(rng, (bomb, chunk[1], b"", b"II*\0\xff\xff\xff\xff"))
            chunks.insert(int(rng.integers(len(chunks) + 1)), [kind, content, len(content)])
        case 4:
            chunks.remove(chunk)
    packed = (
        struct.pack(">I", n) + k + c + struct.pack(">I", zlib.crc32(k + c)) for k, c, n in chunks
    )
    return data[:8] + b"".join(packed)


def jpeg(rng: Random, data: bytes, _: bytes) -> bytes:
    """The size, the components or a segment's length changed."""
    at = pick(
        rng, [m.start() for m in re.finditer(rb"\xff[\xc0\xc2\xc4\xda\xdb\xdd\xe0\xe1]", data)]
    )
    field, value = at + pick(rng, (2, 5, 7)), pick(rng, (*INTERESTING, 512, 13000))
    return data[:field] + struct.pack(">H", value & 0xFFFF) + data[field + 2 :]


def csv(rng: Random, data: bytes, _: bytes) -> bytes:
    """A cell, a line or the separator changed."""
    lines = [line.split(",") for line in data.decode().splitlines()]
    line, text = pick(rng, lines), pick(rng, (*TEXTS, "./train_gt/TRAIN_00000.png"))
    line[int(rng.integers(len(line)))] = text
    if rng.random() < 0.3:
        lines.insert(int(rng.integers(len(lines))), pick(rng, (line, [text], [*line, *line])))
    separator = pick(rng, (",", ",", ",", ";", "\t"))
    return "".join(separator.join(line) + "\n" for line in lines).encode()


def changed(rng: Random, tree: object) -> object:
    """A JSON value with one node exchanged, removed or added."""
    if not tree or not isinstance(tree, dict | list) or rng.random() < 0.1:
        return pick(rng, VALUES)
    key = pick(rng, list(tree) if isinstance(tree, dict) else range(len(tree)))
    copy = tree.copy()
    copy[key] = changed(rng, tree[key])
    if rng.random() < 0.2:
        del copy[key]
    elif isinstance(copy, dict) and rng.random() < 0.1:
        copy[str(pick(rng, VALUES))] = pick(rng, VALUES)
    return copy


def jsonl(rng: Random, data: bytes, _: bytes) -> bytes:
    """A value of a JSON file, or of one line of it, changed; sometimes nested too deeply."""
    text = data.decode()
    lines = [text] if text.startswith("{\n") else text.splitlines()
    at = int(rng.integers(len(lines)))
    deep = rng.random() < 0.02
    lines[at] = "[" * 100_000 if deep else json.dumps(changed(rng, json.loads(lines[at])))
    return "\n".join(lines).encode()


def safetensors(rng: Random, data: bytes, _: bytes) -> bytes:
    """The header's JSON changed, or the model's description in it."""
    size = struct.unpack("<Q", data[:8])[0]
    header = json.loads(data[8 : 8 + size])
    inner = json.loads(header["__metadata__"]["restoration"])
    if rng.random() < 0.5:
        inner["arguments"] |= pick(
            rng, ({}, {"encoder_weights": "random"}, {"color_size": pick(rng, VALUES)})
        )
        header["__metadata__"]["restoration"] = json.dumps(changed(rng, inner))
    elif rng.random() < 0.5:
        tensor = header[pick(rng, [key for key in header if key != "__metadata__"])]
        tensor["dtype"] = pick(
            rng, ("F64", "F16", "BF16", "F8_E4M3", "F4", "I64", "BOOL", "C64", "U16", "")
        )
    else:
        header = changed(rng, header)
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data[8 + size :]


def archive(rng: Random, data: bytes, other: bytes) -> bytes:
    """A field of an entry's header changed, or an entry's name or content with the right checksum."""
    if rng.random() < 0.5:
        at = pick(
            rng, [m.start() for m in re.finditer(rb"PK(\x01\x02|\x03\x04|\x05\x06|\x06\x06)", data)]
        )
        field, width = at + int(rng.integers(4, 46)), pick(rng, (1, 2, 4))
        return (
            data[:field] + struct.pack("<I", pick(rng, INTERESTING))[:width] + data[field + width :]
        )
    target = BytesIO()
    with zipfile.ZipFile(BytesIO(data)) as source, zipfile.ZipFile(target, "w") as copy:
        names = source.namelist()
        chosen = pick(rng, [n for n in names if n.endswith((".png", ".pkl"))])
        for name in names:
            info, content = zipfile.ZipInfo(name), source.read(name)
            if name == chosen:
                content = anywhere(rng, content, content) if rng.random() < 0.6 else content
                info.filename = pick(
                    rng, (name, name, name, "../x.png", "/x.png", "a/b.png", "C:\\x.png", names[-1])
                )
                info.external_attr = pick(
                    rng, (0o644 << 16, 0, 0o120777 << 16, 0o40755 << 16, 0xFFFFFFFF)
                )
                info.compress_type = pick(rng, (0, 0, 8, 12, 14))
            copy.writestr(info, content)
    return target.getvalue()
