/* One training forward: the student along a path, the teacher along its own, and the weighted sum of three losses.
 *
 *     ce       mean next-token cross-entropy of the student
 *     kl       mean KL(teacher || student) over next-token distributions, at a temperature, times its square
 *     feature  mean over layers of |y - y_T|^2 / var(y_T): the student's mixer outputs against the teacher's
 *
 * Logits are never held (linear_cross_entropy, linear_kl). Where the batch brings what a teacher said of it, kl follows
 * that (linear_kl_topk), and no teacher runs for it. Otherwise the teacher runs on the same tape without recording; it
 * may be the same model along another path, sharing every weight that neither trains. */
#ifndef PN_TRAIN_DISTILL_H
#define PN_TRAIN_DISTILL_H

#include "batch.h"
#include "model.h"
#include "recompute.h"

typedef struct pn_loss_weights {
    double ce, kl, feature; /* 0: not computed */
    double temperature;
} pn_loss_weights;

typedef struct pn_loss_parts {
    double total, ce, kl, feature;
} pn_loss_parts;

typedef struct pn_distill { /* one pass; everything is borrowed */
    const pn_model *student;
    const pn_path *path; /* NULL: candidate 0 */
    /* [layers, candidates], NULL: the path. Every layer runs all of its candidates, and what it adds to the residual is
     * their mixture with the weights of its row (mix.h); that mixture is also the y of the feature loss. */
    pn_tensor *gates;
    pn_tensor *term;         /* [1], NULL: none; added to the loss as it is */
    const pn_model *teacher; /* may be NULL when feature is 0, and kl is or the batch has the teacher's words */
    const pn_path *teacher_path;
    const pn_loss_weights *weights;
    pn_recompute recompute;
    pn_tape_passed passed; /* of the marks before the student's layers (tape.h), with ctx; NULL: none are made */
    void *passed_ctx;
} pn_distill;

typedef struct pn_distill_losses { /* [1] each, owned by the tape; NULL: not computed */
    pn_tensor *total;              /* ready for pn_tape_backward */
    pn_tensor *ce, *kl, *feature;
} pn_distill_losses;

/* Whether passes of so many tokens have so little to do on the GPU that launching their kernels takes longer. They are
 * made of any layout of documents (pn_batch_docs), recorded (pass_graphs.h) or not: so their bits are the same. */
bool pn_distill_small(const pn_distill *pass, int64_t tokens);

pn_status pn_distill_forward(pn_tape *t, const pn_distill *pass, const pn_batch *batch, pn_distill_losses *losses);
/* Their values, before the tape is reset; waits for the GPU. 0 what was not computed, and all of a plan. */
pn_status pn_distill_read(const pn_distill_losses *losses, pn_loss_parts *parts);

/* Where values first stop being finite on the way to the student's words, else to those of a teacher that runs, else to
 * the loss: "student, layer 3, the output of gated_deltanet", "teacher, lm_head", "the kl loss"; "" when they never do.
 * Runs all of it again, slowly, on a tape that was reset. */
enum { PN_DISTILL_WHERE = 96 };
pn_status pn_distill_locate(pn_tape *t, const pn_distill *pass, const pn_batch *batch, char where[PN_DISTILL_WHERE]);

#endif
