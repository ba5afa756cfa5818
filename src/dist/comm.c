#include "comm.h"

#include <stdlib.h>

pn_status pn_comm_create(const pn_comm_type *type, pn_pool_kind memory, pn_control *control, void *data,
                         pn_comm **out) {
    pn_comm *c = calloc(1, sizeof *c);
    PN_CHECK(c, PN_MEMORY, "out of memory");
    *c = (pn_comm){ .type = type,
                    .rank = pn_control_rank(control),
                    .size = pn_control_size(control),
                    .memory = memory,
                    .control = control,
                    .data = data };
    *out = c;
    return PN_OK;
}

void pn_comm_destroy(pn_comm **at) {
    pn_comm *c = *at;
    if (!c) return;
    *at = NULL;
    c->type->destroy(c);
    free(c);
}

void pn_comm_abandon(pn_comm *c) {
    if (c->abandoned) return;
    c->abandoned = true;
    c->type->abandon(c);
}

static pn_status usable(pn_comm *c) {
    PN_TRY(pn_control_status(c->control));
    PN_CHECK(!c->abandoned, PN_COMM, "collectives ended when this rank failed");
    return PN_OK;
}

static bool can_reduce(pn_dtype t) {
    return t == PN_F32 || t == PN_BF16 || t == PN_F64 || t == PN_I64;
}

static pn_status start(pn_comm *c, const pn_collective *what, pn_ticket *ticket) {
    PN_ASSERT(what->count >= 0 && what->root >= 0 && what->root < c->size);
    if (ticket) *ticket = 0;
    PN_TRY(usable(c));
    if (what->count == 0 && what->kind != PN_BARRIER) return PN_OK; /* everywhere, since counts are the same */
    PN_TRY(c->type->start(c, what));
    c->last++;
    if (ticket)
        *ticket = c->last;
    else
        PN_TRY(c->type->wait(c, c->last));
    return PN_OK;
}

pn_status pn_comm_all_reduce(pn_comm *c, void *x, int64_t count, pn_dtype t, pn_reduce op, pn_ticket *ticket) {
    PN_ASSERT(can_reduce(t));
    return start(c, &(pn_collective){ PN_ALL_REDUCE, op, x, x, count, t, 0 }, ticket);
}
pn_status pn_comm_reduce_scatter(pn_comm *c, const void *src, void *dst, int64_t count, pn_dtype t, pn_reduce op,
                                 pn_ticket *ticket) {
    PN_ASSERT(can_reduce(t));
    return start(c, &(pn_collective){ PN_REDUCE_SCATTER, op, src, dst, count, t, 0 }, ticket);
}
pn_status pn_comm_all_gather(pn_comm *c, const void *src, void *dst, int64_t count, pn_dtype t, pn_ticket *ticket) {
    return start(c, &(pn_collective){ PN_ALL_GATHER, PN_SUM, src, dst, count, t, 0 }, ticket);
}
pn_status pn_comm_broadcast(pn_comm *c, void *x, int64_t count, pn_dtype t, int root, pn_ticket *ticket) {
    return start(c, &(pn_collective){ PN_BROADCAST, PN_SUM, x, x, count, t, root }, ticket);
}
pn_status pn_comm_barrier(pn_comm *c) {
    return start(c, &(pn_collective){ .kind = PN_BARRIER }, NULL);
}

pn_status pn_comm_wait(pn_comm *c, pn_ticket t) {
    PN_ASSERT(t <= c->last);
    PN_TRY(usable(c));
    if (t > 0) PN_TRY(c->type->wait(c, t));
    return PN_OK;
}

pn_status pn_comm_finish(pn_comm *c) {
    PN_TRY(usable(c));
    PN_TRY(c->type->finish(c));
    PN_TRY(pn_control_status(c->control));
    return PN_OK;
}

pn_status pn_comm_all_reduce_tensor(pn_comm *c, pn_tensor *x, pn_reduce op, pn_ticket *ticket) {
    PN_ASSERT(pn_pool_kind_of(x->storage->pool) == c->memory);
    return pn_comm_all_reduce(c, pn_data(x), pn_tensor_elems(x), x->dtype, op, ticket);
}
pn_status pn_comm_broadcast_tensor(pn_comm *c, pn_tensor *x, int root, pn_ticket *ticket) {
    PN_ASSERT(pn_pool_kind_of(x->storage->pool) == c->memory);
    return pn_comm_broadcast(c, pn_data(x), pn_tensor_elems(x), x->dtype, root, ticket);
}
