/* What the later stages will take, planned before the run starts: against what is planned when they begin. */
#include "search_fixture.h"

#include <math.h>
#include <stdlib.h>

#include "plan.h"
#include "run_phases.h"

#define TRAIN "tokens: 2048, batch_tokens: 1024"

static const char *const stages[] = {
    "stages=[placement, block, shape]",
    "block={" TRAIN ", candidates: [{ type: gla }, { type: gla, num_heads: 4 }, { type: gated_deltanet }]}",
    "shape={" TRAIN ", candidates: [{ type: gla, num_heads: [1, 2] }, { type: gated_deltanet, num_heads: 1 }]}", NULL
};

/* As far as a search gets before it asks for the memory. */
static pn_run *open_run(pn_config *c) {
    pn_run *r = calloc(1, sizeof *r);
    ck_assert_ptr_nonnull(r);
    ck_ok(pn_run_open(r, c));
    ck_ok(pn_run_space(r));
    ck_ok(pn_run_check_variants(r));
    ck_ok(pn_run_build_net(r));
    return r;
}

/* Adds candidates, as a stage does; their bytes. */
static double add(pn_run *r, const pn_shape *list, int n) {
    const pn_params *p = r->net->params;
    const int before = p->n;
    double bytes = 0;
    pn_block_spec spec[PN_MAX_VARIANTS];
    for (int i = 0; i < n; i++) spec[i] = list[i].spec;
    ck_ok(pn_supernet_build(r->net, spec, n, false, 1));
    for (int i = before; i < p->n; i++) bytes += (double)pn_tensor_bytes(p->item[i]->value);
    return bytes;
}

/* Weights, optimizer and step of the candidates that were added last. */
static double needed(pn_run *r, pn_variant_stage stage, double weights) {
    const pn_supernet_config *c = &r->config.variants[stage].training;
    const pn_supernet_job job = { .config = c, .mixture = r->mixture, .seed = 1 };
    pn_memory_need need;
    ck_ok(pn_supernet_plan(r->net, &c->phase[0], &job, INFINITY, &need));
    need.weights = weights;
    return pn_memory_sum(&need);
}

/* It fits into so much and into no less, but for what the store of activations takes where it has room. */
static void ck_needs(const pn_run *r, pn_variant_stage stage, double bytes) {
    const double store = pn_supernet_store_bytes(
        r->net, &r->config.variants[stage].training.phase[0]); /* at most half of what is free */
    char name[32];
    ck_ok(pn_run_plan_variants(r, stage, bytes + store));
    ck_assert_int_eq(pn_run_plan_variants(r, stage, bytes - 1), PN_USAGE);
    snprintf(name, sizeof name, "%s: training needs ", pn_variant_stage_names[stage]);
    ck_assert_msg(!strncmp(pn_error_message(), name, strlen(name)), "%s", pn_error_message());
    ck_assert_ptr_nonnull(strstr(pn_error_message(), "batch_tokens"));
}

START_TEST(later_stages_are_planned_before_they_begin) {
    setup();
    pn_config *c;
    pn_shape block[PN_MAX_VARIANTS], shape[PN_MAX_VARIANTS];
    int n_block = 0, n_shape = 1;
    open_config("none", stages, &c);
    pn_run *planned = open_run(c), *real = open_run(c);
    const pn_dims *dims = &real->net->config.dims;
    const int before = planned->net->params->n;

    ck_ok(pn_variants_list(&real->config.variants[PN_VARIANTS_BLOCK], dims, NULL, block, &n_block));
    ck_assert_int_eq(n_block, 3);
    const double blocks = add(real, block, n_block);
    ck_needs(planned, PN_VARIANTS_BLOCK, needed(real, PN_VARIANTS_BLOCK, blocks));

    /* The costliest winner of stage block. */
    double most = 0;
    for (int i = 0; i < n_block; i++) {
        pn_run *after = open_run(c);
        shape[0] = block[i];
        n_shape = 1;
        ck_ok(pn_variants_list(&real->config.variants[PN_VARIANTS_SHAPE], dims, block[i].spec.type, shape, &n_shape));
        add(after, block, n_block);
        const double shapes = add(after, shape, n_shape);
        most = fmax(most, needed(after, PN_VARIANTS_SHAPE, blocks + shapes));
        pn_run_free(after);
        free(after);
    }
    ck_needs(planned, PN_VARIANTS_SHAPE, most);
    ck_assert_int_eq(planned->net->params->n, before);
    pn_run_free(planned);
    pn_run_free(real);
    free(planned);
    free(real);
    pn_config_destroy(&c);
    ck_ok(pn_remove_tree(top));
}
END_TEST

TEST_MAIN("memory of a search", later_stages_are_planned_before_they_begin)
