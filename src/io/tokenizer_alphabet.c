/* The byte alphabet of GPT-2's tokenizer (bytes_to_unicode): every byte has a printable character, so that a vocabulary
 * is readable JSON. The 188 bytes that print in Latin-1 are themselves; the other 68 (controls, space, 0x7F-0xA0, 0xAD)
 * take U+0100, U+0101, ... in byte order, so a space is U+0120. Also UTF-8, whose well-formed sequences are those of
 * Unicode 15, table 3-7. */
#include "tokenizer_internal.h"

#include <stdlib.h>
#include <string.h>

static bool prints(unsigned b) {
    return (b >= 0x21 && b <= 0x7e) || (b >= 0xa1 && b <= 0xac) || b >= 0xae;
}

uint32_t pn_tok_byte_to_char(unsigned b) {
    if (prints(b)) return b;
    if (b <= 0x20) return 0x100 + b;
    if (b <= 0xa0) return 0x100 + 33 + (b - 0x7f);
    return 0x100 + 67; /* 0xAD, the last one */
}

int pn_tok_char_to_byte(uint32_t c) {
    if (c < 0x100) return prints(c) ? (int)c : -1;
    uint32_t i = c - 0x100;
    if (i <= 0x20) return (int)i;
    if (i < 67) return (int)(i - 33 + 0x7f);
    return i == 67 ? 0xad : -1;
}

int pn_tok_put_utf8(uint32_t c, char out[4]) {
    if (c < 0x80) {
        out[0] = (char)c;
        return 1;
    }
    if (c < 0x800) {
        out[0] = (char)(0xc0 | c >> 6);
        out[1] = (char)(0x80 | (c & 0x3f));
        return 2;
    }
    if (c < 0x10000) {
        out[0] = (char)(0xe0 | c >> 12);
        out[1] = (char)(0x80 | (c >> 6 & 0x3f));
        out[2] = (char)(0x80 | (c & 0x3f));
        return 3;
    }
    out[0] = (char)(0xf0 | c >> 18);
    out[1] = (char)(0x80 | (c >> 12 & 0x3f));
    out[2] = (char)(0x80 | (c >> 6 & 0x3f));
    out[3] = (char)(0x80 | (c & 0x3f));
    return 4;
}

int pn_tok_get_utf8(const char *s, uint32_t *c) {
    const unsigned char *u = (const unsigned char *)s;
    if (u[0] < 0x80) {
        *c = u[0];
        return 1;
    }
    if (u[0] < 0xe0) {
        *c = (u[0] & 0x1fu) << 6 | (u[1] & 0x3fu);
        return 2;
    }
    if (u[0] < 0xf0) {
        *c = (u[0] & 0x0fu) << 12 | (u[1] & 0x3fu) << 6 | (u[2] & 0x3fu);
        return 3;
    }
    *c = (u[0] & 0x07u) << 18 | (u[1] & 0x3fu) << 12 | (u[2] & 0x3fu) << 6 | (u[3] & 0x3fu);
    return 4;
}

/* The length of the well-formed character at u (n bytes are left), or 0; then *n_bad is the length of the maximal part
 * that begins like one. */
static size_t well_formed(const unsigned char *u, size_t n, size_t *n_bad) {
    *n_bad = 1;
    if (u[0] < 0x80) return 1;
    size_t len = u[0] >= 0xc2 && u[0] <= 0xdf   ? 2
                 : u[0] >= 0xe0 && u[0] <= 0xef ? 3
                 : u[0] >= 0xf0 && u[0] <= 0xf4 ? 4
                                                : 0;
    if (len == 0 || n < 2) return 0;
    unsigned low = u[0] == 0xe0 ? 0xa0 : u[0] == 0xf0 ? 0x90 : 0x80;
    unsigned high = u[0] == 0xed ? 0x9f : u[0] == 0xf4 ? 0x8f : 0xbf;
    if (u[1] < low || u[1] > high) return 0;
    for (size_t i = 2; i < len; i++) {
        *n_bad = i;
        if (i >= n || (u[i] & 0xc0) != 0x80) return 0;
    }
    return len;
}

bool pn_text_is_utf8(const char *text, size_t n_bytes, size_t *bad_at) {
    const unsigned char *u = (const unsigned char *)text;
    size_t i = 0, n_bad;
    while (i < n_bytes) {
        uint64_t eight;
        if (i + 8 <= n_bytes && (memcpy(&eight, u + i, 8), (eight & 0x8080808080808080u) == 0)) {
            i += 8;
            continue;
        }
        size_t len = well_formed(u + i, n_bytes - i, &n_bad);
        if (len == 0) {
            if (bad_at) *bad_at = i;
            return false;
        }
        i += len;
    }
    return true;
}

pn_status pn_text_repair(const char *text, size_t n_bytes, char **out, size_t *n_out) {
    *out = NULL;
    *n_out = 0;
    PN_CHECK(n_bytes <= SIZE_MAX / 4, PN_USAGE, "text of %zu bytes is too long to repair", n_bytes);
    char *copy = malloc(3 * n_bytes + 1);
    PN_CHECK(copy, PN_MEMORY, "no memory for a copy of a text of %zu bytes", n_bytes);
    const unsigned char *u = (const unsigned char *)text;
    size_t n = 0, n_bad;
    for (size_t i = 0; i < n_bytes;) {
        size_t len = well_formed(u + i, n_bytes - i, &n_bad);
        if (len > 0) {
            memcpy(copy + n, u + i, len);
            n += len;
            i += len;
        } else {
            memcpy(copy + n, "\xef\xbf\xbd", 3);
            n += 3;
            i += n_bad;
        }
    }
    copy[n] = '\0';
    *out = copy;
    *n_out = n;
    return PN_OK;
}
