/* Teacher rows: of every token of a mixture's training rows, the k most likely next tokens and their log-probabilities,
 * as `postnas teach` writes them once and training reads them in place of the teacher (linear_kl_topk.h).
 *
 *     <dir>/manifest.json           whose rows they are, and per shard its rows, size and hash
 *     <dir>/rows-00000.h5           HDF5:
 *         /ids                      (rows T k) int32, ascending in the k of a token
 *         /log_p                    (rows T k) float32, not above 0
 *     <dir>/rows-00001-to-17.h5     the last shard, while it has 17 rows and not yet all that a shard takes
 *
 * Log-probabilities are F32: what the k tokens leave to all others is 1 - sum p, a difference that is a thousandth or
 * less for a large k, and of the size of the errors that F16 (5e-4) or BF16 (4e-3) would make. They are at one
 * temperature, chosen when they are written, because the sum over the whole vocabulary is known at that alone.
 *
 * Row i is row i of the train split (mixture.h): a function of the mixture and i, so that rows can be added at any
 * time. Every dataset is chunked and checksummed. A shard is written whole; the manifest, written aside and renamed,
 * names what is done, so that a writer goes on where one was stopped and ends with the same bytes. A reader checks
 * every shard's size when the rows are opened, its xxh3-64 before HDF5 opens it, and every id and number that it hands
 * out. Writers and readers are for one thread at a time each. */
#ifndef PN_IO_TEACHER_ROWS_H
#define PN_IO_TEACHER_ROWS_H

#include <stdint.h>

#include "status.h"

enum {
    PN_TEACHER_WORDS = 64, /* k, where nothing is said */
    PN_TEACHER_SHARD_BYTES = 64 << 20,
    PN_TEACHER_NAME_MAX = 128,
    PN_TEACHER_ENTRY_BYTES = 8 /* an id and its log_p */
};

/* Whose rows they are: what must be equal for rows to be added, and for training to use them. */
typedef struct pn_teacher_info {
    char teacher[PN_TEACHER_NAME_MAX]; /* for people */
    uint64_t teacher_hash, tokenizer_hash, mixture_hash;
    int64_t vocab; /* of the model: ids are in [0, vocab) */
    int64_t sequence_length, k;
    double temperature;
} pn_teacher_info;

/* ---- writing ---- */

typedef struct pn_teacher_writer pn_teacher_writer;

/* Rows for `dir`: a new directory, or one that has rows of the same, to which more are added. shard_bytes 0:
 * PN_TEACHER_SHARD_BYTES. PN_USAGE: another's rows, other files, or another process is writing. */
pn_status pn_teacher_writer_open(const char *dir, const pn_teacher_info *info, int64_t shard_bytes,
                                 pn_teacher_writer **out);
/* How many rows there are: the next that is added is this one. */
int64_t pn_teacher_writer_rows(const pn_teacher_writer *w);
/* ids, log_p: (n T k) each. */
pn_status pn_teacher_writer_add(pn_teacher_writer *w, int64_t n, const int32_t *ids, const float *log_p);
/* Puts on disk what was added. */
pn_status pn_teacher_writer_save(pn_teacher_writer *w);
/* What was not saved since a shard was full is lost. Accepts NULL and leaves NULL. */
void pn_teacher_writer_close(pn_teacher_writer **w);

/* ---- reading ---- */

typedef struct pn_teacher_rows pn_teacher_rows;

/* PN_IO: not there. PN_FORMAT: damaged, cut short or changed; the message names the file. */
pn_status pn_teacher_rows_open(const char *dir, pn_teacher_rows **out);
void pn_teacher_rows_close(pn_teacher_rows **r);
const pn_teacher_info *pn_teacher_rows_info(const pn_teacher_rows *r);
int64_t pn_teacher_rows_count(const pn_teacher_rows *r);
/* PN_USAGE, starting with `where` and ending with the remedy, unless they are what training needs: all of `need` but
 * who the teacher was and k, and so many rows. */
pn_status pn_teacher_rows_need(const pn_teacher_rows *r, const pn_teacher_info *need, int64_t rows, const char *where);
/* Rows first .. first + n - 1: ids and log_p (n T k) each. PN_FORMAT when a checksum does not hold, an id is outside
 * the vocabulary or does not ascend, a log_p is above 0 or no number. */
pn_status pn_teacher_rows_read(pn_teacher_rows *r, int64_t first, int64_t n, int32_t *ids, float *log_p);

#endif
