/* Recompute: every level gives the bits of keeping everything, in less memory, which a plan foresees; and the choice of
 * one. */
#include "supernet/supernet_fixture.h"

#include "distill.h"
#include "memory.h"

static const pn_recompute ways[] = {
    { PN_RECOMPUTE_NONE, 0 },  { PN_RECOMPUTE_CHEAP, 0 }, { PN_RECOMPUTE_CHEAP, 2 },
    { PN_RECOMPUTE_CORES, 0 }, { PN_RECOMPUTE_CORES, 1 }, { PN_RECOMPUTE_LAYERS, 0 },
};
enum { WAYS = sizeof ways / sizeof *ways };

/* Every layer has one candidate of the type beside attention, and weights away from their first values. */
static pn_model *hybrid_of(const pn_block_type *type) {
    pn_model *m = tiny_base();
    pn_block_spec spec;
    ck_ok(pn_block_spec_default(type, &spec));
    if (type == &pn_block_swa)
        ck_ok(pn_option_parse(pn_option_find(type->options, "window_size"), "test", "16", 0, spec.options));
    ck_ok(pn_supernet_build(m, &spec, 1, true, 5));
    for (int i = 0; i < m->params->n; i++) {
        pn_param *p = m->params->item[i];
        p->value->wants_grad = true;
        for (int64_t k = 0; k < pn_tensor_elems(p->value); k++) pn_f32(p->value)[k] += 0.01F * (float)(k % 7);
    }
    return m;
}

static size_t gradient_bytes(const pn_model *m) {
    size_t bytes = 0;
    for (int i = 0; i < m->params->n; i++) {
        const pn_tensor *g = m->params->item[i]->value->grad;
        bytes += g ? g->storage->n_bytes : 0;
    }
    return bytes;
}

typedef struct pass_result {
    double loss;
    size_t peak, took, planned;
} pass_result;

/* One pass on packed documents along the second candidates; gradients stay in the weights. */
static pass_result pass_with(pn_model *m, const pn_recompute *how) {
    pn_path path = { .n = m->config.n_layers }, teacher = pn_model_own_path(m);
    const pn_loss_weights weights = { .ce = 0.5, .kl = 1, .feature = 1, .temperature = 1 };
    pn_batch batch = { 0 };
    pn_distill_losses losses;
    pn_loss_parts parts;
    pn_tape *t, *plan;
    double planned;
    for (int l = 0; l < path.n; l++) path.choice[l] = 1;
    const pn_distill pass = {
        .student = m, .path = &path, .teacher = m, .teacher_path = &teacher, .weights = &weights, .recompute = *how
    };
    ck_ok(pn_batch_load(mixture, 0, 4, &batch));
    ck_assert_int_gt(batch.n_docs, 2);
    ck_ok(pn_params_tape_plan(m->params, &plan));
    ck_ok(pn_pass_plan(plan, &pass, &batch, &planned));
    pn_tape_destroy(&plan);
    ck_ok(pn_params_tape(m->params, &t));
    ck_ok(pn_distill_forward(t, &pass, &batch, &losses));
    ck_ok(pn_tape_backward(t, losses.total));
    ck_ok(pn_distill_read(&losses, &parts));
    const size_t peak = pn_pool_peak_bytes(pn_tape_pool(t)), took = pn_pool_system_bytes(pn_tape_pool(t));
    pn_tape_reset(t);
    ck_assert_uint_eq(pn_pool_live_bytes(pn_tape_pool(t)), gradient_bytes(m)); /* and nothing else */
    pn_tape_destroy(&t);
    pn_batch_free(&batch);
    return (pass_result){ parts.total, peak, took, (size_t)planned };
}

START_TEST(every_level_gives_the_same_bits_in_less_memory) {
    setup();
    int n;
    const pn_block_type *const *types = pn_block_types(&n);
    int mixers = 0;
    for (int k = 0; k < n; k++) {
        if (types[k]->role != PN_MIXER || types[k] == &pn_block_none) continue;
        pn_model *m = hybrid_of(types[k]);
        pn_tensor **want = calloc((size_t)m->params->n, sizeof *want);
        pass_result first = { 0 };
        size_t before = 0;
        for (int w = 0; w < WAYS; w++) {
            const pass_result r = pass_with(m, &ways[w]);
            if (!w) first = r;
            ck_assert_double_eq(r.loss, first.loss);
            ck_assert_uint_eq(r.took, r.planned);
            if (w) ck_assert_msg(r.peak <= before, "%s: %s", types[k]->name, pn_recompute_text(&ways[w]));
            before = r.peak;
            for (int i = 0; i < m->params->n; i++) {
                pn_tensor **grad = &m->params->item[i]->value->grad;
                if (!*grad) { /* not on the path */
                    ck_assert_ptr_null(want[i]);
                    continue;
                }
                if (!w)
                    want[i] = pn_tensor_retain(*grad);
                else
                    ck_assert_msg(!memcmp(pn_f32(*grad), pn_f32(want[i]), pn_tensor_bytes(*grad)), "%s: %s: %s",
                                  types[k]->name, pn_recompute_text(&ways[w]), m->params->item[i]->name);
                pn_tensor_release(grad);
            }
        }
        ck_assert_uint_lt(before, first.peak);
        for (int i = 0; i < m->params->n; i++) pn_tensor_release(&want[i]);
        free(want);
        pn_model_destroy(&m);
        mixers++;
    }
    ck_assert_int_ge(mixers, 9);
    teardown();
}
END_TEST

/* A step of 4 layers that takes 100, less 10 per layer and level. */
static pn_status falling(void *ctx, const pn_recompute *r, double *bytes) {
    ++*(int *)ctx;
    *bytes = 100;
    for (int l = 0; l < 4; l++) *bytes -= 5.0 * pn_recompute_at(r, l);
    return PN_OK;
}

START_TEST(the_least_that_fits_is_chosen) {
    static const struct {
        double most;
        pn_recompute want;
    } rows[] = { { 1e9, { PN_RECOMPUTE_NONE, 0 } }, { 100, { PN_RECOMPUTE_NONE, 0 } },
                 { 99, { PN_RECOMPUTE_NONE, 1 } },  { 80, { PN_RECOMPUTE_CHEAP, 0 } },
                 { 66, { PN_RECOMPUTE_CHEAP, 3 } }, { 60, { PN_RECOMPUTE_CORES, 0 } },
                 { 45, { PN_RECOMPUTE_CORES, 3 } }, { 40, { PN_RECOMPUTE_LAYERS, 0 } },
                 { 39, { PN_RECOMPUTE_LAYERS, 0 } } /* does not fit: the caller says so */ };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        pn_recompute r;
        int asked = 0;
        ck_ok(pn_recompute_fit(4, rows[i].most, falling, &asked, &r));
        ck_assert_int_eq((int)r.level, (int)rows[i].want.level);
        ck_assert_int_eq(r.more, rows[i].want.more);
        ck_assert_int_le(asked, 5);
    }
}
END_TEST

TEST_MAIN("recompute", every_level_gives_the_same_bits_in_less_memory, the_least_that_fits_is_chosen)
