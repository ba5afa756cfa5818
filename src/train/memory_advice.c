#include "memory_advice.h"

#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "ranks.h"

void pn_memory_may(pn_memory_settings *s, double saves, const char *fmt, ...) {
    va_list args;
    if (!(saves > 0)) return;
    PN_ASSERT(s->n < PN_MEMORY_SETTINGS);
    pn_memory_setting *x = &s->item[s->n++];
    x->saves = saves;
    va_start(args, fmt);
    vsnprintf(x->text, sizeof x->text, fmt, args);
    va_end(args);
}

double pn_own_bytes(const pn_model *m, const pn_model *beside) {
    double bytes = 0;
    for (int i = 0; m && i < m->params->n; i++) {
        const pn_param *p = m->params->item[i];
        if (pn_params_find(beside->params, p->name) != p) bytes += (double)pn_tensor_bytes(p->value);
    }
    return bytes;
}

/* ---- what a job has ---- */

/* Activations are as many as the tokens of a pass, which is at least a row. */
static void add_tokens(const pn_train_job *job, double activations, double excess, pn_memory_settings *s) {
    const pn_train_options *o = job->options;
    const bool stage = pn_train_is_stage(o);
    const int64_t row = pn_mixture_row_tokens(job->mixture), pass = pn_train_rank_pass(job);
    const char *key = stage ? "micro_batch_tokens" : "batch_tokens";
    if (pass <= row) {
        pn_memory_may(s, activations, "lower sequence_length, and %s with it", key);
        return;
    }
    const double left = activations > excess ? (double)pass * (1 - excess / activations) : 0;
    const int64_t least = (int64_t)left / row * row, share = o->batch_tokens / pn_ranks_of(job->world);
    pn_memory_may(s, activations * (1 - (double)row / (double)pass), "set %s: %lld or less", key,
                  (long long)(stage         ? pn_train_pass_within(share, row, least)
                              : least > row ? least
                                            : row));
}

static bool reads_logits_instead(const pn_train_job *job) {
    const pn_loss_weights most = pn_loss_most(&job->options->loss);
    return job->teacher && most.kl > 0 && most.feature == 0;
}

void pn_memory_job_settings(const pn_train_job *job, const pn_memory_need *need, double free_bytes,
                            pn_memory_settings *s) {
    const pn_train_options *o = job->options;
    const double activations = need->step - need->gradients;
    const int ranks = pn_ranks_of(job->world);
    s->memory_gb = o->memory_gb;
    add_tokens(job, activations, pn_memory_sum(need) - free_bytes, s);
    if (o->recompute < PN_RECOMPUTE_LAYERS) pn_memory_may(s, activations, "set recompute: layers");
    if (job->student->params->dtype == PN_F32) pn_memory_may(s, activations / 2, "set precision: bf16");
    if (!pn_train_is_stage(o)) return;
    const int64_t most = o->batch_tokens / pn_mixture_row_tokens(job->mixture); /* ranks that have a row each */
    pn_memory_may(s, need->optimizer * (1 - (double)ranks / (double)most),
                  "train with more ranks, which share the optimizer");
    pn_memory_may(s, need->optimizer + need->gradients, "train less of the model (trains, frozen)");
    if (reads_logits_instead(job))
        pn_memory_may(s, pn_own_bytes(job->teacher, job->student),
                      "read what the teacher says (teacher_logits) instead of running it");
}

/* ---- for people ---- */

static int by_saving(const void *a, const void *b) {
    const double x = ((const pn_memory_setting *)a)->saves, y = ((const pn_memory_setting *)b)->saves;
    return (x < y) - (x > y);
}

const char *pn_memory_advice(const pn_memory_settings *s, double excess, char text[PN_MEMORY_ADVICE]) {
    pn_memory_settings sorted = *s;
    double all = 0;
    int named = 0;
    size_t len = 0;
    qsort(sorted.item, (size_t)s->n, sizeof *sorted.item, by_saving);
    for (int i = 0; i < s->n; i++) {
        all += sorted.item[i].saves;
        named += sorted.item[i].saves >= excess;
    }
    const bool alone = named > 0;
    if (!alone) named = s->n;
    if (all < excess)
        len = (size_t)snprintf(text, PN_MEMORY_ADVICE, "take a smaller model or a GPU with more memory%s",
                               named ? "; less is needed, but not enough less, if you " : "");
    for (int i = 0; i < named; i++) {
        const char *between = !i ? "" : i + 1 < named ? ", " : alone ? ", or " : " and ";
        len += (size_t)snprintf(text + len, PN_MEMORY_ADVICE - len, "%s%s", between, sorted.item[i].text);
        PN_ASSERT(len < PN_MEMORY_ADVICE);
    }
    return text;
}
