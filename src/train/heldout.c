#include "heldout.h"

#include "ranks.h"

static pn_status pass_over(pn_tape *t, const pn_train_job *job, const pn_loss_weights *weights, const pn_batch *batch,
                           pn_loss_parts *out) {
    pn_distill_losses losses;
    pn_distill pass = { .student = job->student,
                        .path = job->path,
                        .teacher = job->teacher,
                        .teacher_path = job->teacher_path,
                        .weights = weights };
    pn_tape_reset(t);
    PN_TRY(pn_distill_forward(t, &pass, batch, &losses));
    PN_TRY(pn_distill_read(&losses, out));
    return PN_OK;
}

/* Ranks take passes in turn. */
static pn_status mean(pn_tape *t, const pn_train_job *job, const pn_loss_weights *weights, pn_batch *batch,
                      pn_loss_parts *out) {
    const int64_t row = pn_mixture_row_tokens(job->mixture), n = job->options->heldout_tokens / row;
    const int64_t most = pn_train_rank_pass(job) / row;
    const int ranks = pn_ranks_of(job->world), rank = job->world ? job->world->rank : 0;
    double counted = 0;
    for (int64_t at = rank * most; at < n; at += ranks * most) {
        pn_loss_parts one;
        const int64_t rows = at + most < n ? most : n - at;
        PN_TRY(pn_batch_load_split(job->mixture, PN_SPLIT_HELDOUT, at, rows, batch));
        const double targets = pn_batch_weight(batch);
        if (targets == 0) continue;
        PN_TRY(pass_over(t, job, weights, batch, &one));
        counted += targets;
        out->ce += (one.ce - out->ce) * targets / counted;
        out->kl += (one.kl - out->kl) * targets / counted;
    }
    if (ranks == 1) return PN_OK;
    double sum[] = { counted, counted * out->ce, counted * out->kl };
    PN_TRY(pn_ranks_sum(job->world, "held-out losses", sum, 3));
    out->ce = sum[0] > 0 ? sum[1] / sum[0] : 0;
    out->kl = sum[0] > 0 ? sum[2] / sum[0] : 0;
    return PN_OK;
}

pn_status pn_heldout_loss(pn_tape *t, const pn_train_job *job, int64_t step, pn_loss_parts *out) {
    const pn_loss_weights w = pn_loss_at(&job->options->loss, step - 1, pn_train_steps(job->options));
    pn_loss_weights measured = w;
    pn_batch batch = { 0 };
    if (w.ce == 0) measured.ce = 1;
    measured.feature = 0;
    if (!job->teacher) measured.kl = 0;
    *out = (pn_loss_parts){ 0 };
    const bool recording = pn_tape_record(t, false);
    pn_status s = mean(t, job, &measured, &batch, out);
    pn_tape_record(t, recording);
    pn_tape_reset(t);
    pn_batch_free(&batch);
    PN_TRY(s);
    if (w.kl > 0 && measured.kl == 0) {
        out->total = out->ce;
        return PN_OK;
    }
    out->total = w.ce * out->ce + w.kl * out->kl;
    return PN_OK;
}
