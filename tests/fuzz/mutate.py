"""Damaged and hostile variants of valid files. Every function draws from the ``Random`` that it gets, and nothing else.

Bytes are changed blindly, and inside the structures that checksums protect: the members of a zip archive, the
operations of a pickle, the chunks of a PNG, the header of a safetensors file.
"""

from __future__ import annotations

import contextlib
import io
import json
import pickle
import pickletools
import struct
import zipfile
import zlib
from collections.abc import Callable, Sequence
from random import Random

PNG = b"\x89PNG\r\n\x1a\n"
# Numbers that readers compute sizes and positions from.
NUMBERS = (0, 1, 2, 3, 7, 8, 0x7F, 0x80, 0xFF, 0x100, 0x7FFF, 0x8000, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)
# Objects that a pickle can be made to contain in place of another: wrong types, extreme numbers, names of functions.
PIECES = (
    *(b"N", b"\x88", b"}", b"]", b")", b"K\x00", b"J\xff\xff\xff\xff", b"J\xff\xff\xff\x7f", b"\x8a\x08" + b"\xff" * 8),
    *(b"G" + struct.pack(">d", number) for number in (float("nan"), float("inf"), -1.5, 1e300)),
    *(
        b"X\x01\x00\x00\x00a",
        b"X\x00\x00\x00\x00",
        b"U\x02ab",
        b"C\x01a",
        b"0",
        b"2",
        b"(",
        b"1",
        b".",
        b"Q",
        b"R",
        b"b",
    ),
    *(b"cbuiltins\neval\n", b"cos\nsystem\n", b"ctorch\nload\n", b"ctorch\nFloatStorage\n"),
    *(b"ctorch._utils\n_rebuild_tensor_v2\n", b"ccollections\nOrderedDict\n", b"\x93", b"\x81", b"i__main__\nx\n"),
)
# Pieces of texts: label lists, JSON, YAML.
WORDS = (
    *(
        "",
        "\n",
        "\r\n",
        "\r",
        ",",
        ",,",
        ";",
        "#",
        '"',
        "'",
        "\\",
        "\t",
        "\x00",
        "\x0c",
        "\x85",
        "\u2028",
        "\ufeff",
        "{",
        "}",
    ),
    *(
        "[",
        "]",
        ":",
        "- ",
        "null",
        "true",
        "NaN",
        "Infinity",
        "-1",
        "0",
        "1e999",
        "9" * 400,
        "{}",
        "[]",
        '""',
        "&a",
        "*a",
    ),
    *(
        "Idx,Ratio,Train,Val,Name\n",
        "a" * 500,
        "[" * 2000,
        '{"a":' * 500,
        "!!python/object/apply:os.system [x]",
        "😀",
        "é",
        "~",
    ),
)


def change(content: bytes, others: Sequence[bytes], random: Random) -> bytes:
    """A variant of ``content``; ``others``: further valid files, from which pieces are taken."""
    for _ in range(random.choice((1, 1, 1, 2, 4))):
        ways: list[Callable[[bytes, Sequence[bytes], Random], bytes]] = [change_bytes]
        if content.startswith(PNG):
            ways += [change_png] * 3
        elif zipfile.is_zipfile(io.BytesIO(content)):
            ways += [change_zip] * 9
        elif content[8:9] == b"{":  # safetensors: the length of a JSON text, the text, the numbers
            ways += [change_safetensors] * 3
        elif content[:1] == b"\x80":
            ways += [change_pickle] * 3
        elif b"\x00" not in content[:200]:
            ways += [change_text] * 3
        content = random.choice(ways)(content, others, random)
    return content


def change_bytes(content: bytes, others: Sequence[bytes], random: Random) -> bytes:
    """Flip, overwrite, insert, cut, repeat, or take a piece of another file."""
    data = bytearray(content)
    place = random.randrange(len(data) + 1)
    if random.random() < 0.5:
        place = min(place, random.randrange(64))  # headers decide more than what follows
    length = min(random.choice((1, 2, 4, 16, 100, 4000)), len(data) - place)
    way = random.randrange(8)
    if way == 0 and data:
        for _ in range(random.choice((1, 3, 30))):
            data[random.randrange(len(data))] ^= 1 << random.randrange(8)
    elif way == 1:
        data[place : place + length] = random.randbytes(length)
    elif way == 2:
        number, width = random.choice(NUMBERS), random.choice((1, 2, 4, 8))
        packed = (number % (1 << 8 * width)).to_bytes(width, random.choice(("big", "little")))
        data[place : place + width] = packed
    elif way == 3:
        del data[place:]
    elif way == 4:
        del data[place : place + length]
    elif way == 5:
        data[place:place] = data[place : place + length] * random.choice((1, 2, 50))
    elif way == 6:
        other = random.choice(others)
        start = random.randrange(len(other) + 1)
        data[place : place + random.choice((0, length))] = other[start : start + random.choice((4, 50, 5000))]
    else:
        data[place : place + length] = bytes(length)
    return bytes(data)


def change_text(content: bytes, others: Sequence[bytes], random: Random) -> bytes:
    """Insert or exchange a word that means something in a list, in JSON or in YAML; or another encoding."""
    text = content.decode("utf-8", "replace")
    place = random.randrange(len(text) + 1)
    end = place + random.choice((0, 0, 1, 5, 40))
    text = text[:place] + random.choice(WORDS) * random.choice((1, 1, 1, 3)) + text[end:]
    encoding = random.choice(("utf-8",) * 8 + ("utf-16", "utf-8-sig", "latin-1"))
    return text.encode(encoding, "replace")


def change_zip(content: bytes, others: Sequence[bytes], random: Random) -> bytes:
    """Another archive whose checksums are right: a member changed, renamed, repeated, left out or compressed."""
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            members = [(item.filename, archive.read(item)) for item in archive.infolist()]
    except Exception:  # what earlier changes broke
        return change_bytes(content, others, random)
    if not members:
        return content
    place = random.randrange(len(members))
    if random.random() < 0.6:  # the pickle decides most
        place = next((i for i, (name, _) in enumerate(members) if name.endswith("data.pkl")), place)
    name, inside = members[place]
    way = random.randrange(10)
    if way == 0:
        del members[place]
    elif way == 1:
        members.insert(place, members[random.randrange(len(members))])
    elif way == 2:
        members[place] = (
            random.choice(("../outside", "/outside/of/the/case", "archive/data.pkl", "x" * 300, name.upper())),
            inside,
        )
    elif name.endswith(".pkl"):
        members[place] = (name, change_pickle(inside, others, random))
    else:
        members[place] = (name, change_bytes(inside, others, random))
    method = zipfile.ZIP_DEFLATED if random.random() < 0.05 else zipfile.ZIP_STORED
    with io.BytesIO() as file:
        with zipfile.ZipFile(file, "w", method) as archive:
            for name, inside in members:
                archive.writestr(name, inside)
        return file.getvalue()


def change_pickle(content: bytes, others: Sequence[bytes], random: Random) -> bytes:
    """Exchange, insert, repeat or leave out whole operations, or change the argument of one."""
    try:
        starts = [place for _, _, place in pickletools.genops(content) if place is not None]
    except Exception:  # what earlier changes broke
        return change_bytes(content, others, random)
    if len(starts) < 3:
        return change_bytes(content, others, random)
    number = random.randrange(len(starts) - 1)
    start, end = starts[number], starts[number + 1]
    way = random.randrange(6)
    if way == 0:
        return content[:start] + random.choice(PIECES) + content[end:]
    if way == 1:
        return content[:start] + random.choice(PIECES) + content[start:]
    if way == 2:
        return content[:start] + content[end:]
    if way == 3:
        other = random.randrange(len(starts) - 1)
        return content[:start] + content[starts[other] : starts[other + 1]] + content[end:]
    if way == 4:
        return content[:start] + change_bytes(content[start:end], others, random) + content[end:]
    value = random.choice((None, -1, 0, 2**40, 1.5, "x", b"x", (), [], {}, [[]], {"a": {}}, True))
    return content[:start] + pickle.dumps(value, 2)[2:-1] + content[end:]


def change_png(content: bytes, others: Sequence[bytes], random: Random) -> bytes:
    """Change, repeat, move or leave out a chunk, with a right checksum; pixels are changed before compression."""
    chunks, place = [], len(PNG)
    while place + 12 <= len(content):
        (length,) = struct.unpack_from(">I", content, place)
        chunks.append((content[place + 4 : place + 8], content[place + 8 : place + 8 + length]))
        place += 12 + length
    if not chunks:
        return change_bytes(content, others, random)
    number = random.randrange(len(chunks))
    kind, data = chunks[number]
    way = random.randrange(6)
    if way == 0:
        del chunks[number]
    elif way == 1:
        chunks.insert(random.randrange(len(chunks) + 1), chunks[number])
    elif way == 2:
        known = (
            b"IHDR",
            b"PLTE",
            b"IDAT",
            b"tRNS",
            b"eXIf",
            b"iCCP",
            b"zTXt",
            b"acTL",
            b"fcTL",
            b"fdAT",
            b"IEND",
            b"gAMA",
        )
        chunks[number] = (random.choice(known), data)
    elif way == 3 and kind == b"IHDR":
        fields = list(struct.unpack(">IIBBBBB", data.ljust(13, b"\0")[:13]))
        field = random.randrange(7)
        fields[field] = random.choice(NUMBERS) % (1 << (32 if field < 2 else 8))
        chunks[number] = (kind, struct.pack(">IIBBBBB", *fields))
    elif way == 4 and kind == b"IDAT":
        with contextlib.suppress(zlib.error):
            data = zlib.decompress(data)
        chunks[number] = (kind, zlib.compress(change_bytes(data, others, random)))
    else:
        chunks[number] = (kind, change_bytes(data, others, random))
    parts = [
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in chunks
    ]
    return PNG + b"".join(parts)


def change_safetensors(content: bytes, others: Sequence[bytes], random: Random) -> bytes:
    """Change the header's JSON, or one of its values, and write its length anew."""
    length = int.from_bytes(content[:8], "little")
    header, rest = content[8 : 8 + length], content[8 + length :]
    try:
        entries = json.loads(header)
        entry = entries[random.choice(list(entries))]
        entry[random.choice(list(entry))] = random.choice(
            (None, -1, [], [2**62, 2**62], [0, 0], [4, 2], "F16", "I64", "x", 1.5)
        )
        header = json.dumps(entries).encode()
    except Exception:  # what earlier changes broke
        header = change_text(header, others, random)
    return len(header).to_bytes(8, "little") + header + rest
