#include <stdlib.h>
#include <string.h>

#include "checkpoint.h"
#include "clock.h"
#include "files.h"
#include "local_internal.h"
#include "log.h"
#include "optimizer.h"

/* The arrays of a checkpoint, with room for their names. */
typedef struct listing {
    pn_checkpoint_array *array;
    char (*name)[PN_OPTIMIZER_NAME];
    int n;
} listing;

static const char *add_name(listing *s, const char *part, const char *of) {
    snprintf(s->name[s->n], sizeof *s->name, "%s/%s", part, of);
    return s->name[s->n];
}

static void add(listing *s, const char *part, const char *of, pn_dtype dtype, int64_t n, void *data) {
    s->array[s->n] = pn_checkpoint_data(add_name(s, part, of), dtype, n, data);
    s->n++;
}

static void add_learner(listing *s, local *r, learner *x) {
    const char *prefix = r->m->layer[x->layer].candidate[x->choice]->prefix;
    if (x->optim) {
        s->n += pn_optimizer_arrays(x->optim, s->array + s->n, s->name + s->n);
        add(s, "optimizer_steps", prefix, PN_I64, 1, pn_adamw_steps(x->optim));
    }
    for (int i = 0; i < r->m->params->n && !x->optim; i++) {
        pn_param *p = r->m->params->item[i];
        if (!pn_local_owns(r, x, p)) continue;
        s->array[s->n] = pn_checkpoint_tensor(add_name(s, "weight", p->name), PN_F32, p->value);
        s->n++;
    }
    add(s, "error_sums", prefix, PN_F64, 3, x->error_sums);
}

/* Loads the layer's newest state into what trains, or saves it at the step the layer is at. */
static pn_status transfer(local *r, int layer, const char *dir, bool save) {
    size_t most = 3 * (size_t)r->m->params->n + 2 * (size_t)r->n_learners;
    listing s = { calloc(most, sizeof *s.array), calloc(most, sizeof *s.name), 0 };
    pn_status status = s.array && s.name ? PN_OK : pn_fail_at(__FILE__, __LINE__, PN_MEMORY, "out of memory");
    for (int k = 0; k < r->n_learners && !status; k++)
        if (r->learner[k].layer == layer) add_learner(&s, r, &r->learner[k]);
    if (!status && save)
        status = pn_checkpoint_save(dir, r->trained[layer], r->fingerprint, s.array, s.n);
    else if (!status)
        status = pn_checkpoint_load(dir, r->fingerprint, s.array, s.n, &r->trained[layer]);
    free(s.array);
    free(s.name);
    return status;
}

static pn_status layer_dir(const local *r, int layer, char *dir) {
    char name[32];
    snprintf(name, sizeof name, "layer-%d", layer);
    return pn_path_join(dir, r->state_dir, name);
}

pn_status pn_local_save(local *r, int layer) {
    r->saved = pn_seconds();
    PN_TRY(pn_local_settle(r, layer));
    if (!r->state_dir || !r->trained[layer]) return PN_OK;
    char dir[PN_PATH_MAX];
    PN_TRY(layer_dir(r, layer, dir));
    PN_TRY(transfer(r, layer, dir, true));
    r->saved = pn_seconds(); /* the next one is due after work, however long this one took */
    return PN_OK;
}

pn_status pn_local_load(local *r) {
    if (!r->state_dir) return PN_OK;
    int finished = 0, begun = 0;
    for (int l = 0; l < r->m->config.n_layers; l++) {
        char dir[PN_PATH_MAX];
        int64_t step;
        PN_TRY(layer_dir(r, l, dir));
        PN_TRY(pn_checkpoint_step(dir, r->fingerprint, &step));
        if (step <= 0) continue;
        r->trained[l] = step; /* a finished layer starts no optimizer */
        PN_TRY(pn_local_start(r, l));
        PN_TRY(transfer(r, l, dir, false));
        if (r->trained[l] < step) { /* an older state of a layer that was finished: it has an optimizer again */
            step = r->trained[l];
            PN_TRY(pn_local_start(r, l));
            PN_TRY(transfer(r, l, dir, false));
        }
        finished += step == r->steps;
        begun += step < r->steps;
    }
    if (finished || begun)
        pn_info("local training: %d layers read from %s, %d more stopped half way", finished, r->state_dir, begun);
    return PN_OK;
}
