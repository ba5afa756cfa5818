#include "readback.h"

#include <stdlib.h>
#include <string.h>

#include "device.h"

struct pn_readback {
    pn_dtype type[PN_READBACK_VALUES]; /* of each value */
    int n;
    unsigned char (*sent)[8]; /* one place for each */
    pn_event *there;          /* NULL: on the host */
};

pn_status pn_readback_create(pn_pool_kind kind, pn_readback **out) {
    const size_t bytes = PN_READBACK_VALUES * sizeof *(*out)->sent;
    pn_readback *r = calloc(1, sizeof *r);
    PN_CHECK(r, PN_MEMORY, "out of memory");
    pn_status s = PN_OK;
    if (kind == PN_POOL_DEVICE) {
        s = pn_event_create(&r->there);
        if (!s) s = pn_device_pin(bytes, (void **)&r->sent);
    } else {
        r->sent = malloc(bytes);
        if (!r->sent) s = pn_fail_at(__FILE__, __LINE__, PN_MEMORY, "out of memory");
    }
    if (s)
        pn_readback_destroy(&r);
    else
        *out = r;
    return s;
}

void pn_readback_destroy(pn_readback **rp) {
    if (!rp || !*rp) return;
    pn_readback *r = *rp;
    if (r->there) {
        pn_device_unpin(r->sent);
        pn_event_destroy(&r->there);
    } else {
        free(r->sent);
    }
    free(r);
    *rp = NULL;
}

pn_status pn_readback_add(pn_readback *r, const pn_tensor *t) {
    const int n = t ? (int)pn_tensor_elems(t) : 1;
    PN_ASSERT(n <= PN_READBACK_VALUES - r->n);
    for (int i = 0; i < n; i++) {
        unsigned char *to = r->sent[r->n];
        const pn_dtype type = r->type[r->n++] = t ? t->dtype : PN_F64;
        const char *from = t ? (const char *)pn_data(t) + (size_t)i * pn_dtype_bytes(type) : NULL;
        if (!t)
            memset(to, 0, sizeof *r->sent);
        else if (r->there)
            PN_TRY(pn_device_send(to, from, pn_dtype_bytes(type)));
        else
            memcpy(to, from, pn_dtype_bytes(type));
    }
    return r->there ? pn_event_record(r->there) : PN_OK;
}

pn_status pn_readback_wait(pn_readback *r, double *values) {
    const int n = r->n;
    r->n = 0;
    if (r->there) PN_TRY(pn_event_wait(r->there));
    for (int i = 0; i < n; i++) pn_convert(&values[i], PN_F64, r->sent[i], r->type[i], 1);
    return PN_OK;
}
