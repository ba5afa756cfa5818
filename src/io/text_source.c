#include "text_source.h"

#include <errno.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <xxhash.h>
#include <zlib.h>

#include "tokenizer.h"

enum { BLOCK_BYTES = 1 << 16 };

const char *const pn_text_format_names[] = {
    [PN_TEXT_FILE] = "text",  [PN_TEXT_PARAGRAPHS] = "paragraphs", [PN_TEXT_PAGES] = "pages", [PN_TEXT_JSONL] = "jsonl",
    [PN_TEXT_FORMATS] = NULL,
};

typedef struct bytes {
    char *data;
    size_t n, cap;
} bytes;

struct pn_text_source {
    pn_text_source_config config;
    int64_t file;     /* index of the open file, or of the next one to open */
    gzFile stream;    /* NULL: between files */
    int64_t line;     /* lines begun in this file */
    int64_t at;       /* bytes of this file (unpacked) handed out */
    int64_t piece_at; /* where the present piece began */
    int64_t piece_line;
    char block[BLOCK_BYTES];
    size_t block_at, block_n;
    bytes piece; /* raw bytes of the present document */
    char *repaired;
    json_t *json;                        /* the line that *text points into */
    int64_t n_bytes, n_before, n_blanks; /* n_before: bytes of the files before this one */
    char where[512];
};

static const char *name_of(const pn_text_source *s) {
    return s->config.files[s->file];
}

pn_status pn_text_source_open(const pn_text_source_config *config, pn_text_source **out) {
    *out = NULL;
    PN_CHECK(config->n_files > 0, PN_USAGE, "no text files were named");
    int64_t total = 0;
    for (int64_t i = 0; i < config->n_files; i++) {
        struct stat st;
        PN_CHECK(stat(config->files[i], &st) == 0, PN_IO, "%s: cannot read the file: %s", config->files[i],
                 strerror(errno));
        PN_CHECK(!S_ISDIR(st.st_mode), PN_IO, "%s: is a directory; name the files in it", config->files[i]);
        total += st.st_size;
    }
    pn_text_source *s = calloc(1, sizeof *s);
    PN_CHECK(s, PN_MEMORY, "out of memory for a text source");
    s->config = *config;
    if (!s->config.field) s->config.field = "text";
    if (!s->config.max_doc_bytes) s->config.max_doc_bytes = INT64_C(256) << 20;
    s->n_bytes = total;
    *out = s;
    return PN_OK;
}

void pn_text_source_close(pn_text_source **source) {
    pn_text_source *s = *source;
    *source = NULL;
    if (!s) return;
    if (s->stream) gzclose_r(s->stream);
    json_decref(s->json);
    free(s->repaired);
    free(s->piece.data);
    free(s);
}

const char *pn_text_source_where(const pn_text_source *s) {
    return s->where;
}
int64_t pn_text_source_bytes(const pn_text_source *s) {
    return s->n_bytes;
}
int64_t pn_text_source_blanks(const pn_text_source *s) {
    return s->n_blanks;
}
int64_t pn_text_source_bytes_read(const pn_text_source *s) {
    int64_t here = s->stream ? gzoffset(s->stream) : 0;
    return s->n_before + (here > 0 ? here : 0);
}

/* ---- the stream of bytes ---- */

static pn_status open_file(pn_text_source *s) {
    s->stream = gzopen(name_of(s), "rb");
    PN_CHECK(s->stream, PN_IO, "%s: cannot read the file: %s", name_of(s), strerror(errno));
    gzbuffer(s->stream, BLOCK_BYTES);
    s->line = s->at = 0;
    s->block_at = s->block_n = 0;
    return PN_OK;
}

static pn_status close_file(pn_text_source *s) {
    struct stat st;
    if (stat(name_of(s), &st) == 0) s->n_before += st.st_size;
    int result = gzclose_r(s->stream);
    s->stream = NULL;
    PN_CHECK(result == Z_OK, PN_FORMAT, "%s: the gzip file is cut short or damaged", name_of(s));
    s->file++;
    return PN_OK;
}

/* Makes sure the block has bytes; it has none at the file's end. */
static pn_status fill(pn_text_source *s) {
    if (s->block_at < s->block_n) return PN_OK;
    int n = gzread(s->stream, s->block, BLOCK_BYTES);
    int code = Z_OK;
    if (n <= 0) (void)gzerror(s->stream, &code);
    PN_CHECK(code != Z_ERRNO, PN_IO, "%s: cannot read the file: %s", name_of(s), strerror(errno));
    PN_CHECK(n >= 0 && code == Z_OK, PN_FORMAT, "%s: the gzip file is cut short or damaged after %lld unpacked bytes",
             name_of(s), (long long)s->at);
    s->block_at = 0;
    s->block_n = (size_t)n;
    return PN_OK;
}

static pn_status keep(pn_text_source *s, const char *from, size_t n) {
    bytes *p = &s->piece;
    PN_CHECK(n <= (size_t)s->config.max_doc_bytes - p->n, PN_FORMAT,
             "%s:%lld: a document of more than %lld bytes; choose another --format, or split the file", name_of(s),
             (long long)s->piece_line, (long long)s->config.max_doc_bytes);
    if (p->n + n + 1 > p->cap) {
        size_t cap = p->n + n + 1 + p->cap / 2;
        char *fresh = realloc(p->data, cap);
        PN_CHECK(fresh, PN_MEMORY, "%s:%lld: out of memory for a document of %zu bytes", name_of(s),
                 (long long)s->piece_line, cap);
        p->data = fresh;
        p->cap = cap;
    }
    memcpy(p->data + p->n, from, n);
    p->n += n;
    return PN_OK;
}

/* Appends to the piece up to and including `stop` (-1: up to the end). *more is false when the file ended before a byte
 * was found. */
static pn_status take(pn_text_source *s, int stop, bool *more) {
    *more = false;
    for (bool found = false; !found;) {
        PN_TRY(fill(s));
        if (s->block_n == 0) return PN_OK;
        *more = true;
        const char *from = s->block + s->block_at;
        size_t n = s->block_n - s->block_at;
        const char *hit = stop < 0 ? NULL : memchr(from, stop, n);
        if (hit) {
            n = (size_t)(hit - from) + 1;
            found = true;
        }
        PN_TRY(keep(s, from, n));
        for (const char *c = from; (c = memchr(c, '\n', n - (size_t)(c - from))); c++) s->line++;
        s->block_at += n;
        s->at += (int64_t)n;
    }
    return PN_OK;
}

/* ---- pieces: the raw bytes of one document ---- */

static bool is_blank(const char *text, size_t n) {
    for (size_t i = 0; i < n; i++)
        if (!strchr(" \t\r\n\f\v", text[i]) || !text[i]) return false;
    return true;
}

static void begin_piece(pn_text_source *s) {
    s->piece.n = 0;
    s->piece_at = s->at;
    s->piece_line = s->line + 1;
}

static void drop_last(pn_text_source *s, char c) {
    if (s->piece.n && s->piece.data[s->piece.n - 1] == c) s->piece.n--;
}

/* Lines up to a blank one, without it; blank lines before the first are passed over. */
static pn_status take_paragraph(pn_text_source *s, bool *more) {
    for (;;) {
        size_t before = s->piece.n;
        bool line;
        PN_TRY(take(s, '\n', &line));
        *more = line || before;
        if (!line) return PN_OK;
        if (!is_blank(s->piece.data + before, s->piece.n - before)) continue;
        s->piece.n = before;
        if (before) return PN_OK;
        begin_piece(s);
    }
}

/* The next piece of the open file; *more is false at its end. */
static pn_status next_piece(pn_text_source *s, bool *more) {
    begin_piece(s);
    switch (s->config.format) {
    case PN_TEXT_PARAGRAPHS: return take_paragraph(s, more);
    case PN_TEXT_PAGES:
        PN_TRY(take(s, '\f', more));
        drop_last(s, '\f');
        return PN_OK;
    case PN_TEXT_JSONL:
        PN_TRY(take(s, '\n', more));
        drop_last(s, '\n');
        return PN_OK;
    default: return take(s, -1, more);
    }
}

/* ---- documents ---- */

static pn_status check_utf8(pn_text_source *s, const char **text, size_t *n) {
    size_t bad_at;
    if (pn_text_is_utf8(*text, *n, &bad_at)) return PN_OK;
    PN_CHECK(
        s->config.repair, PN_FORMAT,
        "%s: not UTF-8 at byte %lld (line %lld and after); convert the file with iconv, or give --repair to replace "
        "such bytes by U+FFFD",
        name_of(s), (long long)s->piece_at + (long long)bad_at, (long long)s->piece_line);
    free(s->repaired);
    s->repaired = NULL;
    PN_TRY(pn_text_repair(*text, *n, &s->repaired, n));
    *text = s->repaired;
    return PN_OK;
}

static pn_status read_json(pn_text_source *s, const char **text, size_t *n) {
    json_error_t error;
    json_decref(s->json);
    s->json = json_loadb(*text, *n, JSON_ALLOW_NUL, &error);
    PN_CHECK(s->json, PN_FORMAT, "%s:%lld: not a line of JSON: %s (column %d)", name_of(s), (long long)s->piece_line,
             error.text, error.column);
    PN_CHECK(json_is_object(s->json), PN_FORMAT, "%s:%lld: not a JSON object", name_of(s), (long long)s->piece_line);
    const json_t *field = json_object_get(s->json, s->config.field);
    PN_CHECK(json_is_string(field), PN_FORMAT, "%s:%lld: no text under \"%s\"; name the field with --field", name_of(s),
             (long long)s->piece_line, s->config.field);
    *text = json_string_value(field);
    *n = json_string_length(field);
    return PN_OK;
}

pn_status pn_text_source_next(pn_text_source *s, const char **text, size_t *n_bytes) {
    *text = NULL;
    *n_bytes = 0;
    while (s->file < s->config.n_files) {
        if (!s->stream) PN_TRY(open_file(s));
        bool more;
        PN_TRY(next_piece(s, &more));
        if (!more) {
            PN_TRY(close_file(s));
            continue;
        }
        const char *found = s->piece.n ? s->piece.data : "";
        size_t n = s->piece.n;
        PN_TRY(check_utf8(s, &found, &n));
        if (s->piece_at == 0 && n >= 3 && memcmp(found, "\xEF\xBB\xBF", 3) == 0) { /* a byte order mark is no text */
            found += 3;
            n -= 3;
        }
        if (s->config.format == PN_TEXT_JSONL && !is_blank(found, n)) PN_TRY(read_json(s, &found, &n));
        if (is_blank(found, n)) {
            s->n_blanks++;
            continue;
        }
        snprintf(s->where, sizeof s->where, "%s:%lld", name_of(s), (long long)s->piece_line);
        *text = found;
        *n_bytes = n;
        return PN_OK;
    }
    return PN_OK;
}

/* ---- going on ---- */

pn_text_position pn_text_source_tell(const pn_text_source *s) {
    return (pn_text_position){ s->file, s->stream ? s->at : 0, s->stream ? s->line : 0, s->n_blanks };
}

pn_status pn_text_source_seek(pn_text_source *s, const pn_text_position *p) {
    PN_CHECK(p->file >= 0 && p->file <= s->config.n_files && p->at >= 0 && p->line >= 0, PN_FORMAT,
             "a place that is not in these files");
    for (; s->file < p->file; s->file++) {
        struct stat st;
        if (stat(name_of(s), &st) == 0) s->n_before += st.st_size;
    }
    s->n_blanks = p->n_blanks;
    if (p->file == s->config.n_files || p->at == 0) return PN_OK;
    PN_TRY(open_file(s));
    (void)gzdirect(s->stream); /* looks at the file: a plain one is then sought in, not read through */
    PN_CHECK(gzseek(s->stream, p->at, SEEK_SET) == p->at, PN_FORMAT,
             "%s: cannot go on at byte %lld; the file has changed, or is cut short", name_of(s), (long long)p->at);
    s->at = p->at;
    s->line = p->line;
    return PN_OK;
}

uint64_t pn_text_source_hash(const pn_text_source *s) {
    const pn_text_source_config *c = &s->config;
    const int64_t how[] = { c->format, c->repair, c->max_doc_bytes };
    uint64_t hash = XXH3_64bits_withSeed(c->field, strlen(c->field), XXH3_64bits(how, sizeof how));
    for (int64_t i = 0; i < c->n_files; i++) {
        struct stat st = { 0 };
        (void)stat(c->files[i], &st); /* opening has looked at it; one that has gone since is another input */
        const int64_t file[] = { st.st_size, st.st_mtim.tv_sec, st.st_mtim.tv_nsec };
        hash = XXH3_64bits_withSeed(c->files[i], strlen(c->files[i]), hash);
        hash = XXH3_64bits_withSeed(file, sizeof file, hash);
    }
    return hash;
}
