/* What every token mixer must keep, whatever it computes: each registered one at its default options, and at those of
 * the table below. A new block is tested by being registered. `test_blocks_contract NAME` is about one block. */
#include "rig.h"

#include "../io/io_fixture.h"

#include "clock.h"
#include "golden.h"
#include "model_load.h"
#include "op_check.h"
#include "profile.h"

/* More than the defaults. */
static const struct more {
    const char *type;
    int64_t heads, kv_heads; /* 0: as tiny */
    bool qkv_bias;
    const char *option[4][2];
} more[] = {
    { .type = "attention", .heads = 3, .kv_heads = 3, .qkv_bias = true },
    { .type = "attention", .heads = 4, .kv_heads = 2, .qkv_bias = true },
    { .type = "swa", .option = { { "window_size", "1" } } },
    { .type = "swa", .heads = 4, .kv_heads = 2, .qkv_bias = true, .option = { { "window_size", "17" } } },
    { .type = "swa", .heads = 2, .kv_heads = 2, .option = { { "window_size", "66" } } },
    { .type = "swa", .option = { { "window_size", "1000" } } },
    { .type = "gated_deltanet",
      .option = { { "num_heads", "2" }, { "num_v_heads", "6" }, { "head_dim", "5" }, { "expand_v", "1.4" } } },
    { .type = "gated_deltanet",
      .option = { { "use_gate", "false" }, { "allow_neg_eigval", "true" }, { "conv_size", "1" } } },
    { .type = "gated_deltanet", .option = { { "conv_size", "7" }, { "head_dim", "16" }, { "expand_v", "1" } } },
    { .type = "jet", .option = { { "head_dim", "12" }, { "expand_v", "2.6666666667" }, { "conv_size", "3" } } },
    { .type = "jet", .option = { { "num_heads", "3" }, { "dconv_generator_reduction", "1" }, { "conv_size", "1" } } },
    { .type = "gla",
      .option = { { "num_heads", "4" }, { "num_kv_heads", "2" }, { "expand_k", "1" }, { "norm_eps", "1e-3" } } },
    { .type = "gla",
      .option = { { "num_heads", "1" },
                  { "expand_k", "0.15" },
                  { "gate_low_rank_dim", "3" },
                  { "clamp_min", "-0.05" } } },
    { .type = "gla",
      .option = { { "use_short_conv", "true" },
                  { "num_kv_heads", "1" },
                  { "gate_logit_normalizer", "0.1" },
                  { "fuse_norm", "false" } } },
    { .type = "deltanet", .option = { { "num_heads", "5" }, { "expand_v", "1.5" }, { "conv_size", "2" } } },
    { .type = "deltanet",
      .option = { { "use_short_conv", "false" }, { "use_gate", "true" }, { "allow_neg_eigval", "true" } } },
    { .type = "deltanet",
      .option = { { "qk_activation", "identity" },
                  { "use_beta", "false" },
                  { "expand_v", "0.5" },
                  { "num_heads", "1" } } },
    { .type = "deltanet",
      .option = { { "use_beta", "false" },
                  { "allow_neg_eigval", "true" },
                  { "use_short_conv", "false" },
                  { "qk_activation", "identity" } } },
    { .type = "retnet",
      .option = { { "num_heads", "5" }, { "num_kv_heads", "1" }, { "expand_v", "1" }, { "norm_eps", "1e-3" } } },
    { .type = "retnet",
      .option = { { "use_short_conv", "true" },
                  { "num_kv_heads", "1" },
                  { "conv_size", "3" },
                  { "fuse_norm", "false" } } },
    { .type = "retnet", .option = { { "num_heads", "1" }, { "expand_k", "0.3" } } },
    { .type = "gated_deltanet", .option = { { "qkv_bias", "true" }, { "rope", "true" } } },
    { .type = "jet", .option = { { "qkv_bias", "true" }, { "rope", "true" } } },
    { .type = "deltanet", .option = { { "qkv_bias", "true" }, { "rope", "true" }, { "use_short_conv", "false" } } },
    { .type = "gla", .option = { { "qkv_bias", "true" }, { "expand_k", "1" } } },
    { .type = "retnet", .option = { { "qkv_bias", "true" } } },
    { .type = "mamba2",
      .option = { { "head_dim", "5" }, { "n_groups", "4" }, { "state_size", "3" }, { "conv_kernel", "2" } } },
    { .type = "mamba2",
      .option = { { "head_dim", "1" }, { "n_groups", "8" }, { "state_size", "2" }, { "conv_kernel", "1" } } },
    { .type = "mamba2",
      .option = { { "head_dim", "10" }, { "n_groups", "2" }, { "state_size", "7" }, { "D_has_hdim", "true" } } },
    { .type = "mamba2",
      .option = { { "head_dim", "25" }, { "expand", "1.25" }, { "use_bias", "true" }, { "use_conv_bias", "false" } } },
    { .type = "mamba2",
      .option = { { "head_dim", "20" },
                  { "n_groups", "2" },
                  { "time_step_limit_min", "0.01" },
                  { "time_step_limit_max", "0.05" } } },
    { .type = "rwkv7", .option = { { "head_dim", "5" }, { "use_v_first", "true" }, { "fuse_norm", "true" } } },
    { .type = "rwkv7", .option = { { "head_dim", "20" }, { "a_low_rank_dim", "1" }, { "norm_eps", "1e-3" } } },
    { .type = "rwkv7", .option = { { "head_dim", "4" }, { "decay_low_rank_dim", "3" }, { "gate_low_rank_dim", "2" } } },
};

/* Options without a default, or with one that does not fit `tiny`. */
static const struct needed {
    const char *type, *option, *value;
} needed[] = {
    { "swa", "window_size", "5" },
    { "mamba2", "head_dim", "10" },
    { "rwkv7", "head_dim", "10" },
};

/* Subject i, until false. */
static bool subject_at(int i, subject *out) {
    int n_types;
    const pn_block_type *const *types = pn_block_types(&n_types);
    *out = (subject){ .dims = tiny };
    for (int k = 0; k < n_types; k++) {
        if (types[k]->role != PN_MIXER || i-- > 0) continue;
        ck_ok(pn_block_spec_default(types[k], &out->spec));
        snprintf(out->label, sizeof out->label, "%s", types[k]->name);
        for (size_t o = 0; o < sizeof needed / sizeof *needed; o++)
            if (!strcmp(needed[o].type, types[k]->name)) set_option(&out->spec, needed[o].option, needed[o].value);
        return true;
    }
    if (i >= (int)(sizeof more / sizeof *more)) return false;
    const struct more *m = &more[i];
    const pn_block_type *type = pn_block_find(m->type);
    ck_assert_msg(type != NULL, "%s", m->type);
    ck_ok(pn_block_spec_default(type, &out->spec));
    snprintf(out->label, sizeof out->label, "%s, row %d of the table", m->type, i);
    for (int o = 0; o < 4 && m->option[o][0]; o++) set_option(&out->spec, m->option[o][0], m->option[o][1]);
    if (m->heads) out->dims.heads = m->heads, out->dims.kv_heads = m->kv_heads;
    out->dims.qkv_bias = m->qkv_bias;
    return true;
}

/* Documents of a chunk and a bit, a few tokens, one, none. */
static const int64_t offsets[] = { 0, 3, 70, 70, 71, 140 };
static const pn_docs documents = { .n = 5, .offset = offsets };
enum { TOKENS = 140 };

static bool chosen(const subject *s) {
    return !*ck_argument() || !strcmp(*ck_argument(), s->spec.type->name);
}

#define EACH_SUBJECT(s)                                                                                                \
    subject s;                                                                                                         \
    for (int subject_ = 0; subject_at(subject_, &s); subject_++)                                                       \
        if (chosen(&s))

/* ---- the contract ---- */

START_TEST(shapes) {
    int count = 0;
    EACH_SUBJECT(s) {
        count++;
        rig r = rig_create(&s, PN_CPU);
        for (int64_t rows = 1; rows <= 66; rows += 65) {
            pn_tensor *x = activations(&r, "x", rows), *y;
            const int64_t offset[] = { 0, rows };
            y = forward(&r, x, &(pn_docs){ .n = 1, .offset = offset });
            ck_assert_msg(pn_tensor_same_shape(x, y) && y->dtype == PN_F32, "%s", s.label);
            for (int64_t i = 0; i < pn_tensor_elems(y); i++) ck_assert_msg(isfinite(pn_f32(y)[i]), "%s", s.label);
            pn_tape_reset(r.tape);
            pn_tensor_release(&x);
        }
        /* names carry the prefix, and a second block under it shares the weights */
        pn_block *twin;
        int n = r.params->n;
        for (int i = 0; i < n; i++)
            ck_assert_int_eq(strncmp(r.params->item[i]->name, "model.layers.0.self_attn.", 25), 0);
        ck_ok(pn_block_create(&s.spec, &s.dims, r.params, "model.layers.0.self_attn.", &twin));
        ck_assert_int_eq(r.params->n, n);
        ck_assert(pn_block_spec_equal(&twin->spec, &r.block->spec));
        pn_block_destroy(&twin);
        rig_destroy(&r);
    }
    ck_assert_msg(count > 0, "no token mixer is called %s", *ck_argument() ? *ck_argument() : "anything");
}
END_TEST

/* Another token at t: nothing before t moves, nothing in other documents moves, something from t on does. */
START_TEST(causality) {
    EACH_SUBJECT(s) {
        rig r = rig_create(&s, PN_CPU);
        pn_tape_record(r.tape, false);
        pn_tensor *x = activations(&r, "x", TOKENS), *other = activations(&r, "dy", TOKENS);
        pn_tensor *before = pn_tensor_retain(forward(&r, x, &documents));
        pn_tape_reset(r.tape);
        static const int64_t at[] = { 0, 2, 3, 40, 69, 70, 71, 100, 139 };
        for (size_t k = 0; k < sizeof at / sizeof *at; k++) {
            int64_t t = at[k], end = 0;
            for (int64_t d = 0; d < documents.n && end <= t; d++) end = offsets[d + 1];
            float keep[32];
            size_t row = (size_t)tiny.hidden * sizeof(float);
            memcpy(keep, pn_f32(x) + t * tiny.hidden, row);
            memcpy(pn_f32(x) + t * tiny.hidden, pn_f32(other) + t * tiny.hidden, row);
            pn_tensor *after = forward(&r, x, &documents);
            bool moved = false;
            for (int64_t i = 0; i < TOKENS; i++) {
                bool same = !memcmp(pn_f32(after) + i * tiny.hidden, pn_f32(before) + i * tiny.hidden, row);
                if (i < t || i >= end)
                    ck_assert_msg(same, "%s: token %lld changed token %lld", s.label, (long long)t, (long long)i);
                moved = moved || !same;
            }
            ck_assert_msg(moved || s.spec.type == &pn_block_none, "%s: token %lld changes nothing", s.label,
                          (long long)t);
            memcpy(pn_f32(x) + t * tiny.hidden, keep, row);
            pn_tape_reset(r.tape);
        }
        pn_tensor_release(&before);
        pn_tensor_release(&x);
        pn_tensor_release(&other);
        rig_destroy(&r);
    }
}
END_TEST

START_TEST(packed_equals_alone) {
    EACH_SUBJECT(s) {
        rig packed = rig_create(&s, PN_CPU), alone = rig_create(&s, PN_CPU);
        pn_tensor *x = activations(&packed, "x", TOKENS), *dy = activations(&packed, "dy", TOKENS);
        pn_tensor *y = both_ways(&packed, x, dy, &documents);
        for (int64_t d = 0; d < documents.n; d++) {
            const int64_t begin = offsets[d], end = offsets[d + 1], offset[] = { 0, end - begin };
            if (begin == end) continue;
            pn_tensor *x_d, *dy_d, *y_d, *part;
            ck_ok(pn_tensor_rows(x, begin, end, &x_d));
            ck_ok(pn_tensor_rows(dy, begin, end, &dy_d));
            x_d->wants_grad = true;
            y_d = both_ways(&alone, x_d, dy_d, &(pn_docs){ .n = 1, .offset = offset });
            ck_ok(pn_tensor_rows(y, begin, end, &part));
            FAR_FROM(&packed, "y", distance(part, y_d), 1e-6);
            pn_tensor_release(&part);
            if (x_d->grad) {
                ck_ok(pn_tensor_rows(x->grad, begin, end, &part));
                FAR_FROM(&packed, "dx", distance(part, x_d->grad), 1e-5);
                pn_tensor_release(&part);
            }
            pn_tensor_release(&x_d);
            pn_tensor_release(&dy_d);
            pn_tensor_release(&y_d);
        }
        for (int i = 0; i < packed.params->n; i++)
            FAR_FROM(&packed, packed.params->item[i]->name,
                     distance(packed.params->item[i]->value->grad, alone.params->item[i]->value->grad), 1e-5);
        pn_tensor_release(&x);
        pn_tensor_release(&dy);
        pn_tensor_release(&y);
        rig_destroy(&packed);
        rig_destroy(&alone);
    }
}
END_TEST

/* <dy, y> of the reference in double precision. */
static double objective(rig *r, pn_tensor *x, pn_tensor *dy, const pn_docs *docs) {
    pn_tensor *y = forward(r, x, docs);
    double sum = 0;
    for (int64_t i = 0; i < pn_tensor_elems(y); i++) sum += pn_f64(y)[i] * pn_f64(dy)[i];
    pn_tape_reset(r->tape);
    return sum;
}

static void differences(rig *r, const char *name, pn_tensor *w, pn_tensor *x, pn_tensor *dy, const pn_docs *docs) {
    ck_assert_msg(w->grad != NULL, "%s: no gradient for %s", r->s->label, name);
    int64_t n = pn_tensor_elems(w), stride = n > 12 ? n / 12 : 1;
    double diff = 0, norm = 0, step = 1e-5;
    for (int64_t i = 0; i < n; i += stride) {
        double keep = pn_f64(w)[i];
        pn_f64(w)[i] = keep + step;
        double up = objective(r, x, dy, docs);
        pn_f64(w)[i] = keep - step;
        double down = objective(r, x, dy, docs), slope = (up - down) / (2 * step), d = pn_f64(w->grad)[i] - slope;
        pn_f64(w)[i] = keep;
        diff += d * d;
        norm += slope * slope;
    }
    FAR_FROM(r, name, norm > 1e-12 ? sqrt(diff / norm) : sqrt(diff), 1e-6);
}

START_TEST(gradients_are_derivatives) {
    static const int64_t offset[] = { 0, 4, 5, 11 };
    const pn_docs docs = { .n = 3, .offset = offset };
    EACH_SUBJECT(s) {
        rig r = rig_create(&s, PN_REF);
        pn_tensor *x = activations(&r, "x", 11), *dy = activations(&r, "dy", 11), *y;
        y = both_ways(&r, x, dy, &docs);
        pn_tape_record(r.tape, false);
        if (s.spec.type != &pn_block_none) differences(&r, "dx", x, x, dy, &docs);
        for (int i = 0; i < r.params->n; i++)
            differences(&r, r.params->item[i]->name, r.params->item[i]->value, x, dy, &docs);
        pn_tensor_release(&x);
        pn_tensor_release(&dy);
        pn_tensor_release(&y);
        rig_destroy(&r);
    }
}
END_TEST

START_TEST(cpu_equals_reference) {
    EACH_SUBJECT(s) {
        rig ref = rig_create(&s, PN_REF), cpu = rig_create(&s, PN_CPU);
        pn_tensor *x[2], *dy[2], *y[2];
        for (int k = 0; k < 2; k++) {
            rig *r = k ? &cpu : &ref;
            x[k] = activations(r, "x", TOKENS), dy[k] = activations(r, "dy", TOKENS);
            y[k] = both_ways(r, x[k], dy[k], &documents);
        }
        FAR_FROM(&cpu, "y", distance(y[1], y[0]), PN_LIMIT_OUTPUT);
        if (x[0]->grad) FAR_FROM(&cpu, "dx", distance(x[1]->grad, x[0]->grad), PN_LIMIT_GRADIENT);
        for (int i = 0; i < ref.params->n; i++) {
            const char *name = ref.params->item[i]->name;
            FAR_FROM(&cpu, name, distance(cpu.params->item[i]->value->grad, ref.params->item[i]->value->grad),
                     pn_golden_is_gate(name) ? PN_LIMIT_GATE_GRADIENT : PN_LIMIT_GRADIENT);
        }
        for (int k = 0; k < 2; k++) {
            pn_tensor_release(&x[k]);
            pn_tensor_release(&dy[k]);
            pn_tensor_release(&y[k]);
        }
        rig_destroy(&ref);
        rig_destroy(&cpu);
    }
}
END_TEST

/* ---- decoding ---- */

enum { SEQUENCES = 3 };
static const int64_t lengths[SEQUENCES] = { 9, 70, 61 };

/* How many tokens of each sequence the call number `call` brings: what piece() says, or always `fixed`. */
typedef struct schedule {
    const char *name;
    int64_t fixed;
    int64_t (*piece)(int call, int sequence);
} schedule;

static int64_t all(int call, int sequence) {
    (void)call;
    return lengths[sequence];
}
static int64_t rising(int call, int sequence) {
    static const int64_t pieces[] = { 2, 3, 5, 1, 40, 7, 13 };
    return pieces[(call + sequence) % 7];
}
static int64_t turns(int call, int sequence) { /* one sequence moves, the others wait */
    return call % SEQUENCES == sequence ? 11 : 0;
}
static int64_t prompt_then_steps(int call, int sequence) {
    return call == 0 ? lengths[sequence] / 2 : 1;
}
static const schedule schedules[] = {
    { "whole", 0, all },
    { "pieces of 1", 1, NULL },
    { "pieces of 2", 2, NULL },
    { "pieces of 3", 3, NULL },
    { "pieces of 5", 5, NULL },
    { "pieces of 64", 64, NULL },
    { "rising pieces", 0, rising },
    { "taking turns", 0, turns },
    { "prompt, then steps", 0, prompt_then_steps },
};

/* Runs a schedule to the end; y [sum of lengths, D] as if packed. */
static void decode(rig *r, const schedule *how, pn_tensor *x, pn_tensor *y, pn_state *state) {
    int64_t start[SEQUENCES + 1] = { 0 }, done[SEQUENCES] = { 0 }, left = 0;
    for (int i = 0; i < SEQUENCES; i++) start[i + 1] = start[i] + lengths[i];
    left = start[SEQUENCES];
    size_t row = (size_t)tiny.hidden * pn_dtype_bytes(x->dtype);
    for (int call = 0; left > 0; call++) {
        int64_t offset[SEQUENCES + 1] = { 0 };
        for (int i = 0; i < SEQUENCES; i++) {
            int64_t n = how->fixed ? how->fixed : how->piece(call, i);
            if (n > lengths[i] - done[i]) n = lengths[i] - done[i];
            offset[i + 1] = offset[i] + n;
        }
        pn_tensor *piece, *out;
        pn_carry carry = { 0 };
        ck_ok(pn_tape_new(r->tape, x->dtype, 2, (int64_t[]){ offset[SEQUENCES], tiny.hidden }, &piece));
        for (int i = 0; i < SEQUENCES; i++)
            memcpy((char *)pn_data(piece) + (size_t)offset[i] * row,
                   (char *)pn_data(x) + (size_t)(start[i] + done[i]) * row, (size_t)(offset[i + 1] - offset[i]) * row);
        ck_ok(pn_block_extend(r->block, r->tape, piece, &(pn_docs){ .n = SEQUENCES, .offset = offset }, state, &carry,
                              &out));
        for (int i = 0; i < SEQUENCES; i++) {
            int64_t n = offset[i + 1] - offset[i];
            memcpy((char *)pn_data(y) + (size_t)(start[i] + done[i]) * row,
                   (char *)pn_data(out) + (size_t)offset[i] * row, (size_t)n * row);
            done[i] += n;
            left -= n;
            ck_assert_int_eq(state->past[i], done[i]);
        }
        pn_tape_reset(r->tape);
    }
}

/* State tensors in use: the key/value cache has rows to spare. */
static double state_distance(const pn_state *a, const pn_state *b) {
    double worst = 0;
    ck_assert_int_eq(a->n_tensors, b->n_tensors);
    for (int i = 0; i < a->n_tensors; i++) {
        int64_t per[2];
        for (int k = 0; k < 2; k++) {
            const pn_state *s = k ? b : a;
            per[k] = pn_tensor_elems(s->tensor[i]) / s->n;
        }
        double diff = 0, norm = 0;
        for (int64_t q = 0; q < a->n; q++) {
            int64_t used = per[0];
            if (a->capacity) {
                int64_t rows = a->past[q] < a->capacity ? a->past[q] : a->capacity;
                used = rows * a->tensor[i]->shape[1];
            }
            for (int64_t k = 0; k < used; k++) {
                double v = get(b->tensor[i], q * per[1] + k), d = get(a->tensor[i], q * per[0] + k) - v;
                diff += d * d;
                norm += v * v;
            }
        }
        double error = norm > 0 ? sqrt(diff / norm) : sqrt(diff);
        if (!(error <= worst)) worst = error;
    }
    return worst;
}

static void check_decoding(const subject *s, pn_backend backend, double limit) {
    rig r = rig_create(s, backend);
    pn_tape_record(r.tape, false);
    const int64_t offset[] = { 0, 9, 79, TOKENS };
    pn_tensor *x = activations(&r, "x", TOKENS), *y = activations(&r, "dy", TOKENS), *want;
    want = pn_tensor_retain(forward(&r, x, &(pn_docs){ .n = SEQUENCES, .offset = offset }));
    pn_tape_reset(r.tape);
    pn_state *first = NULL, *state;
    for (size_t k = 0; k < sizeof schedules / sizeof *schedules; k++) {
        ck_ok(pn_state_create(r.block, SEQUENCES, pn_tape_pool(r.tape), x->dtype, &state));
        decode(&r, &schedules[k], x, y, state);
        FAR_FROM(&r, schedules[k].name, distance(y, want), limit);
        if (first) {
            FAR_FROM(&r, "the state", state_distance(state, first), limit);
            pn_state_destroy(&state);
        } else {
            first = state;
        }
    }
    pn_state_destroy(&first);
    pn_tensor_release(&want);
    pn_tensor_release(&x);
    pn_tensor_release(&y);
    rig_destroy(&r);
}

START_TEST(any_split_equals_forward) {
    EACH_SUBJECT(s) {
        check_decoding(&s, PN_CPU, PN_LIMIT_OUTPUT);
        check_decoding(&s, PN_REF, 1e-12);
    }
}
END_TEST

/* What cache_bytes promises is what the state holds: rows in use of a cache that grows, the whole of a fixed state. */
START_TEST(state_bytes) {
    EACH_SUBJECT(s) {
        rig r = rig_create(&s, PN_CPU);
        pn_tape_record(r.tape, false);
        static const int64_t contexts[] = { 1, 5, 64, 200 };
        for (size_t k = 0; k < sizeof contexts / sizeof *contexts; k++) {
            const int64_t n = contexts[k], offset[] = { 0, n };
            pn_tensor *x = activations(&r, "x", n), *y;
            pn_state *state;
            pn_carry carry = { 0 };
            ck_ok(pn_state_create(r.block, 1, pn_tape_pool(r.tape), PN_F32, &state));
            ck_ok(pn_block_extend(r.block, r.tape, x, &(pn_docs){ .n = 1, .offset = offset }, state, &carry, &y));
            double bytes = 0;
            for (int i = 0; i < state->n_tensors; i++) {
                const pn_tensor *t = state->tensor[i];
                double used = 1;
                if (state->capacity) {
                    int64_t rows = state->past[0] < state->capacity ? state->past[0] : state->capacity;
                    used = (double)rows / (double)(t->shape[0] / state->n);
                }
                bytes += (double)pn_tensor_bytes(t) * used;
            }
            ck_assert_msg(fabs(bytes - pn_block_cache_bytes(r.block, n, 4)) < 0.5,
                          "%s: %lld tokens hold %.1f bytes, cache_bytes says %.1f", s.label, (long long)n, bytes,
                          pn_block_cache_bytes(r.block, n, 4));
            ck_assert_double_le(pn_block_cache_bytes(r.block, n, 2), pn_block_cache_bytes(r.block, n, 4));
            double unbuilt;
            ck_ok(pn_block_spec_cache_bytes(&s.spec, &s.dims, n, 2, &unbuilt));
            ck_assert_double_eq(unbuilt, pn_block_cache_bytes(r.block, n, 2));
            pn_state_destroy(&state);
            pn_tape_reset(r.tape);
            pn_tensor_release(&x);
        }
        rig_destroy(&r);
    }
}
END_TEST

/* Every implementation is differentiable, or there for decoding: of each op that a block calls, its training runs one
 * of the first, its decoding all of the second. The schedules above hold them to the same results. */
START_TEST(every_way_of_decoding_runs) {
    EACH_SUBJECT(s) {
        rig r = rig_create(&s, PN_CPU);
        pn_tensor *x = activations(&r, "x", TOKENS), *y = activations(&r, "dy", TOKENS), *out;
        pn_state *state;
        pn_profile_start(pn_seconds);
        out = both_ways(&r, x, y, &documents);
        pn_tape_record(r.tape, false);
        ck_ok(pn_state_create(r.block, SEQUENCES, pn_tape_pool(r.tape), PN_F32, &state));
        decode(&r, &schedules[1], x, y, state);
        pn_profile_stop();
        int n_rows, n_ops;
        const pn_profile_row *rows = pn_profile_rows(&n_rows);
        const pn_op *const *ops = pn_op_list(&n_ops);
        for (int o = 0; o < n_ops; o++) {
            const size_t length = strlen(ops[o]->name);
            bool used = false, trained = false;
            for (int i = 0; i < n_rows; i++) {
                bool same = !strncmp(rows[i].name, ops[o]->name, length) && rows[i].name[length] == '/';
                used = used || same;
                trained = trained || (same && rows[i].backward);
            }
            if (!used) continue;
            ck_assert_msg(trained, "%s: no implementation of %s ran backward", s.label, ops[o]->name);
            for (const pn_op_impl *const *impl = ops[o]->impl[PN_CPU]; *impl; impl++) {
                bool ran = (*impl)->backward != NULL;
                for (int i = 0; i < n_rows; i++) ran = ran || !strcmp(rows[i].name, (*impl)->name);
                ck_assert_msg(ran, "%s: decoding never runs %s", s.label, (*impl)->name);
            }
        }
        pn_state_destroy(&state);
        pn_tensor_release(&x);
        pn_tensor_release(&y);
        pn_tensor_release(&out);
        rig_destroy(&r);
    }
}
END_TEST

/* ---- files ---- */

/* The hidden states of a few tokens. */
static pn_tensor *hidden_of(const pn_model *m, pn_tape *t) {
    static const int64_t offset[] = { 0, 4, 11 };
    pn_tensor *ids, *hidden;
    ck_ok(pn_tape_new(t, PN_I32, 1, (int64_t[]){ 11 }, &ids));
    for (int32_t i = 0; i < 11; i++) pn_i32(ids)[i] = 7 * i % 30;
    ck_ok(pn_model_hidden(m, NULL, t, ids, &(pn_docs){ .n = 2, .offset = offset }, &hidden));
    return hidden;
}

/* A model of one layer with the block, written and read: the same options, weights and results, bit for bit. */
START_TEST(saved_and_loaded) {
    EACH_SUBJECT(s) {
        pn_model_config c = { .dims = s.dims, .vocab = 30, .n_layers = 1, .tied = true, .bos = -1, .eos = -1 };
        c.max_position = 64;
        c.initializer_range = 0.02;
        c.layer[0] = s.spec;
        pn_model *m, *back;
        pn_tape *t;
        ck_ok(pn_model_create(&c, PN_F32, NULL, &m));
        randomise(m->params);
        ck_ok(pn_model_save(m, scratch("."), &(pn_save_options){ .dtype = PN_F32 }));
        ck_ok(pn_model_load(scratch("."), PN_F32, &back));
        ck_assert_msg(pn_block_spec_equal(&m->config.layer[0], &back->config.layer[0]), "%s: other options", s.label);
        for (int i = 0; i < m->params->n; i++) {
            const pn_param *p = m->params->item[i], *q = pn_params_find(back->params, p->name);
            ck_assert_msg(q && pn_tensor_same_shape(p->value, q->value) &&
                              !memcmp(pn_data(p->value), pn_data(q->value), pn_tensor_bytes(p->value)),
                          "%s: another %s", s.label, p->name);
        }
        ck_ok(pn_tape_create(PN_CPU, &t));
        pn_tape_record(t, false);
        const pn_tensor *before = hidden_of(m, t), *after = hidden_of(back, t);
        ck_assert_msg(!memcmp(pn_f32(before), pn_f32(after), pn_tensor_bytes(before)), "%s: other results", s.label);
        pn_tape_destroy(&t);
        pn_model_destroy(&back);
        pn_model_destroy(&m);
    }
}
END_TEST

/* ---- reproducibility ---- */

static pn_status body(pn_tape *t, const void *ctx, pn_tensor *const *in, int n_in, pn_tensor **out, int n_out) {
    (void)n_in, (void)n_out;
    pn_carry carry = { 0 };
    PN_TRY(pn_block_forward(*(pn_block *const *)ctx, t, in[0], &documents, &carry, out));
    return PN_OK;
}

/* Again, and again by recomputing: the same bits. */
START_TEST(every_run_gives_the_same_bits) {
    EACH_SUBJECT(s) {
        rig r = rig_create(&s, PN_CPU), again = rig_create(&s, PN_CPU);
        pn_tensor *x = activations(&r, "x", TOKENS), *dy = activations(&r, "dy", TOKENS);
        pn_tensor *y = both_ways(&r, x, dy, &documents), *dx = x->grad;
        x->grad = NULL;
        for (int way = 0; way < 2; way++) {
            pn_tensor *y2;
            if (way) {
                ck_ok(pn_tape_recompute(again.tape, body, &again.block, sizeof again.block, &x, 1, &y2, 1));
                y2 = pn_tensor_retain(y2);
                if (y2->wants_grad) ck_ok(pn_tape_backward_from(again.tape, &y2, &dy, 1));
                pn_tape_reset(again.tape);
            } else {
                y2 = both_ways(&again, x, dy, &documents);
            }
            ck_assert_msg(!memcmp(pn_f32(y), pn_f32(y2), pn_tensor_bytes(y)), "%s: y", s.label);
            if (dx) ck_assert_msg(!memcmp(pn_f32(dx), pn_f32(x->grad), pn_tensor_bytes(x)), "%s: dx", s.label);
            for (int i = 0; i < r.params->n; i++) {
                const pn_tensor *a = r.params->item[i]->value->grad, *b = again.params->item[i]->value->grad;
                ck_assert_msg(!memcmp(pn_f32(a), pn_f32(b), pn_tensor_bytes(a)), "%s: %s%s", s.label,
                              r.params->item[i]->name, way ? ", recomputed" : "");
            }
            drop_grads(&again);
            pn_tensor_release(&x->grad);
            pn_tensor_release(&y2);
        }
        pn_tensor_release(&dx);
        pn_tensor_release(&x);
        pn_tensor_release(&dy);
        pn_tensor_release(&y);
        rig_destroy(&r);
        rig_destroy(&again);
    }
}
END_TEST

/* The plan backend walks the same path with no memory and knows its peak. */
START_TEST(a_plan_knows_the_peak) {
    EACH_SUBJECT(s) {
        size_t peak[2], took[2];
        double flops[2];
        for (int plan = 0; plan < 2; plan++) {
            rig r = rig_create(&s, plan ? PN_PLAN : PN_CPU), memory = rig_create(&s, PN_CPU);
            pn_tensor *x = activations(&memory, "x", TOKENS), *dy = activations(&memory, "dy", TOKENS);
            pn_tensor *y = forward(&r, x, &documents);
            if (y->wants_grad) ck_ok(pn_tape_backward_from(r.tape, &y, &dy, 1));
            peak[plan] = pn_pool_peak_bytes(pn_tape_pool(r.tape));
            flops[plan] = pn_tape_cost(r.tape).flops;
            took[plan] = pn_pool_system_bytes(pn_tape_pool(r.tape));
            pn_tape_reset(r.tape);
            pn_tensor_release(&x);
            pn_tensor_release(&dy);
            drop_grads(&r);
            rig_destroy(&r);
            rig_destroy(&memory);
        }
        ck_assert_msg(peak[0] == peak[1], "%s: planned %zu bytes, took %zu", s.label, peak[1], peak[0]);
        ck_assert_uint_eq(took[0], took[1]);
        ck_assert_msg(flops[0] == flops[1], "%s: planned %g flops, counted %g", s.label, flops[1], flops[0]);
    }
}
END_TEST

TEST_MAIN("block contract", shapes, causality, packed_equals_alone, gradients_are_derivatives, cpu_equals_reference,
          any_split_equals_forward, state_bytes, every_way_of_decoding_runs, saved_and_loaded,
          every_run_gives_the_same_bits, a_plan_knows_the_peak)
