#include "buffer.h"

#include <stdlib.h>
#include <string.h>

/* Room for n more bytes and a NUL. */
static bool reserve(pn_buf *b, size_t n) {
    size_t need;
    if (b->failed || pn_add_overflow(b->n_bytes, n, &need) || pn_add_overflow(need, (size_t)1, &need)) {
        b->failed = true;
        return false;
    }
    if (need <= b->capacity) return true;
    size_t capacity = b->capacity ? b->capacity : 64;
    while (capacity < need)
        if (pn_mul_overflow(capacity, (size_t)2, &capacity)) capacity = need;
    char *grown = realloc(b->data, capacity);
    if (!grown) {
        b->failed = true;
        return false;
    }
    b->data = grown;
    b->capacity = capacity;
    return true;
}

void pn_buf_append(pn_buf *b, const void *data, size_t n_bytes) {
    if (!n_bytes || !reserve(b, n_bytes)) return;
    memcpy(b->data + b->n_bytes, data, n_bytes);
    b->n_bytes += n_bytes;
    b->data[b->n_bytes] = '\0';
}

void pn_buf_text(pn_buf *b, const char *text) {
    pn_buf_append(b, text, strlen(text));
}

void pn_buf_char(pn_buf *b, char c) {
    pn_buf_append(b, &c, 1);
}

void pn_buf_vprintf(pn_buf *b, const char *fmt, va_list args) {
    va_list again;
    va_copy(again, args);
    int n = vsnprintf(NULL, 0, fmt, args);
    if (n < 0)
        b->failed = true;
    else if (reserve(b, (size_t)n)) {
        vsnprintf(b->data + b->n_bytes, (size_t)n + 1, fmt, again);
        b->n_bytes += (size_t)n;
    }
    va_end(again);
}

void pn_buf_printf(pn_buf *b, const char *fmt, ...) {
    va_list args;
    va_start(args, fmt);
    pn_buf_vprintf(b, fmt, args);
    va_end(args);
}

/* Bytes of the UTF-8 sequence at s, 0 when there is none (stray, overlong, surrogate, beyond U+10FFFF, cut short). */
static int utf8_bytes(const unsigned char *s) {
    if (s[0] < 0x80) return 1;
    int n = s[0] >= 0xc2 && s[0] < 0xe0 ? 2 : s[0] >= 0xe0 && s[0] < 0xf0 ? 3 : s[0] >= 0xf0 && s[0] < 0xf5 ? 4 : 0;
    for (int i = 1; i < n; i++)
        if ((s[i] & 0xc0) != 0x80) return 0;
    if (s[0] == 0xe0 && s[1] < 0xa0) return 0;
    if (s[0] == 0xed && s[1] >= 0xa0) return 0;
    if (s[0] == 0xf0 && s[1] < 0x90) return 0;
    if (s[0] == 0xf4 && s[1] >= 0x90) return 0;
    return n;
}

void pn_buf_json_string(pn_buf *b, const char *text) {
    pn_buf_char(b, '"');
    for (const unsigned char *s = (const unsigned char *)text; *s;) {
        int n = utf8_bytes(s);
        if (n == 0) {
            pn_buf_text(b, "\xef\xbf\xbd");
            n = 1;
        } else if (*s == '"' || *s == '\\') {
            pn_buf_char(b, '\\');
            pn_buf_char(b, (char)*s);
        } else if (*s == '\n') {
            pn_buf_text(b, "\\n");
        } else if (*s == '\t') {
            pn_buf_text(b, "\\t");
        } else if (*s < 0x20 || *s == 0x7f) {
            pn_buf_printf(b, "\\u%04x", *s);
        } else {
            pn_buf_append(b, s, (size_t)n);
        }
        s += n;
    }
    pn_buf_char(b, '"');
}

const char *pn_buf_string(const pn_buf *b) {
    return b->data ? b->data : "";
}

pn_status pn_buf_status(const pn_buf *b) {
    PN_CHECK(!b->failed, PN_MEMORY, "out of memory: a text of more than %zu bytes does not fit", b->n_bytes);
    return PN_OK;
}

void pn_buf_clear(pn_buf *b) {
    b->n_bytes = 0;
    b->failed = false;
    if (b->data) b->data[0] = '\0';
}

void pn_buf_free(pn_buf *b) {
    free(b->data);
    memset(b, 0, sizeof *b);
}

const char *pn_double_text(double value, char *buffer, size_t n) {
    for (int digits = 1; digits <= 17; digits++) {
        snprintf(buffer, n, "%.*g", digits, value);
        if (strtod(buffer, NULL) == value) break;
    }
    return buffer;
}
