/* What a configuration of finetune says (finetune.h), and the models that it means. */
#ifndef PN_TRAIN_RECIPE_H
#define PN_TRAIN_RECIPE_H

#include "compute.h"
#include "config.h"
#include "files.h"
#include "mixture.h"
#include "teacher_rows.h"
#include "train_options.h"
#include "world.h"

enum { PN_RECIPE_STAGES = 64 };

typedef struct pn_recipe_top {
    const char *output, *model, *tokenizer;
    int64_t seed, sequence_length, dtype;
    pn_string_list trains, frozen;
    double mfu_tflops;
} pn_recipe_top;

typedef struct pn_recipe_shape { /* of a model; 0 is what its key's help says */
    int64_t hidden_size, num_hidden_layers, num_attention_heads, num_key_value_heads, head_dim, intermediate_size,
        vocab_size;
    double rope_theta, rms_norm_eps, initializer_range;
    bool tie_word_embeddings, attention_bias;
} pn_recipe_shape;

typedef struct pn_recipe_layers { /* mixers in place of the base's */
    int n;                        /* 0: the base's own */
    pn_block_spec spec[PN_MAX_LAYERS];
    bool own[PN_MAX_LAYERS]; /* the base's own mixer, where it is of that type */
} pn_recipe_layers;

typedef struct pn_recipe_stage {
    const char *name;           /* NULL: none */
    const char *teacher;        /* "none", "base", or a model directory */
    const char *teacher_logits; /* directory of its rows, which take its place; NULL: it is in the loop */
    int64_t sequence_length;    /* of the stage's mixture */
    pn_string_list trains, frozen;
    pn_train_options train;
} pn_recipe_stage;

typedef struct pn_recipe {
    pn_config *config; /* borrowed */
    pn_recipe_top top;
    pn_compute_options compute;
    pn_world_options ranks;
    bool shaped;           /* the configuration says what `model` is: shape */
    pn_recipe_shape shape; /* of `model` where shaped, or of the random model */
    pn_recipe_layers layers;
    pn_recipe_stage stage[PN_RECIPE_STAGES];
    int n_stages;
} pn_recipe;

/* Reads every section, and no other file. The config outlives the recipe. */
pn_status pn_recipe_read(pn_config *c, pn_recipe *out);

/* "stage 1/2 long" into buffer; returns buffer. */
const char *pn_recipe_stage_name(const pn_recipe *r, int stage, char *buffer, size_t n);
/* What its batches come from. */
pn_status pn_recipe_mixture(const pn_recipe *r, int stage, const pn_tokenizer *tokenizer, pn_mixture **out);
pn_status pn_recipe_tokenizer(const pn_recipe *r, pn_tokenizer **out);
/* Of the model that is written. */
pn_dtype pn_recipe_dtype(const pn_recipe *r);

/* ---- recipe_model.c ---- */

/* Files of the model that training starts from, PN_PATH_MAX bytes: top.model, or the model/ of the run it is. ""
 * without one. */
pn_status pn_recipe_model_path(const pn_recipe *r, char *path);
/* What `teacher: base` is: top.model where `hybrid` puts other layers in it, else the base of the search that made
 * it. */
pn_status pn_recipe_base_path(const pn_recipe *r, char *path);
/* The same for any stage's teacher; "" where there is none. */
pn_status pn_recipe_teacher_path(const pn_recipe *r, int stage, char *path);
/* Whether it runs with the student: there is one, and not its rows in its place. */
bool pn_recipe_teacher_runs(const pn_recipe_stage *stage);

/* With its weights, on the host: read, or random, with the layers of `hybrid` new. tokenizer: NULL where the shape says
 * the vocabulary. */
pn_status pn_recipe_model(const pn_recipe *r, const pn_tokenizer *tokenizer, pn_model **out);
/* Student and teacher (NULL: none) of a stage without memory behind their weights, to plan with; what trains is set.
 * on: where it is planned for; its backend PN_PLAN where that is not there, whose scratch is then not counted. Needs no
 * files where the configuration gives the shape. A teacher shares what neither this nor an earlier stage trains. */
pn_status pn_recipe_planned(const pn_recipe *r, int stage, const pn_compute *on, pn_model **student,
                            pn_model **teacher);
/* Sets which weights train in a stage. PN_USAGE for a pattern that no weight matches. */
pn_status pn_recipe_choose_trained(const pn_recipe *r, int stage, pn_params *params);

/* ---- recipe_teacher.c ---- */

/* The model of those files where the student is. Weights that the student has under the same name with the same values,
 * and that do not train, are the student's. */
pn_status pn_recipe_teacher(const char *path, const pn_model *student, pn_model **out);
/* What the stage's teacher said of its rows, for a student of that vocabulary, or NULL where the stage has no such
 * rows. PN_USAGE, with the remedy, when they are another stage's or too few. */
pn_status pn_recipe_teacher_rows(const pn_recipe *r, int stage, const pn_tokenizer *tokenizer,
                                 const pn_mixture *mixture, int64_t vocab, pn_teacher_rows **out);
/* PN_USAGE, starting with `where`, when the stage's losses cannot be made between the two; teacher NULL: none. */
pn_status pn_recipe_teacher_check(const pn_recipe_stage *stage, const pn_model *student, const pn_model *teacher,
                                  const char *where);

#endif
