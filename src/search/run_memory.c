/* Whether the GPU's memory holds what the run will train. */
#include <stdlib.h>

#include "memory_advice.h"
#include "plan.h"
#include "run_phases.h"

static bool on_path(const pn_model *m, const pn_path *path, const char *name) {
    for (int l = 0; l < path->n; l++)
        if (pn_param_below(name, m->layer[l].candidate[path->choice[l]]->prefix)) return true;
    return false;
}

/* The hybrid of a path has copies of its mixers, and trains them: planned in the super-network, where these train. */
static pn_status plan_distillation(pn_run *r, double budget, pn_memory_need *need) {
    const pn_path path = pn_space_all_linear(&r->space), teacher = pn_model_own_path(r->net);
    const pn_train_job job = { .name = "distil",
                               .options = &r->config.distill_train,
                               .mixture = r->mixture,
                               .student = r->net,
                               .path = &path,
                               .teacher = r->net,
                               .teacher_path = &teacher };
    pn_params *p = r->net->params;
    bool *trained = calloc((size_t)p->n + 1, sizeof *trained);
    PN_CHECK(trained, PN_MEMORY, "out of memory");
    double copies = 0;
    for (int i = 0; i < p->n; i++) {
        pn_tensor *value = p->item[i]->value;
        trained[i] = value->wants_grad;
        value->wants_grad = on_path(r->net, &path, p->item[i]->name);
        if (value->wants_grad) copies += (double)pn_tensor_bytes(value);
    }
    pn_status s = pn_train_plan(&job, budget - copies, NULL, need);
    need->weights = copies;
    for (int i = 0; i < p->n; i++) p->item[i]->value->wants_grad = trained[i];
    free(trained);
    return s;
}

static pn_status check_distillation(pn_run *r) {
    const pn_search_config *c = &r->config;
    const pn_train_job job = { .options = &c->distill_train, .mixture = r->mixture, .student = r->net };
    pn_memory_settings settings = { 0 };
    pn_memory_need need;
    double budget;
    PN_TRY(pn_memory_budget(c->distill_train.memory_gb, &budget));
    PN_TRY(plan_distillation(r, budget, &need));
    pn_memory_job_settings(&job, &need, budget, &settings);
    pn_memory_may(&settings, (need.weights + need.optimizer + need.gradients) / 2, "choose among smaller candidates");
    PN_TRY(pn_memory_check(&need, budget, &settings, "distillation"));
    return PN_OK;
}

pn_status pn_run_check_memory(pn_run *r) {
    const pn_search_config *c = &r->config;
    const pn_supernet_job job = { .config = &c->supernet, .mixture = r->mixture, .seed = (uint64_t)c->top.seed };
    if (r->on.backend != PN_CUDA) return PN_OK;
    PN_TRY(pn_supernet_fits(r->net, &job));
    for (int k = 0; k < PN_VARIANT_STAGES; k++) {
        double budget;
        if (!c->variants[k].wanted) continue;
        PN_TRY(pn_memory_budget(c->variants[k].training.phase[0].train.memory_gb, &budget));
        PN_TRY(pn_run_plan_variants(r, (pn_variant_stage)k, budget));
    }
    if (c->distill_tokens) PN_TRY(check_distillation(r));
    return PN_OK;
}
