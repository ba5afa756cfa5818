#!/usr/bin/env python3
"""Holds the GGUF dequantisation to the reference reader, the Python package `gguf` (pip install gguf).

    tests/io/gguf_vectors.py           checks gguf_vectors.h value by value, writes gguf_hashes.h

gguf_hashes.h has, for every quantised type and every regime of scales, the hash of what the reference makes of BLOCKS
blocks of pseudo-random bytes. tests/io/gguf.c makes the same bytes (splitmix64 from the seed) and the same hash
(FNV-1a over the bits of each float, every NaN as 0x7fc00000), so no bytes need storing.
"""
import pathlib
import re
import struct

import numpy as np
from gguf import quants

here = pathlib.Path(__file__).parent
BLOCKS = 64
M64 = 2**64 - 1
# name: ggml's number, bytes of a block, where its f16 scales stand
TYPES = {
    "Q4_0": (2, 18, [0]),
    "Q4_1": (3, 20, [0, 2]),
    "Q5_0": (6, 22, [0]),
    "Q5_1": (7, 24, [0, 2]),
    "Q8_0": (8, 34, [0]),
    "Q2_K": (10, 84, [80, 82]),
    "Q3_K": (11, 110, [108]),
    "Q4_K": (12, 144, [0, 2]),
    "Q5_K": (13, 176, [0, 2]),
    "Q6_K": (14, 210, [208]),
}
# Scales of a regime: (bits of the random draw to keep, bits to set). Exponent 0 is subnormal, 31 infinite or NaN.
REGIMES = {"any": (0xFFFF, 0), "subnormal": (0x83FF, 0), "largest": (0x83FF, 0x7800), "infinite": (0x8000, 0x7C00),
           "no_number": (0x81FF, 0x7E00)}


def dequantise(kind, data):
    with np.errstate(all="ignore"):
        return quants.dequantize(np.frombuffer(data, dtype=np.uint8), quants.GGMLQuantizationType(kind))


def random_bytes(seed, n):
    out, state = bytearray(), seed
    while len(out) < n:
        state = (state + 0x9E3779B97F4A7C15) & M64
        z = state
        z = ((z ^ z >> 30) * 0xBF58476D1CE4E5B9) & M64
        z = ((z ^ z >> 27) * 0x94D049BB133111EB) & M64
        out += struct.pack("<Q", z ^ z >> 31)
    return out[:n]


def random_blocks(seed, size, scales, regime):
    keep, fixed = REGIMES[regime]
    data = random_bytes(seed, size * BLOCKS)
    for at in range(0, len(data), size):
        for s in scales:
            (h,) = struct.unpack_from("<H", data, at + s)
            struct.pack_into("<H", data, at + s, h & keep | fixed)
    return bytes(data)


def fnv(values):
    bits = values.astype("<f4").view("<u4").copy()
    bits[np.isnan(values)] = 0x7FC00000
    h = 0xCBF29CE484222325
    for b in bits.tobytes():
        h = (h ^ b) * 0x100000001B3 & M64
    return h


def check_vectors():
    text = (here / "gguf_vectors.h").read_text()
    number = r"-?[\d.]+(?:e-?\d+)?"
    rows = re.findall(r'\{ "(\w+)",\s*(\d+),\s*(\d+),\s*(\d+),\s*((?:"[0-9a-f]+"\s*)+),\s*\{([^}]*)\},\s*(%s)' % number,
                      text)
    assert sorted(r[0] for r in rows) == sorted(TYPES), rows
    for name, kind, n, step, text, listed, total in rows:
        values = dequantise(int(kind), bytes.fromhex("".join(re.findall("[0-9a-f]+", text))))
        assert len(values) == int(n), name
        for i, v in enumerate(re.findall(number, listed)):
            assert values[i * int(step) % int(n)] == np.float32(v), (name, i)
        assert values.astype(np.float64).sum() == float(total), name
    print("gguf_vectors.h: %d types agree" % len(rows))


def write_hashes():
    lines = []
    for t, (name, (kind, size, scales)) in enumerate(TYPES.items()):
        for r, (regime, (keep, fixed)) in enumerate(REGIMES.items()):
            seed = 100 * t + r + 1
            h = fnv(dequantise(kind, random_blocks(seed, size, scales, regime)))
            lines.append('    { "%s, scales %s", %d, %d, { %d, %d }, 0x%04x, 0x%04x, %d, 0x%016x },' % (
                name, regime.replace("_", " "), kind, size, scales[0], scales[-1], keep, fixed, seed, h))
    (here / "gguf_hashes.h").write_text(
        "/* Written by gguf_vectors.py, which says what this is. */\n"
        "enum { HASHED_BLOCKS = %d };\n\n" % BLOCKS
        + "static const struct {\n    const char *name;\n    uint32_t type;\n"
        "    int block_bytes, scale_at[2];  /* the same place twice where a block has one scale */\n"
        "    uint16_t scale_keep, scale_set; /* bits of each scale */\n"
        "    uint64_t seed, hash;\n} hashed[] = {\n" + "\n".join(lines) + "\n};\n")
    print("gguf_hashes.h: %d rows" % len(lines))


check_vectors()
write_hashes()
