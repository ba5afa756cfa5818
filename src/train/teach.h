/* teach: what a teacher says of a mixture's training rows, written once, for training to read in place of the teacher
 * (teacher_rows.h). */
#ifndef PN_TRAIN_TEACH_H
#define PN_TRAIN_TEACH_H

#include "config.h"
#include "mixture.h"
#include "model.h"
#include "teacher_rows.h"

typedef struct pn_teach_job { /* everything is borrowed */
    const char *name;         /* starts messages, and is on the line of progress */
    const pn_model *teacher;  /* where it computes */
    pn_mixture *mixture;
    pn_teacher_info info; /* whose rows they are (pn_teach_info), k and temperature */
    int64_t rows;         /* that there are to be in the end */
    int64_t batch_tokens; /* of a pass; 0: as many whole rows as make 8,192, at least one */
    const char *dir;
} pn_teach_job;

/* What must be equal of teacher, tokenizer and mixture; name: the teacher's, for people. k and temperature are left.
 * The model's weights are hashed as they are: on the host, before they are moved and rounded. */
pn_status pn_teach_info(const char *name, const pn_model *teacher, uint64_t tokenizer_hash, const pn_mixture *mixture,
                        pn_teacher_info *out);

/* PN_USAGE when a pass, which is planned and not run, needs more than free_bytes. */
pn_status pn_teach_check(const pn_teach_job *job, double free_bytes);
/* Says how large the rows will be; writes those that are not there yet. PN_USAGE, before anything is written, when the
 * disk has no room for them, or the GPU for a pass. PN_INTERRUPTED when a signal asked to stop: what was made is saved,
 * and the same job goes on after it. Rows are made in the same passes wherever a run began: the same job gives the same
 * bytes. */
pn_status pn_teach_run(const pn_teach_job *job);

typedef struct pn_teach_options {
    const char *stage;    /* name or number, from 1, of a stage; NULL: the only one with a teacher */
    const char *output;   /* directory; NULL: the stage's teacher_logits */
    int64_t words;        /* k; PN_TEACHER_WORDS at most the vocabulary where it is 0 */
    int64_t batch_tokens; /* as of pn_teach_job */
} pn_teach_options;

/* The rows of a stage of a configuration of finetune, as its teacher, temperature, mixture and tokens say. */
pn_status pn_teach_stage(pn_config *c, const pn_teach_options *o);

#endif
