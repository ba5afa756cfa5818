#include "train_options.h"

#include <xxhash.h>

#define ROW_FLOAT(name_, field_, def_, min_, max_, help_)                                                              \
    {                                                                                                                  \
        .name = name_, .kind = PN_OPTION_FLOAT, .offset = offsetof(pn_train_options, field_), .def = def_,             \
        .min = min_, .max = max_, .help = help_                                                                        \
    }

const pn_option pn_train_option_table[] = {
    PN_OPT_INT(pn_train_options, tokens, 1000000, 0, 9e15, "tokens to train on"),
    PN_OPT_INT(pn_train_options, batch_tokens, 4096, 1, 1e9,
               "tokens per step; a multiple of the data's sequence_length"),
    ROW_FLOAT("learning_rate", schedule.learning_rate, "1e-3", 0, 10, "peak learning rate"),
    { .name = "schedule",
      .kind = PN_OPTION_ENUM,
      .offset = offsetof(pn_train_options, schedule.kind),
      .def = "cosine",
      .choices = pn_schedule_names,
      .help = "shape of the learning rate over the run" },
    ROW_FLOAT("warmup", schedule.warmup, "0.05", 0, 1, "fraction of the steps spent rising to the peak"),
    ROW_FLOAT("final", schedule.final, "0.1", 0, 1, "fraction of the peak at the end"),
    ROW_FLOAT("decay", schedule.decay, "0.2", 0, 1, "wsd: fraction of the steps spent falling"),
    PN_OPT_FLOAT(pn_train_options, weight_decay, 0.01, 0, 10, "decoupled weight decay on matrices"),
    PN_OPT_FLOAT(pn_train_options, beta1, 0.9, 0, 0.99999, "AdamW first moment"),
    PN_OPT_FLOAT(pn_train_options, beta2, 0.95, 0, 0.999999, "AdamW second moment"),
    PN_OPT_FLOAT(pn_train_options, epsilon, 1e-8, 0, 1, "AdamW epsilon"),
    PN_OPT_FLOAT(pn_train_options, clip, 1.0, 0, 1e9, "global gradient norm to clip at; 0: no clipping"),
    ROW_FLOAT("ce", loss.ce, "0", 0, 1e6, "weight of the next-token cross-entropy"),
    ROW_FLOAT("kl", loss.kl, "1", 0, 1e6, "weight of KL(teacher || student)"),
    ROW_FLOAT("feature", loss.feature, "1", 0, 1e6, "weight of the per-layer feature loss"),
    ROW_FLOAT("temperature", loss.temperature, "1", 0.01, 100, "of the KL term"),
    { .name = "recompute",
      .kind = PN_OPTION_ENUM,
      .offset = offsetof(pn_train_options, recompute),
      .def = "auto",
      .choices = pn_recompute_names,
      .help = "what backward makes again, to save memory: activations and norms (cheap), convolutions and recurrences "
              "too (cores), whole layers; auto: the least that fits the GPU, and none on the CPU" },
    PN_OPT_FLOAT(pn_train_options, memory_gb, 0, 0, 1e6, "GB of the GPU that training may take; 0: what is free"),
    PN_OPT_FLOAT(pn_train_options, checkpoint_seconds, 120, 0, 1e9, "seconds between checkpoints; 0: at the end only"),
    PN_OPT_END,
};

pn_status pn_train_options_check(const pn_train_options *o, const pn_mixture *mixture, const char *where) {
    int64_t row = pn_mixture_row_tokens(mixture);
    PN_CHECK(pn_mixture_has(mixture, PN_SPLIT_TRAIN), PN_USAGE,
             "%s: the mixture has no training rows; add a skill, or shards made for the train split", where);
    PN_CHECK(o->batch_tokens % row == 0, PN_USAGE,
             "%s: batch_tokens %lld is not a multiple of sequence_length %lld; use %lld", where,
             (long long)o->batch_tokens, (long long)row, (long long)((o->batch_tokens / row + 1) * row));
    PN_CHECK(o->tokens >= o->batch_tokens, PN_USAGE,
             "%s: tokens %lld is less than one step of batch_tokens %lld; raise tokens or lower batch_tokens", where,
             (long long)o->tokens, (long long)o->batch_tokens);
    return PN_OK;
}

uint64_t pn_train_options_hash(const pn_train_options *o) {
    const double settings[] = { (double)o->tokens,
                                (double)o->batch_tokens,
                                (double)o->schedule.kind,
                                o->schedule.learning_rate,
                                o->schedule.warmup,
                                o->schedule.final,
                                o->schedule.decay,
                                o->weight_decay,
                                o->beta1,
                                o->beta2,
                                o->epsilon,
                                o->clip,
                                o->loss.ce,
                                o->loss.kl,
                                o->loss.feature,
                                o->loss.temperature };
    return XXH3_64bits(settings, sizeof settings);
}
