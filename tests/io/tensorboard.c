/* Event files: every record is whole and says what was written; a second process, a killed one and a full disk. */
#include <math.h>

#include "files.h"
#include "io_fixture.h"
#include "monitor.h"

/* ---- reading, independent of the writer ---- */

typedef struct event {
    double wall_time;
    int64_t step;
    char version[32], tag[4][64];
    float value[4];
    int n_values;
    bool start;
} event;

static uint64_t little_endian(const unsigned char *p, int n_bytes) {
    uint64_t v = 0;
    for (int i = n_bytes; i-- > 0;) v = v << 8 | p[i];
    return v;
}

static uint32_t unmasked(uint32_t masked) {
    uint32_t rotated = masked - 0xa282ead8u;
    return rotated >> 17 | rotated << 15;
}

/* CRC-32C by its table, four bits at a time. */
static uint32_t crc_of(const unsigned char *p, size_t n_bytes) {
    static const uint32_t half[16] = { 0x00000000, 0x105ec76f, 0x20bd8ede, 0x30e349b1, 0x417b1dbc, 0x5125dad3,
                                       0x61c69362, 0x7198540d, 0x82f63b78, 0x92a8fc17, 0xa24bb5a6, 0xb21572c9,
                                       0xc38d26c4, 0xd3d3e1ab, 0xe330a81a, 0xf36e6f75 };
    uint32_t crc = 0xffffffff;
    for (size_t i = 0; i < n_bytes; i++) {
        crc = half[(crc ^ p[i]) & 15] ^ crc >> 4;
        crc = half[(crc ^ p[i] >> 4) & 15] ^ crc >> 4;
    }
    return ~crc;
}

typedef struct field {
    int number;
    uint64_t scalar;           /* of a varint or fixed field */
    const unsigned char *data; /* of one with a length */
    size_t n_bytes;
} field;

/* The next field of a message, false at its end. */
static bool next_field(const unsigned char **p, const unsigned char *end, field *f) {
    if (*p == end) return false;
    uint64_t key = 0;
    for (int pass = 0, shift = 0; pass < 2; pass++, shift = 0) {
        uint64_t v = 0;
        do {
            ck_assert_ptr_ne(*p, end);
            v |= (uint64_t)(**p & 0x7f) << shift;
            shift += 7;
        } while (*(*p)++ & 0x80);
        if (pass == 0) {
            key = v;
            *f = (field){ .number = (int)(key >> 3) };
            if ((key & 7) == 1 || (key & 7) == 5) { /* fixed: no second number */
                int n = (key & 7) == 1 ? 8 : 4;
                ck_assert_int_ge(end - *p, n);
                f->scalar = little_endian(*p, n);
                *p += n;
                return true;
            }
        } else if ((key & 7) == 0) {
            f->scalar = v;
        } else {
            ck_assert_uint_eq(key & 7, 2);
            ck_assert_uint_le(v, (uint64_t)(end - *p));
            f->data = *p;
            f->n_bytes = v;
            *p += v;
        }
    }
    return true;
}

static void read_value(const unsigned char *p, const unsigned char *end, event *e) {
    field f;
    ck_assert_int_lt(e->n_values, 4);
    while (next_field(&p, end, &f)) {
        uint32_t bits = (uint32_t)f.scalar;
        if (f.number == 1) snprintf(e->tag[e->n_values], sizeof e->tag[0], "%.*s", (int)f.n_bytes, f.data);
        if (f.number == 2) memcpy(&e->value[e->n_values], &bits, sizeof bits);
    }
    e->n_values++;
}

static void read_event(const unsigned char *p, const unsigned char *end, event *e) {
    field f, inner;
    *e = (event){ 0 };
    while (next_field(&p, end, &f)) {
        const unsigned char *q = f.data;
        switch (f.number) {
        case 1: memcpy(&e->wall_time, &f.scalar, sizeof e->wall_time); break;
        case 2: e->step = (int64_t)f.scalar; break;
        case 3: snprintf(e->version, sizeof e->version, "%.*s", (int)f.n_bytes, f.data); break;
        case 5:
            while (next_field(&q, f.data + f.n_bytes, &inner))
                if (inner.number == 1) read_value(inner.data, inner.data + inner.n_bytes, e);
            break;
        case 7:
            while (next_field(&q, f.data + f.n_bytes, &inner)) e->start |= inner.number == 1 && inner.scalar == 1;
            break;
        default: ck_abort_msg("field %d of an event", f.number);
        }
    }
}

/* Events of a file; what stands behind the last whole record is returned as *torn bytes. */
static int read_file(const char *path, event *events, int most, size_t *torn) {
    char *data;
    size_t n_bytes;
    int n = 0;
    ck_ok(pn_file_read(path, 1 << 20, &data, &n_bytes));
    const unsigned char *p = (unsigned char *)data, *end = p + n_bytes;
    while (end - p >= 12) {
        uint64_t length = little_endian(p, 8);
        if ((uint64_t)(end - p) < length + 16) break;
        ck_assert_uint_eq(unmasked((uint32_t)little_endian(p + 8, 4)), crc_of(p, 8));
        ck_assert_uint_eq(unmasked((uint32_t)little_endian(p + 12 + length, 4)), crc_of(p + 12, length));
        ck_assert_int_lt(n, most);
        read_event(p + 12, p + 12 + length, &events[n++]);
        p += length + 16;
    }
    *torn = (size_t)(end - p);
    free(data);
    return n;
}

/* ---- tests ---- */

START_TEST(checksums) {
    unsigned char bytes[32]; /* the vectors of RFC 3720, B.4 */
    ck_assert_uint_eq(pn_crc32c("123456789", 9), 0xe3069283);
    memset(bytes, 0, sizeof bytes);
    ck_assert_uint_eq(pn_crc32c(bytes, 32), 0x8a9136aa);
    memset(bytes, 0xff, sizeof bytes);
    ck_assert_uint_eq(pn_crc32c(bytes, 32), 0x62a8ab43);
    for (int i = 0; i < 32; i++) bytes[i] = (unsigned char)i;
    ck_assert_uint_eq(pn_crc32c(bytes, 32), 0x46dd794e);
    ck_assert_uint_eq(crc_of(bytes, 32), 0x46dd794e);
}
END_TEST

START_TEST(a_file_says_what_was_written) {
    pn_tensorboard *t;
    const char *directory = scratch("deep/events");
    ck_ok(pn_tensorboard_open(directory, 3, &t));
    ck_ok(pn_tensorboard_write(t, 3,
                               (pn_scalar[]){ { "loss", 2.5 },
                                              { "gr\xc3\xb6\xc3\x9f"
                                                "e/x",
                                                -1e-3 } },
                               2));
    ck_ok(pn_tensorboard_write(t, INT64_C(1) << 40, (pn_scalar[]){ { "loss", NAN } }, 1));
    event e[8];
    size_t torn;
    char path[PN_PATH_MAX];
    ck_ok(pn_path_join(path, directory, "events.out.tfevents.000000"));
    ck_assert_int_eq(read_file(path, e, 8, &torn), 4); /* before it is closed */
    pn_tensorboard_close(&t);
    ck_assert_ptr_null(t);
    ck_assert_int_eq(read_file(path, e, 8, &torn), 4);
    ck_assert_uint_eq(torn, 0);
    ck_assert_str_eq(e[0].version, "brain.Event:2");
    ck_assert(e[1].start && e[1].step == 3 && !e[0].start && !e[2].start);
    ck_assert_int_eq(e[2].step, 3);
    ck_assert_int_eq(e[2].n_values, 2);
    ck_assert_str_eq(e[2].tag[0], "loss");
    ck_assert_str_eq(e[2].tag[1], "gr\xc3\xb6\xc3\x9f"
                                  "e/x");
    ck_assert_float_eq(e[2].value[0], 2.5f);
    ck_assert_float_eq(e[2].value[1], -1e-3f);
    ck_assert_int_eq(e[3].step, INT64_C(1) << 40);
    ck_assert(isnan(e[3].value[0]));
    for (int i = 0; i < 4; i++) ck_assert_double_gt(e[i].wall_time, 1.7e9);
}
END_TEST

/* A process killed inside a record: the next one begins a file of its own and leaves the torn one alone. */
START_TEST(a_torn_file_is_left_alone) {
    pn_tensorboard *t;
    const char *directory = scratch("torn");
    ck_ok(pn_tensorboard_open(directory, 1, &t));
    for (int step = 1; step <= 4; step++) ck_ok(pn_tensorboard_write(t, step, &(pn_scalar){ "loss", step }, 1));
    pn_tensorboard_close(&t);
    char path[2][PN_PATH_MAX], *data, *again;
    size_t n, n_again, torn;
    ck_ok(pn_path_join(path[0], directory, "events.out.tfevents.000000"));
    ck_ok(pn_path_join(path[1], directory, "events.out.tfevents.000001"));
    ck_ok(pn_file_read(path[0], 1 << 20, &data, &n));
    write_bytes(path[0], data, n - 5);
    ck_ok(pn_tensorboard_open(directory, 3, &t));
    ck_ok(pn_tensorboard_write(t, 3, &(pn_scalar){ "loss", 30 }, 1));
    pn_tensorboard_close(&t);
    event e[8];
    ck_assert_int_eq(read_file(path[0], e, 8, &torn), 5);
    ck_assert_uint_gt(torn, 0);
    ck_ok(pn_file_read(path[0], 1 << 20, &again, &n_again));
    ck_assert(n_again == n - 5 && !memcmp(again, data, n_again));
    ck_assert_int_eq(read_file(path[1], e, 8, &torn), 3);
    ck_assert(e[1].start && e[1].step == 3);
    ck_assert_float_eq(e[2].value[0], 30);
    free(data);
    free(again);
}
END_TEST

START_TEST(refusals) {
    pn_tensorboard *t = NULL;
    write_text(scratch("file"), "x");
    ck_refused(pn_tensorboard_open(scratch("file"), 0, &t), PN_IO, scratch("file"));
    ck_assert_ptr_null(t);
}
END_TEST

/* One series, one directory; a series that this process has not begun is left alone. */
START_TEST(series) {
    const char *root = scratch("run/tensorboard");
    ck_ok(pn_monitor_open(root));
    pn_monitor_point("distil ../PostNAS", 7, (pn_scalar[]){ { "loss", 1 }, { "rate", 2 } }, 2);
    pn_monitor_point("search", 0, &(pn_scalar){ "best", 3 }, 1);
    pn_monitor_point("distil ../PostNAS", 8, &(pn_scalar){ "loss", 4 }, 1);
    pn_monitor_close();
    pn_monitor_point("search", 1, &(pn_scalar){ "best", 5 }, 1); /* closed: the log only */
    ck_ok(pn_monitor_open(root));
    pn_monitor_point("distil ../PostNAS", 8, &(pn_scalar){ "loss", 6 }, 1);
    pn_monitor_close();
    static const struct {
        const char *path;
        int n, first_step;
        float last;
    } c[] = { { "run/tensorboard/distil-..-PostNAS/events.out.tfevents.000000", 4, 7, 4 },
              { "run/tensorboard/distil-..-PostNAS/events.out.tfevents.000001", 3, 8, 6 },
              { "run/tensorboard/search/events.out.tfevents.000000", 3, 0, 3 } };
    for (size_t i = 0; i < sizeof c / sizeof *c; i++) {
        event e[8];
        size_t torn;
        ck_assert_int_eq(read_file(scratch(c[i].path), e, 8, &torn), c[i].n);
        ck_assert_int_eq(e[1].step, c[i].first_step);
        ck_assert_float_eq(e[c[i].n - 1].value[0], c[i].last);
    }
    ck_assert(!pn_file_exists(scratch("run/tensorboard/search/events.out.tfevents.000001")));
}
END_TEST

/* Showing never ends a run. */
START_TEST(a_directory_that_cannot_be_made) {
    write_text(scratch("file"), "x");
    ck_ok(pn_monitor_open(scratch("file")));
    pn_monitor_point("search", 0, &(pn_scalar){ "best", 1 }, 1);
    pn_monitor_point("search", 1, &(pn_scalar){ "best", 1 }, 1);
    ck_assert_str_eq(pn_error_message(), "");
    pn_monitor_close();
}
END_TEST

START_TEST(points_to_show) {
    const int64_t totals[] = { 1, 2, 399, 400, 401, 1000, 123457 };
    for (size_t i = 0; i < sizeof totals / sizeof *totals; i++) {
        int64_t shown = 0;
        for (int64_t step = 1; step <= totals[i]; step++) shown += pn_monitor_due(step, totals[i]);
        ck_assert(pn_monitor_due(totals[i], totals[i]));
        ck_assert_int_le(shown, PN_MONITOR_POINTS + 1);
        ck_assert_int_ge(shown, totals[i] < PN_MONITOR_POINTS / 2 ? totals[i] : PN_MONITOR_POINTS / 2);
    }
}
END_TEST

TEST_MAIN("tensorboard", checksums, a_file_says_what_was_written, a_torn_file_is_left_alone, refusals, series,
          a_directory_that_cannot_be_made, points_to_show)
