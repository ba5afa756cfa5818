/* Golden files of blocks: packed documents forward and backward, and the last document through the decode state: whole,
 * in pieces, and token by token. */
#include "check_vectors.h"

#include <stdlib.h>
#include <string.h>

#include "golden.h"
#include "tape.h"

typedef struct block_check {
    const pn_safetensors *file;
    const pn_compute *on;
    const pn_golden_limits *limits;
    pn_params *params;
    pn_block *block;
    pn_tape *tape;
    pn_docs docs;
    int64_t *offset;             /* owned: docs.offset */
    pn_tensor *x, *dy, *v_first; /* owned; v_first NULL unless the file has one */
} block_check;

static void block_check_free(block_check *b) {
    pn_tensor_release(&b->x);
    pn_tensor_release(&b->dy);
    pn_tensor_release(&b->v_first);
    pn_tape_destroy(&b->tape);
    pn_block_destroy(&b->block);
    pn_params_destroy(&b->params);
    free(b->offset);
}

static pn_status read_docs(block_check *b, int64_t tokens) {
    const pn_tensor_info *info;
    PN_TRY(pn_golden_info(b->file, "cu_seqlens", &info));
    PN_CHECK(info->rank == 1 && info->n_elems >= 2, PN_FORMAT,
             "%s: cu_seqlens has shape %s; it must be [documents + 1]", pn_safetensors_path(b->file),
             pn_tensor_info_shape_text(info));
    b->offset = malloc(sizeof *b->offset * (size_t)info->n_elems);
    PN_CHECK(b->offset, PN_MEMORY, "out of memory");
    pn_convert_unaligned(b->offset, PN_I64, info->data, info->dtype, info->n_elems);
    b->docs = (pn_docs){ .n = info->n_elems - 1, .offset = b->offset };
    PN_CHECK(!pn_docs_check(&b->docs, tokens, "cu_seqlens"), PN_FORMAT,
             "%s: cu_seqlens does not rise from 0 to the %lld rows of x", pn_safetensors_path(b->file),
             (long long)tokens);
    return PN_OK;
}

/* Every param.<name> of the file into the block's weight of that name, and none left over on either side. */
static pn_status read_params(block_check *b) {
    static const char prefix[] = "param.";
    int n = 0;
    for (int64_t i = 0; i < pn_safetensors_count(b->file); i++) {
        const char *name = pn_safetensors_info(b->file, i)->name;
        if (strncmp(name, prefix, sizeof prefix - 1)) continue;
        PN_CHECK(pn_params_find(b->params, name + sizeof prefix - 1), PN_UNSUPPORTED, "block %s has no weight %s",
                 b->block->spec.type->name, name + sizeof prefix - 1);
        n++;
    }
    for (int i = 0; i < b->params->n; i++) {
        pn_tensor *w = b->params->item[i]->value, *read;
        char name[PN_NAME_MAX + sizeof prefix];
        snprintf(name, sizeof name, "%s%s", prefix, b->params->item[i]->name);
        PN_TRY(pn_golden_read(b->file, name, b->params->pool, PN_F32, w->rank, w->shape, &read));
        pn_status s = pn_tensor_copy(w, read);
        pn_tensor_release(&read);
        PN_TRY(s);
        w->wants_grad = true;
    }
    PN_ASSERT(n == b->params->n);
    return PN_OK;
}

static pn_status block_check_read(block_check *b, const pn_block_spec *spec, const pn_dims *dims) {
    PN_TRY(pn_params_create(PN_F32, &b->params));
    PN_TRY(pn_block_create(spec, dims, b->params, "", &b->block));
    PN_TRY(read_params(b));
    PN_TRY(pn_params_move(b->params, b->on->backend, b->on->dtype));
    PN_TRY(pn_params_tape(b->params, &b->tape));
    const pn_tensor_info *x;
    PN_TRY(pn_golden_info(b->file, "x", &x));
    PN_CHECK(x->rank == 2 && x->shape[1] == dims->hidden, PN_FORMAT, "%s: x has shape %s; it must be [tokens, %lld]",
             pn_safetensors_path(b->file), pn_tensor_info_shape_text(x), (long long)dims->hidden);
    pn_pool *pool = pn_tape_pool(b->tape);
    PN_TRY(pn_golden_read(b->file, "x", pool, b->on->dtype, 2, x->shape, &b->x));
    PN_TRY(pn_golden_read(b->file, "dy", pool, b->on->dtype, 2, x->shape, &b->dy));
    if (pn_safetensors_find(b->file, "v_first")) {
        PN_TRY(pn_golden_read(b->file, "v_first", pool, b->on->dtype, 2, x->shape, &b->v_first));
        b->v_first->wants_grad = true;
    }
    b->x->wants_grad = true;
    PN_TRY(read_docs(b, x->shape[0]));
    return PN_OK;
}

static pn_status row_error(block_check *b, pn_row *r, const char *name, const pn_tensor *x, double limit) {
    double error;
    PN_TRY(pn_golden_tensor_error(b->file, name, x, &error));
    pn_row_error(r, name, error, limit);
    return PN_OK;
}

static pn_status check_training(block_check *b, pn_row *r) {
    pn_carry carry = { .v_first = b->v_first };
    pn_tensor *y;
    PN_TRY(pn_block_forward(b->block, b->tape, b->x, &b->docs, &carry, &y));
    PN_TRY(row_error(b, r, "y", y, b->limits->block));
    PN_TRY(pn_tape_backward_from(b->tape, &y, &b->dy, 1));
    pn_tape_reset(b->tape);
    PN_TRY(row_error(b, r, "dx", b->x->grad, b->limits->dx));
    if (b->v_first && b->v_first->grad) PN_TRY(row_error(b, r, "dv_first", b->v_first->grad, b->limits->dx));
    pn_worst plain = { 0 }, gates = { 0 };
    for (int i = 0; i < b->params->n; i++) {
        const pn_param *p = b->params->item[i];
        char name[PN_NAME_MAX + 8];
        snprintf(name, sizeof name, "grad.%s", p->name);
        if (!p->value->grad) {
            pn_row_fail(r, "no gradient for %s", p->name);
            continue;
        }
        double error;
        PN_TRY(pn_golden_tensor_error(b->file, name, p->value->grad, &error));
        pn_worst_take(pn_golden_is_gate(p->name) ? &gates : &plain, p->name, error);
    }
    pn_row_worst(r, "grad", &plain, b->limits->weight);
    pn_row_worst(r, "gate grad", &gates, b->limits->gate_weight);
    return PN_OK;
}

/* Elements of state tensor i that are in use: the key/value cache has rows to spare. */
static int64_t state_elems(const pn_state *s, int i) {
    const pn_tensor *t = s->tensor[i];
    if (!s->capacity) return pn_tensor_elems(t);
    int64_t rows = s->past[0] < s->capacity ? s->past[0] : s->capacity;
    return pn_tensor_elems(t) / t->shape[0] * rows;
}

/* The file's rows are in the order of the tokens; in a cache that has gone round the oldest is past mod capacity. */
static pn_status state_error(block_check *b, const char *name, const pn_state *s, int i, double *error) {
    int64_t n = state_elems(s, i), oldest = 0;
    if (s->capacity && s->past[0] > s->capacity) oldest = s->past[0] % s->capacity * (n / s->capacity);
    float *x = malloc((size_t)(pn_tensor_elems(s->tensor[i]) + 1) * sizeof *x);
    PN_CHECK(x, PN_MEMORY, "out of memory");
    pn_golden_sum sum = { 0 };
    pn_status status = pn_tensor_read(s->tensor[i], x, PN_F32);
    if (!status) status = pn_golden_add(b->file, name, 0, x + oldest, n - oldest, &sum);
    if (!status) status = pn_golden_add(b->file, name, n - oldest, x, oldest, &sum);
    free(x);
    *error = pn_golden_rms(&sum);
    return status;
}

static pn_status state_errors(block_check *b, pn_row *r, const char *what, const pn_state *state) {
    pn_worst worst = { 0 };
    for (int i = 0; i < state->n_tensors; i++) {
        char name[64];
        snprintf(name, sizeof name, "state.%s", state->name[i]);
        int64_t n = state_elems(state, i);
        double error;
        const pn_tensor_info *info;
        PN_TRY(pn_golden_info(b->file, name, &info));
        if (info->n_elems != n) {
            pn_row_fail(r, "%s: %s has %lld values, the file's %s", what, name, (long long)n,
                        pn_tensor_info_shape_text(info));
            continue;
        }
        PN_TRY(state_error(b, name, state, i, &error));
        pn_worst_take(&worst, name, error);
    }
    pn_row_worst(r, what, &worst, b->limits->block);
    return PN_OK;
}

/* `piece` ends with 0: then the rest. */
static pn_status extend(block_check *b, const int64_t *piece, float *y_all, pn_state *state) {
    const int64_t begin = b->offset[b->docs.n - 1], tokens = b->offset[b->docs.n] - begin, width = b->x->shape[1];
    for (int64_t done = 0; done < tokens;) {
        int64_t n = *piece && *piece < tokens - done ? *piece : tokens - done;
        if (*piece && piece[1] >= 0) piece++; /* a negative size repeats the one before it */
        pn_tensor *x, *y;
        pn_carry carry = { 0 };
        PN_TRY(pn_tensor_rows(b->x, begin + done, begin + done + n, &x));
        PN_TRY(pn_tape_own(b->tape, x));
        if (b->v_first) {
            PN_TRY(pn_tensor_rows(b->v_first, begin + done, begin + done + n, &carry.v_first));
            PN_TRY(pn_tape_own(b->tape, carry.v_first));
        }
        const int64_t offset[] = { 0, n };
        PN_TRY(pn_block_extend(b->block, b->tape, x, &(pn_docs){ .n = 1, .offset = offset }, state, &carry, &y));
        PN_TRY(pn_tensor_read(y, y_all + done * width, PN_F32));
        pn_tape_reset(b->tape);
        done += n;
    }
    return PN_OK;
}

static pn_status check_decoding(block_check *b, pn_row *r) {
    static const struct {
        const char *y, *state;
        int64_t piece[8];
    } ways[] = {
        { "prefill y", "state", { 0 } },
        { "pieces y", "pieces state", { 1, 2, 5, 0 } },
        { "steps y", "steps state", { 1, -1 } },
    };
    const int64_t begin = b->offset[b->docs.n - 1], width = b->x->shape[1], n = (b->offset[b->docs.n] - begin) * width;
    float *y = malloc(sizeof *y * (size_t)(n ? n : 1));
    PN_CHECK(y, PN_MEMORY, "out of memory");
    pn_status s = PN_OK;
    pn_state *state = NULL;
    pn_tape_record(b->tape, false);
    for (size_t i = 0; i < sizeof ways / sizeof *ways; i++) {
        double error;
        PN_TRY_GOTO(s, pn_state_create(b->block, 1, pn_tape_pool(b->tape), b->on->dtype, &state), done);
        PN_TRY_GOTO(s, extend(b, ways[i].piece, y, state), done);
        PN_TRY_GOTO(s, pn_golden_error(b->file, "y", begin * width, y, n, &error), done);
        pn_row_error(r, ways[i].y, error, b->limits->block);
        PN_TRY_GOTO(s, state_errors(b, r, ways[i].state, state), done);
        pn_state_destroy(&state);
    }
done:
    pn_state_destroy(&state);
    free(y);
    return s;
}

pn_status pn_check_block_file(const pn_safetensors *f, const pn_compute *on, pn_report *report, bool *built_in) {
    const pn_golden_settings settings = { .file = f };
    pn_block_spec spec;
    pn_dims dims;
    PN_TRY(pn_golden_block(&settings, pn_safetensors_find(f, "param.q_proj.bias"), &spec, &dims));
    *built_in = spec.type != NULL;
    if (!spec.type) return PN_OK;
    pn_status s;
    block_check b = { .file = f, .on = on, .limits = pn_golden_limits_of(on->dtype) };
    pn_row r = pn_row_start(pn_golden_name(f), pn_backend_name(on->backend));
    PN_TRY_GOTO(s, block_check_read(&b, &spec, &dims), done);
    PN_TRY_GOTO(s, check_training(&b, &r), done);
    PN_TRY_GOTO(s, check_decoding(&b, &r), done);
    pn_row_end(report, &r);
done:
    block_check_free(&b);
    return s;
}
