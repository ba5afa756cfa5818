/* A growable buffer of bytes or text, and size arithmetic that cannot wrap.
 *
 * Appending never fails at the call: running out of memory is remembered, later appends do nothing, and
 * pn_buf_status tells once, at the end. A zeroed struct is an empty buffer. */
#ifndef PN_BASE_BUFFER_H
#define PN_BASE_BUFFER_H

#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "status.h"

typedef struct pn_buf {
    char *data; /* owned; a NUL stands after the last byte; NULL while empty */
    size_t n_bytes, capacity;
    bool failed;
} pn_buf;

void pn_buf_append(pn_buf *b, const void *data, size_t n_bytes);
void pn_buf_text(pn_buf *b, const char *text);
void pn_buf_char(pn_buf *b, char c);
void pn_buf_printf(pn_buf *b, const char *fmt, ...) PN_PRINTF(2, 3);
void pn_buf_vprintf(pn_buf *b, const char *fmt, va_list args);
/* Text as a JSON string, quotes included; bytes that are not UTF-8 become U+FFFD. */
void pn_buf_json_string(pn_buf *b, const char *text);

/* The text so far, "" when empty: borrowed until the next append. */
const char *pn_buf_string(const pn_buf *b);
/* PN_MEMORY when an append did not fit into memory. */
pn_status pn_buf_status(const pn_buf *b);
/* Empties it and keeps the memory. */
void pn_buf_clear(pn_buf *b);
void pn_buf_free(pn_buf *b);

/* The shortest decimal that reads back as the same double ("0.1", "1e+300"); buffer of at least 32 bytes; returns it.
 */
const char *pn_double_text(double value, char *buffer, size_t n);

/* True when the result does not fit the type of *out (any integer type); *out then holds the wrapped value. */
#define pn_mul_overflow(a, b, out) __builtin_mul_overflow((a), (b), (out))
#define pn_add_overflow(a, b, out) __builtin_add_overflow((a), (b), (out))

#endif
