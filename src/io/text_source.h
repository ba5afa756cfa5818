/* Documents out of text files, one after another: whole files, paragraphs, pages, or lines of JSON; gzip or plain.
 *
 * Every document is valid UTF-8 and not blank. Files are read as streams: one document is in memory at a time. */
#ifndef PN_IO_TEXT_SOURCE_H
#define PN_IO_TEXT_SOURCE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "status.h"

typedef struct pn_text_source pn_text_source;

typedef enum pn_text_format {
    PN_TEXT_FILE,       /* a file is a document */
    PN_TEXT_PARAGRAPHS, /* blank lines separate documents */
    PN_TEXT_PAGES,      /* form feeds separate documents */
    PN_TEXT_JSONL,      /* a line is a JSON object; one of its fields is the document */
    PN_TEXT_FORMATS
} pn_text_format;

/* "text", "paragraphs", "pages", "jsonl": NULL-ended, by pn_text_format. */
extern const char *const pn_text_format_names[];

/* Everything is borrowed until the source is closed. */
typedef struct pn_text_source_config {
    const char *const *files; /* (n_files) a name that ends in .gz, or content that is gzip, is unpacked */
    int64_t n_files;
    pn_text_format format;
    const char *field;     /* of PN_TEXT_JSONL; NULL: "text" */
    bool repair;           /* bytes that are not UTF-8 become U+FFFD instead of an error */
    int64_t max_doc_bytes; /* 0: 256 MiB */
} pn_text_source_config;

/* PN_USAGE: no files. PN_IO: one of them is missing or is a directory (all are looked at before the first is read). */
pn_status pn_text_source_open(const pn_text_source_config *config, pn_text_source **out);
/* The next document, borrowed until the next call; *text is NULL after the last. PN_FORMAT: not UTF-8, a broken line of
 * JSON, a damaged gzip file, or a document that is too long; the message says file and place. */
pn_status pn_text_source_next(pn_text_source *s, const char **text, size_t *n_bytes);
/* Where the last document began, for messages ("a.jsonl:17"); borrowed until the next call. */
const char *pn_text_source_where(const pn_text_source *s);
/* Bytes of the files on disk, and how many of them have been read. */
int64_t pn_text_source_bytes(const pn_text_source *s);
int64_t pn_text_source_bytes_read(const pn_text_source *s);
/* Blank documents passed over so far. */
int64_t pn_text_source_blanks(const pn_text_source *s);

/* A place between two documents, to go on from. */
typedef struct pn_text_position {
    int64_t file, at, line; /* index of the file; its unpacked bytes and lines before the place */
    int64_t n_blanks;
} pn_text_position;
pn_text_position pn_text_source_tell(const pn_text_source *s);
/* To a place that tell gave for the same files; before the first document is read. Skips through packed files. */
pn_status pn_text_source_seek(pn_text_source *s, const pn_text_position *position);
/* Identifies the input as far as names, sizes, times of change and the way of reading tell. */
uint64_t pn_text_source_hash(const pn_text_source *s);

void pn_text_source_close(pn_text_source **s);

#endif
