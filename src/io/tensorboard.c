#include "tensorboard.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "buffer.h"
#include "files.h"

struct pn_tensorboard {
    FILE *file;
    char path[PN_PATH_MAX];
    pn_buf event, part, value; /* kept between writes for their memory */
};

uint32_t pn_crc32c(const void *data, size_t n_bytes) {
    const unsigned char *p = data;
    uint32_t crc = ~0u;
    for (size_t i = 0; i < n_bytes; i++) {
        crc ^= p[i];
        for (int bit = 0; bit < 8; bit++) crc = crc >> 1 ^ (crc & 1 ? 0x82f63b78u : 0);
    }
    return ~crc;
}

/* ---- protobuf: a field is its number and wire type, then its bytes ---- */

enum { VARINT = 0, FIXED64 = 1, BYTES = 2, FIXED32 = 5 };

static void varint(pn_buf *b, uint64_t v) {
    for (; v >= 0x80; v >>= 7) pn_buf_char(b, (char)(v | 0x80));
    pn_buf_char(b, (char)v);
}

static void little_endian(pn_buf *b, uint64_t bits, int n_bytes) {
    for (int i = 0; i < n_bytes; i++) pn_buf_char(b, (char)(bits >> 8 * i));
}

static void tag(pn_buf *b, int number, int wire) {
    varint(b, (uint64_t)(number << 3 | wire));
}

static void bytes(pn_buf *b, int number, const void *data, size_t n_bytes) {
    tag(b, number, BYTES);
    varint(b, n_bytes);
    pn_buf_append(b, data, n_bytes);
}

/* Fields of tensorflow.Event, .Summary, .Summary.Value and .SessionLog. */
enum {
    EVENT_WALL_TIME = 1,
    EVENT_STEP = 2,
    EVENT_FILE_VERSION = 3,
    EVENT_SUMMARY = 5,
    EVENT_SESSION_LOG = 7,
    SUMMARY_VALUE = 1,
    VALUE_TAG = 1,
    VALUE_SIMPLE_VALUE = 2,
    SESSION_LOG_STATUS = 1,
    SESSION_START = 1,
};

static void begin(pn_tensorboard *t, int64_t step) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    double seconds = (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
    uint64_t bits;
    memcpy(&bits, &seconds, sizeof bits);
    pn_buf_clear(&t->event);
    tag(&t->event, EVENT_WALL_TIME, FIXED64);
    little_endian(&t->event, bits, 8);
    tag(&t->event, EVENT_STEP, VARINT);
    varint(&t->event, (uint64_t)step);
}

static uint32_t masked_crc(const void *data, size_t n_bytes) {
    uint32_t crc = pn_crc32c(data, n_bytes);
    return (crc >> 15 | crc << 17) + 0xa282ead8u;
}

/* The event as a record, by one write, so that a killed process leaves whole records or a torn last one. */
static pn_status end(pn_tensorboard *t) {
    pn_buf *record = &t->value;
    pn_buf_clear(record);
    little_endian(record, t->event.n_bytes, 8);
    little_endian(record, masked_crc(record->data, record->failed ? 0 : 8), 4);
    pn_buf_append(record, t->event.data, t->event.n_bytes);
    little_endian(record, masked_crc(t->event.data, t->event.n_bytes), 4);
    PN_TRY(pn_buf_status(&t->event));
    PN_TRY(pn_buf_status(record));
    PN_CHECK(fwrite(record->data, 1, record->n_bytes, t->file) == record->n_bytes && fflush(t->file) == 0, PN_IO,
             "%s: cannot write: %s", t->path, strerror(errno));
    return PN_OK;
}

static pn_status write_head(pn_tensorboard *t, int64_t first_step) {
    static const char version[] = "brain.Event:2";
    begin(t, 0);
    bytes(&t->event, EVENT_FILE_VERSION, version, sizeof version - 1);
    PN_TRY(end(t));
    begin(t, first_step);
    pn_buf_clear(&t->part);
    tag(&t->part, SESSION_LOG_STATUS, VARINT);
    varint(&t->part, SESSION_START);
    bytes(&t->event, EVENT_SESSION_LOG, t->part.data, t->part.n_bytes);
    PN_TRY(pn_buf_status(&t->part));
    PN_TRY(end(t));
    return PN_OK;
}

static pn_status open_next(pn_tensorboard *t, const char *directory) {
    PN_TRY(pn_make_directories(directory));
    for (int i = 0;; i++) {
        char name[64];
        snprintf(name, sizeof name, "events.out.tfevents.%06d", i);
        PN_TRY(pn_path_join(t->path, directory, name));
        t->file = fopen(t->path, "wbxe");
        if (t->file) return PN_OK;
        PN_CHECK(errno == EEXIST, PN_IO, "%s: cannot make the event file: %s", t->path, strerror(errno));
    }
}

pn_status pn_tensorboard_open(const char *directory, int64_t first_step, pn_tensorboard **out) {
    pn_tensorboard *t = calloc(1, sizeof *t);
    PN_CHECK(t, PN_MEMORY, "out of memory");
    pn_status s;
    PN_TRY_GOTO(s, open_next(t, directory), failed);
    PN_TRY_GOTO(s, write_head(t, first_step), failed);
    *out = t;
    return PN_OK;
failed:
    pn_tensorboard_close(&t);
    return s;
}

pn_status pn_tensorboard_write(pn_tensorboard *t, int64_t step, const pn_scalar *scalars, int n) {
    pn_buf summary = { 0 };
    for (int i = 0; i < n; i++) {
        float value = (float)scalars[i].value;
        uint32_t bits;
        memcpy(&bits, &value, sizeof bits);
        pn_buf_clear(&t->value);
        bytes(&t->value, VALUE_TAG, scalars[i].name, strlen(scalars[i].name));
        tag(&t->value, VALUE_SIMPLE_VALUE, FIXED32);
        little_endian(&t->value, bits, 4);
        summary.failed |= t->value.failed;
        bytes(&summary, SUMMARY_VALUE, t->value.data, t->value.n_bytes);
    }
    begin(t, step);
    bytes(&t->event, EVENT_SUMMARY, summary.data, summary.n_bytes);
    pn_status s = pn_buf_status(&summary);
    pn_buf_free(&summary);
    PN_TRY(s);
    PN_TRY(end(t));
    return PN_OK;
}

void pn_tensorboard_close(pn_tensorboard **t) {
    if (!t || !*t) return;
    if ((*t)->file) fclose((*t)->file);
    pn_buf_free(&(*t)->event);
    pn_buf_free(&(*t)->part);
    pn_buf_free(&(*t)->value);
    free(*t);
    *t = NULL;
}
