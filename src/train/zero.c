#include "zero.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "shard.h"

enum {
    ALIGN = 64,   /* elements: whole vectors of any kernel */
    IN_FLIGHT = 2 /* buckets that may be on their way while another one fills */
};

/* What lies in a bucket. */
typedef struct bucket {
    pn_tensor *grads; /* of all its weights, from their first gradient until they have left */
    pn_tensor *mine;  /* this rank's part, summed over the ranks */
    pn_ticket ticket;
} bucket;

/* The weights of one type. */
typedef struct group {
    pn_dtype type;
    pn_param **param; /* in the order in which backward finishes them */
    int *layer;       /* of each: AFTER every layer, or BEFORE the first */
    int n;
    pn_bucket_plan *plan;
    pn_bucket_count count;
    int next; /* the first whose gradient is not finished */
    pn_tensor *values;
    bucket *bucket;
    pn_tensor **slot; /* this rank's ranges of values, which the optimizer updates */
    pn_shard_range *range;
    int n_ranges;
} group;

enum { AFTER = 1 << 30, BEFORE = -1, GROUPS = 2 };

struct pn_zero {
    pn_comm *comm;
    pn_pool *pool; /* of the weights */
    pn_tape *tape; /* of the present step */
    group group[GROUPS];
    int n_groups;
    pn_adamw *optim;
    pn_ticket gather; /* of the weights, until it was waited for */
    bool last;
};

/* ---- the order of weights ---- */

/* Backward comes to the head and the last norm first, then to the layers from the last on, and to the embedding, which
 * may be the head too, at its end. */
static int layer_of(const char *name) {
    int l;
    if (sscanf(name, "model.layers.%d.", &l) == 1) return l;
    return strstr(name, "embed_tokens") ? BEFORE : AFTER;
}

static group *group_of(pn_zero *z, pn_dtype type) {
    for (int i = 0; i < z->n_groups; i++)
        if (z->group[i].type == type) return &z->group[i];
    PN_ASSERT(z->n_groups < GROUPS);
    z->group[z->n_groups].type = type;
    return &z->group[z->n_groups++];
}

/* Keeps the order of weights that are finished together. */
static void insert(group *g, pn_param *p) {
    const int layer = layer_of(p->name);
    int i = g->n++;
    for (; i > 0 && g->layer[i - 1] < layer; i--) {
        g->param[i] = g->param[i - 1];
        g->layer[i] = g->layer[i - 1];
    }
    g->param[i] = p;
    g->layer[i] = layer;
}

static pn_status list_weights(pn_zero *z, const pn_params *p) {
    for (int i = 0; i < p->n; i++) {
        if (!p->item[i]->value->wants_grad) continue;
        group *g = group_of(z, p->item[i]->value->dtype);
        if (!g->param) {
            g->param = calloc((size_t)p->n, sizeof(pn_param *));
            g->layer = calloc((size_t)p->n, sizeof *g->layer);
            PN_CHECK(g->param && g->layer, PN_MEMORY, "out of memory");
        }
        insert(g, p->item[i]);
    }
    return PN_OK;
}

/* ---- flat arrays ---- */

static pn_status plan_group(const pn_zero *z, group *g, int64_t bucket_bytes) {
    int64_t *elems = malloc(((size_t)g->n + 1) * sizeof *elems);
    PN_CHECK(elems, PN_MEMORY, "out of memory");
    for (int i = 0; i < g->n; i++) elems[i] = pn_tensor_elems(g->param[i]->value);
    pn_status s =
        pn_bucket_plan_create(elems, g->n, bucket_bytes / (int64_t)sizeof(float), z->comm->size, ALIGN, &g->plan);
    free(elems);
    if (!s) s = pn_bucket_count_create(g->plan, &g->count);
    PN_TRY(s);
    g->bucket = calloc((size_t)g->plan->n_buckets + 1, sizeof *g->bucket);
    PN_CHECK(g->bucket, PN_MEMORY, "out of memory");
    return PN_OK;
}

/* Where a weight begins in the flat array of its group. */
static int64_t place_of(const group *g, int i) {
    return g->plan->bucket[g->plan->bucket_of[i]].at + g->plan->offset[i];
}

static pn_status place_group(pn_zero *z, group *g) {
    PN_TRY(pn_tensor_zeros(z->pool, g->type, 1, &g->plan->total_elems, &g->values));
    for (int i = 0; i < g->n; i++) PN_TRY(pn_tensor_place(g->param[i]->value, g->values, place_of(g, i)));
    g->n_ranges = pn_shard_ranges(g->plan, z->comm->rank, NULL);
    g->range = calloc((size_t)g->n_ranges + 1, sizeof *g->range);
    g->slot = calloc((size_t)g->n_ranges + 1, sizeof(pn_tensor *));
    PN_CHECK(g->range && g->slot, PN_MEMORY, "out of memory");
    pn_shard_ranges(g->plan, z->comm->rank, g->range);
    for (int i = 0; i < g->n_ranges; i++) {
        const pn_shard_range *r = &g->range[i];
        PN_TRY(pn_tensor_part(g->values, place_of(g, r->param) + r->offset, 1, &r->n, &g->slot[i]));
        g->slot[i]->wants_grad = true;
        g->slot[i]->grad_dtype = PN_F32;
    }
    return PN_OK;
}

/* Over the ranks, for clipping. */
static pn_status sum_over_ranks(void *ctx, pn_tensor *x) {
    pn_zero *z = ctx;
    return pn_comm_all_reduce_tensor(z->comm, x, PN_SUM, NULL);
}

static pn_status make_optimizer(pn_zero *z, const pn_adamw_settings *settings) {
    int n = 0, k = 0;
    for (int i = 0; i < z->n_groups; i++) n += z->group[i].n_ranges;
    pn_adamw_slot *slots = calloc((size_t)n + 1, sizeof *slots);
    PN_CHECK(slots, PN_MEMORY, "out of memory");
    for (int i = 0; i < z->n_groups; i++)
        for (int r = 0; r < z->group[i].n_ranges; r++) {
            const pn_param *p = z->group[i].param[z->group[i].range[r].param];
            slots[k++] = (pn_adamw_slot){ z->group[i].slot[r], p->decay, p->name };
        }
    pn_status s = pn_adamw_create_in(z->comm->memory, slots, n, settings, &z->optim);
    free(slots);
    if (!s) pn_adamw_share(z->optim, sum_over_ranks, z);
    return s;
}

pn_status pn_zero_create(const pn_params *p, pn_comm *comm, const pn_adamw_settings *settings, int64_t bucket_bytes,
                         pn_zero **out) {
    pn_zero *z = calloc(1, sizeof *z);
    pn_status s = PN_OK;
    PN_CHECK(z, PN_MEMORY, "out of memory");
    z->comm = comm;
    PN_ASSERT(comm->memory == pn_backend_pool(p->backend));
    PN_TRY_GOTO(s, pn_pool_create_exact(comm->memory, &z->pool), fail);
    PN_TRY_GOTO(s, list_weights(z, p), fail);
    for (int i = 0; i < z->n_groups; i++) {
        PN_TRY_GOTO(s, plan_group(z, &z->group[i], bucket_bytes), fail);
        PN_TRY_GOTO(s, place_group(z, &z->group[i]), fail);
    }
    PN_TRY_GOTO(s, make_optimizer(z, settings), fail);
    *out = z;
    return PN_OK;
fail:
    pn_zero_destroy(&z);
    return s;
}

/* Something started still has buffers of these. */
static bool is_under_way(const pn_zero *z) {
    bool any = z->gather != 0;
    for (int i = 0; i < z->n_groups; i++) {
        const group *g = &z->group[i];
        for (int b = 0; g->bucket && b < g->plan->n_buckets; b++) any = any || g->bucket[b].ticket;
    }
    return any;
}

static void group_free(group *g) {
    for (int b = 0; g->bucket && b < g->plan->n_buckets; b++) {
        pn_tensor_release(&g->bucket[b].grads);
        pn_tensor_release(&g->bucket[b].mine);
    }
    for (int i = 0; i < g->n_ranges && g->slot; i++) pn_tensor_release(&g->slot[i]);
    for (int i = 0; i < g->n; i++) pn_tensor_release(&g->param[i]->value->grad);
    pn_tensor_release(&g->values);
    pn_bucket_count_free(&g->count);
    pn_bucket_plan_destroy(&g->plan);
    free(g->bucket);
    free(g->slot);
    free(g->range);
    free(g->param);
    free(g->layer);
}

void pn_zero_destroy(pn_zero **zp) {
    pn_zero *z = zp ? *zp : NULL;
    if (!z) return;
    if (is_under_way(z)) pn_comm_abandon(z->comm);
    pn_adamw_destroy(&z->optim);
    for (int i = 0; i < z->n_groups; i++) group_free(&z->group[i]);
    pn_pool_destroy(&z->pool);
    free(z);
    *zp = NULL;
}

pn_adamw *pn_zero_optimizer(pn_zero *z) {
    return z->optim;
}

int pn_zero_arrays(pn_zero *z, pn_checkpoint_array *out, char (*names)[PN_OPTIMIZER_NAME]) {
    const int n = pn_optimizer_arrays(z->optim, out, names);
    int k = 0;
    for (int i = 0; i < z->n_groups; i++)
        for (int r = 0; r < z->group[i].n_ranges; r++)
            for (int part = 0; part < PN_OPTIMIZER_ARRAYS; part++, k++) {
                const pn_shard_range *range = &z->group[i].range[r];
                out[k] = pn_checkpoint_part(out[k], range->offset, z->group[i].plan->elems[range->param]);
            }
    PN_ASSERT(k == n);
    return n;
}

/* ---- gradients ---- */

/* What no weight's gradient covers holds zeros. */
static pn_status clear(const pn_tensor *flat, int64_t begin, int64_t end) {
    const size_t bytes = sizeof(float);
    if (begin == end) return PN_OK;
    return pn_storage_fill(flat->storage, (size_t)(flat->offset + begin) * bytes, (size_t)(end - begin) * bytes, 0);
}

static pn_status open_bucket(const pn_zero *z, group *g, int b) {
    const pn_bucket *x = &g->plan->bucket[b];
    bucket *k = &g->bucket[b];
    PN_TRY(pn_tensor_create(pn_tape_pool(z->tape), PN_F32, 1, &x->elems, &k->grads));
    for (int i = x->first; i < x->end; i++) {
        const int64_t end = g->plan->offset[i] + g->plan->elems[i];
        PN_TRY(clear(k->grads, end, i + 1 < x->end ? g->plan->offset[i + 1] : x->elems));
    }
    return PN_OK;
}

static pn_status home(void *ctx, pn_tape *t, pn_tensor *leaf, pn_tensor **grad) {
    pn_zero *z = ctx;
    PN_ASSERT(t == z->tape);
    for (int k = 0; k < z->n_groups; k++) {
        group *g = &z->group[k];
        for (int i = 0; i < g->n; i++) {
            if (g->param[i]->value != leaf) continue;
            const int b = g->plan->bucket_of[i];
            if (!g->bucket[b].grads) PN_TRY(open_bucket(z, g, b));
            return pn_tensor_part(g->bucket[b].grads, g->plan->offset[i], leaf->rank, leaf->shape, grad);
        }
    }
    return PN_OK;
}

static pn_status land(const pn_zero *z, bucket *k) {
    if (!k->ticket) return PN_OK;
    PN_TRY(pn_comm_wait(z->comm, k->ticket));
    k->ticket = 0;
    pn_tensor_release(&k->grads);
    return PN_OK;
}

/* A bucket whose gradients are finished. */
static pn_status leave(const pn_zero *z, group *g, int b) {
    const pn_bucket *x = &g->plan->bucket[b];
    bucket *k = &g->bucket[b];
    if (!k->grads) PN_TRY(open_bucket(z, g, b));
    for (int i = x->first; i < x->end; i++) {
        pn_tensor *w = g->param[i]->value;
        if (!w->grad) PN_TRY(clear(k->grads, g->plan->offset[i], g->plan->offset[i] + g->plan->elems[i]));
        pn_tensor_release(&w->grad);
    }
    if (b >= IN_FLIGHT) PN_TRY(land(z, &g->bucket[b - IN_FLIGHT]));
    PN_TRY(pn_tensor_create(pn_tape_pool(z->tape), PN_F32, 1, &x->part, &k->mine));
    PN_TRY(pn_comm_reduce_scatter(z->comm, pn_data(k->grads), pn_data(k->mine), x->part, PN_F32, PN_SUM, &k->ticket));
    return PN_OK;
}

void pn_zero_pass(pn_zero *z, pn_tape *t, bool last) {
    z->tape = t;
    z->last = last;
    pn_tape_gradient_home(t, home, z);
    for (int i = 0; i < z->n_groups; i++) {
        z->group[i].next = 0;
        pn_bucket_count_reset(&z->group[i].count);
    }
}

pn_status pn_zero_passed(void *ctx, pn_tape *t, int layer) {
    pn_zero *z = ctx;
    (void)t;
    if (z->comm->size > 1) pn_control_tick(z->comm->control); /* a layer is through: this rank is alive */
    for (int k = 0; k < z->n_groups && z->last; k++) {
        group *g = &z->group[k];
        for (; g->next < g->n && g->layer[g->next] >= layer; g->next++) {
            int first, end;
            pn_bucket_count_add(&g->count, g->next, &first, &end);
            for (int b = first; b < end; b++) PN_TRY(leave(z, g, b));
        }
    }
    return PN_OK;
}

pn_status pn_zero_reduce(pn_zero *z) {
    PN_ASSERT(z->last);
    for (int k = 0; k < z->n_groups; k++) {
        group *g = &z->group[k];
        int first, end;
        pn_bucket_count_rest(&g->count, &first, &end);
        for (int b = first; b < end; b++) PN_TRY(leave(z, g, b));
    }
    for (int k = 0; k < z->n_groups; k++) {
        group *g = &z->group[k];
        for (int b = 0; b < g->plan->n_buckets; b++) PN_TRY(land(z, &g->bucket[b]));
        for (int i = 0; i < g->n_ranges; i++) {
            const pn_shard_range *r = &g->range[i];
            const int b = g->plan->bucket_of[r->param];
            PN_TRY(pn_tensor_part(g->bucket[b].mine, r->at - g->plan->bucket[b].part_at, 1, &r->n, &g->slot[i]->grad));
        }
        for (int b = 0; b < g->plan->n_buckets; b++) pn_tensor_release(&g->bucket[b].mine); /* the slots' now */
    }
    pn_tape_gradient_home(z->tape, NULL, NULL);
    return PN_OK;
}

/* ---- weights ---- */

pn_status pn_zero_gather(pn_zero *z) {
    pn_ticket ticket;
    for (int k = 0; k < z->n_groups; k++) {
        const group *g = &z->group[k];
        for (int b = 0; b < g->plan->n_buckets; b++) {
            const pn_bucket *x = &g->plan->bucket[b];
            char *all = (char *)pn_data(g->values) + (size_t)x->at * pn_dtype_bytes(g->type);
            const size_t part = (size_t)x->part * pn_dtype_bytes(g->type);
            PN_TRY(pn_comm_all_gather(z->comm, all + (size_t)z->comm->rank * part, all, x->part, g->type, &ticket));
            if (ticket) z->gather = ticket;
        }
    }
    PN_TRY(pn_comm_wait(z->comm, z->gather));
    z->gather = 0;
    return PN_OK;
}
