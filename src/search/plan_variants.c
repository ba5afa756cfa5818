/* What stages block and shape will train, before the run starts: their candidates are added to a copy of the base that
 * has no memory behind its weights. What stage shape trains follows from who wins stage block; planned for is every
 * type that may. */
#include "block_cost.h"
#include "plan.h"
#include "run_phases.h"

/* The base with candidates in every layer, which train; *added: their bytes. */
static pn_status planned_model(const pn_run *r, const pn_shape *list, int n, pn_model **out, double *added) {
    pn_params *none;
    int index;
    PN_TRY(pn_params_plan(r->on.dtype, &none));
    none->planned_for = r->on.backend;
    pn_status s = pn_model_create(&r->net->config, r->on.dtype, none, out);
    pn_params_destroy(&none);
    PN_TRY(s);
    pn_params *p = (*out)->params;
    pn_params_train(p, "*", false);
    const int before = p->n;
    for (int l = 0; l < r->net->config.n_layers && !s; l++)
        for (int i = 0; i < n && !s; i++) s = pn_model_add_candidate(*out, l, &list[i].spec, &index);
    *added = 0;
    for (int i = before; i < p->n && !s; i++) {
        p->item[i]->value->wants_grad = true;
        *added += (double)pn_tensor_bytes(p->item[i]->value);
    }
    if (s) pn_model_destroy(out);
    return s;
}

/* made: bytes of what the stages before it add. */
static pn_status plan_list(const pn_run *r, pn_variant_stage stage, const pn_shape *list, int n, double made,
                           double free_bytes) {
    const pn_supernet_job job = { .name = pn_variant_stage_names[stage],
                                  .config = &r->config.variants[stage].training,
                                  .mixture = r->mixture,
                                  .seed = (uint64_t)r->config.top.seed };
    pn_model *m;
    double added;
    PN_TRY(planned_model(r, list, n, &m, &added));
    const pn_status s = pn_supernet_check(m, &job.config->phase[0], &job, made + added, free_bytes);
    pn_model_destroy(&m);
    return s;
}

/* The blocks that may be the linear one when stage shape begins. */
static pn_status list_winners(const pn_run *r, pn_shape *list, int *n) {
    const pn_variants_config *block = &r->config.variants[PN_VARIANTS_BLOCK];
    *n = 0;
    if (block->wanted) return pn_variants_list(block, &r->net->config.dims, NULL, list, n);
    list[(*n)++] = (pn_shape){ .spec = r->net->layer[0].candidate[r->final.linear]->spec };
    return PN_OK;
}

/* Whether none of its type has more weights; of equal ones the first. */
static pn_status is_widest(const pn_run *r, const pn_shape *list, int n, int i, bool *widest) {
    pn_block_cost mine, other;
    *widest = true;
    PN_TRY(pn_block_spec_cost(&list[i].spec, &r->net->config.dims, 1, 2, &mine));
    for (int k = 0; k < n && *widest; k++) {
        if (k == i || list[k].spec.type != list[i].spec.type) continue;
        PN_TRY(pn_block_spec_cost(&list[k].spec, &r->net->config.dims, 1, 2, &other));
        *widest = k < i ? other.parameters < mine.parameters : other.parameters <= mine.parameters;
    }
    return PN_OK;
}

static pn_status plan_shapes(const pn_run *r, double free_bytes) {
    const pn_variants_config *c = &r->config.variants[PN_VARIANTS_SHAPE];
    pn_shape winner[PN_MAX_VARIANTS], list[PN_MAX_VARIANTS];
    int n_winners;
    double made = 0;
    PN_TRY(list_winners(r, winner, &n_winners));
    if (r->config.variants[PN_VARIANTS_BLOCK].wanted) {
        pn_model *m;
        PN_TRY(planned_model(r, winner, n_winners, &m, &made));
        pn_model_destroy(&m);
    }
    for (int i = 0; i < n_winners; i++) {
        bool widest;
        int n = 1;
        PN_TRY(is_widest(r, winner, n_winners, i, &widest));
        if (!widest) continue;
        list[0] = winner[i];
        PN_TRY(pn_variants_list(c, &r->net->config.dims, winner[i].spec.type, list, &n));
        PN_TRY(plan_list(r, PN_VARIANTS_SHAPE, list, n, made, free_bytes));
    }
    return PN_OK;
}

pn_status pn_run_plan_variants(const pn_run *r, pn_variant_stage stage, double free_bytes) {
    pn_shape list[PN_MAX_VARIANTS];
    int n = 0;
    if (stage == PN_VARIANTS_SHAPE) return plan_shapes(r, free_bytes);
    PN_TRY(pn_variants_list(&r->config.variants[stage], &r->net->config.dims, NULL, list, &n));
    return plan_list(r, stage, list, n, 0, free_bytes);
}
