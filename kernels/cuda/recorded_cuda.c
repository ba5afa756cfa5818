#include "recorded.h"

#include <stdlib.h>
#include <string.h>

#include "device.h"
#include "recorded_cuda.h"

typedef struct named {
    const int64_t *at;
    int64_t n;
    int64_t *first; /* of what is fixed: its values when tables were learnt; owned */
} named;

typedef struct place {
    pn_table_recipe made_of;
    int64_t at, n; /* in values */
} place;

struct pn_recorded {
    named *named;
    place *table;
    int n_named, n_tables;
    bool unnamed;           /* a table was asked for that cannot be made again */
    int64_t n;              /* values of all tables */
    int32_t *values, *sent; /* on the host: as they are to be, and as the GPU has them */
    bool any_sent;
    void *there; /* on the GPU */
};

static pn_recorded *learning, *using;

/* One more element of an array that has n. */
static pn_status grow(void **array, int n, size_t each) {
    if (n & (n - 1)) return PN_OK; /* it doubles at powers of two */
    void *grown = realloc(*array, (size_t)(n ? 2 * n : 1) * each);
    PN_CHECK(grown, PN_MEMORY, "out of memory");
    *array = grown;
    return PN_OK;
}

pn_status pn_recorded_create(pn_recorded **out) {
    *out = calloc(1, sizeof **out);
    PN_CHECK(*out, PN_MEMORY, "out of memory");
    return PN_OK;
}

void pn_recorded_forget(pn_recorded *r) {
    free(r->values);
    free(r->sent);
    pn_device_free(r->there);
    r->values = r->sent = NULL;
    r->there = NULL;
    r->any_sent = r->unnamed = false;
    r->n = r->n_tables = 0;
}

void pn_recorded_destroy(pn_recorded **rp) {
    pn_recorded *r = rp ? *rp : NULL;
    if (!r) return;
    pn_recorded_forget(r);
    for (int i = 0; i < r->n_named; i++) free(r->named[i].first);
    free(r->named);
    free(r->table);
    free(r);
    *rp = NULL;
}

pn_status pn_recorded_name(pn_recorded *r, const int64_t *at, int64_t n, bool fixed) {
    int64_t *first = NULL;
    PN_TRY(grow((void **)&r->named, r->n_named, sizeof *r->named));
    if (fixed) {
        first = malloc((size_t)(n + 1) * sizeof *first);
        PN_CHECK(first, PN_MEMORY, "out of memory");
    }
    r->named[r->n_named++] = (named){ at, n, first };
    return PN_OK;
}

/* What is launched follows from where documents begin, so that must be fixed, unless any layout will do. */
static bool has_name(const pn_recorded *r, const pn_table_recipe *of, int part) {
    const int64_t n = pn_table_part_length(of, part);
    const bool fixed = of->kind != PN_TABLE_INTEGERS && part == 0 && of->longest == 0;
    for (int i = 0; i < r->n_named; i++) {
        const named *x = &r->named[i];
        if (x->at == of->part[part] && n <= x->n && (x->first || !fixed)) return true;
    }
    return n == 0;
}

static place *find(const pn_recorded *r, const pn_table_recipe *of) {
    for (int i = 0; i < r->n_tables; i++) {
        const pn_table_recipe *x = &r->table[i].made_of;
        if (pn_table_same_kind(x, of) && x->part[0] == of->part[0] && x->part[1] == of->part[1]) return &r->table[i];
    }
    return NULL;
}

/* ---- learning ---- */

void pn_recorded_learn(pn_recorded *r) {
    PN_ASSERT(!using);
    learning = r;
}

void pn_recorded_asked(const pn_table_recipe *of) {
    pn_recorded *r = learning;
    if (!r || find(r, of)) return;
    r->unnamed = r->unnamed || !has_name(r, of, 0) || !has_name(r, of, 1);
    if (r->unnamed || grow((void **)&r->table, r->n_tables, sizeof *r->table)) {
        r->unnamed = true; /* no memory for it: as good as unknown */
        return;
    }
    const int64_t n = pn_table_length(of);
    r->table[r->n_tables++] = (place){ *of, r->n, n };
    r->n += (n + 31) / 32 * 32; /* each begins at a multiple of 128 bytes, as tables of their own do */
}

pn_status pn_recorded_settle(pn_recorded *r) {
    PN_CHECK(!r->unnamed, PN_UNSUPPORTED, "a table of the work to be recorded is made of numbers that may change");
    const size_t bytes = (size_t)(r->n + 1) * sizeof *r->values;
    r->values = calloc(1, bytes);
    r->sent = calloc(1, bytes);
    r->there = pn_device_alloc(bytes);
    PN_CHECK(r->values && r->sent && r->there, PN_MEMORY, "%s memory exhausted", r->there ? "host" : "GPU");
    for (int i = 0; i < r->n_named; i++)
        if (r->named[i].first)
            memcpy(r->named[i].first, r->named[i].at, (size_t)r->named[i].n * sizeof *r->named[i].first);
    return PN_OK;
}

/* ---- recording and launching ---- */

void pn_recorded_use(pn_recorded *r) {
    PN_ASSERT(!learning);
    using = r;
}

pn_status pn_recorded_table(const pn_table_recipe *of, const int32_t **out) {
    const place *p = using ? find(using, of) : NULL;
    PN_CHECK(p, PN_UNSUPPORTED, "a table is asked for that the work did not need before");
    *out = (const int32_t *)using->there + p->at;
    return PN_OK;
}

bool pn_recorded_stale(const pn_recorded *r) {
    for (int i = 0; i < r->n_named; i++) {
        const named *x = &r->named[i];
        if (x->first && memcmp(x->first, x->at, (size_t)x->n * sizeof *x->at)) return true;
    }
    return false;
}

pn_status pn_recorded_refresh(pn_recorded *r) {
    const size_t bytes = (size_t)r->n * sizeof *r->values;
    for (int i = 0; i < r->n_tables; i++) {
        PN_ASSERT(pn_table_length(&r->table[i].made_of) == r->table[i].n); /* what gives it is fixed */
        PN_TRY(pn_table_fill(&r->table[i].made_of, r->values + r->table[i].at));
    }
    if (r->any_sent && !memcmp(r->values, r->sent, bytes)) return PN_OK;
    PN_TRY(pn_device_upload(r->there, r->values, bytes));
    memcpy(r->sent, r->values, bytes);
    r->any_sent = true;
    return PN_OK;
}
