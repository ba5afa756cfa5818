#include "saving.h"

#include "log.h"

pn_status pn_saving_open(const char *name, const pn_checkpoint_place *where, const pn_checkpoint_array *arrays, int n,
                         bool read_only, pn_saving *out, int64_t *step) {
    int64_t there;
    *out = (pn_saving){ .name = name, .arrays = arrays, .n = n, .first = !where->ranks || where->ranks->rank == 0 };
    if (!where->dir) return PN_OK;
    PN_TRY(pn_checkpoint_read(where, arrays, n, &there));
    if (there >= 0) *step = there;
    if (!read_only) PN_TRY(pn_checkpoint_writer_open(where, &out->writer));
    return PN_OK;
}

static pn_status spare(const pn_saving *v, pn_status s) {
    if (s != PN_IO) return s;
    if (v->first)
        pn_warn("%s: a checkpoint was not written: %s; training goes on, and what was saved before stays", v->name,
                pn_error_message());
    return PN_OK;
}

/* A wait that is long enough to be explained. */
static void tell_wait(const pn_saving *v, int64_t step) {
    double bytes = 0;
    for (int i = 0; i < v->n; i++)
        bytes += (double)pn_checkpoint_total(&v->arrays[i]) * (double)pn_dtype_bytes(v->arrays[i].dtype);
    if (v->first && bytes >= 1e9)
        pn_info("%s: saving step %lld, %.1f GB to disk", v->name, (long long)step, bytes / 1e9);
}

pn_status pn_saving_save(pn_saving *v, int64_t step, bool last) {
    if (!v->writer) return PN_OK;
    PN_TRY(spare(v, pn_checkpoint_writer_finish(v->writer))); /* of the one before */
    if (last) tell_wait(v, step);
    pn_status s = pn_checkpoint_writer_save(v->writer, step, v->arrays, v->n);
    if (!s && last) s = pn_checkpoint_writer_finish(v->writer);
    return last ? s : spare(v, s);
}

pn_status pn_saving_advance(pn_saving *v) {
    return v->writer ? spare(v, pn_checkpoint_writer_advance(v->writer)) : PN_OK;
}

void pn_saving_close(pn_saving *v) {
    pn_checkpoint_writer_close(&v->writer);
}
