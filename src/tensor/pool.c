#include "pool.h"

#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>

#include "device.h"

/* Size classes: eight per power of two, and 64 from LARGE on, where waste counts: at most 12.5 % and 1.6 % of a block.
 * Class 0 is 64 bytes. */
enum { FINE = 64, COARSE = 8, CLASSES = FINE * 42, ALIGN = 64, LARGE = 1 << 20, HUGE_PAGE = 2 << 20 };

typedef struct cached {
    void *data;
    size_t n_bytes;
    struct cached *next;
} cached;

struct pn_pool {
    pn_pool_kind kind;
    bool exact;        /* no size classes */
    bool closed;       /* destroyed by its owner; waiting for the storages still out */
    size_t n_out;      /* storages handed out */
    size_t live, peak; /* bytes */
    size_t system;     /* bytes taken from the system and not given back */
    size_t given_back; /* blocks */
    cached *free_list[CLASSES];
};

static int size_class(size_t n_bytes, size_t *rounded) {
    size_t base = ALIGN;
    int group = 0;
    while (base * 2 <= n_bytes) {
        base *= 2;
        group++;
    }
    if (n_bytes <= base) {
        *rounded = base;
        return group * FINE;
    }
    const size_t parts = base < LARGE ? COARSE : FINE, step = base / parts;
    size_t k = (n_bytes - base + step - 1) / step; /* 1 .. parts; the last is the next group's 0 */
    *rounded = base + k * step;
    return (int)(group * FINE + k * (FINE / parts));
}

/* Large blocks ask for huge pages: rows of an activation lie kilobytes apart, and with pages of 4 KiB every one of them
 * costs a walk through the page tables (10 to 15 % of a chunkwise kernel's time). Only whole huge pages inside the
 * block are asked for, so it takes no more memory. */
static void *allocate_host(size_t n_bytes) {
    if (n_bytes < HUGE_PAGE) return aligned_alloc(ALIGN, (n_bytes + ALIGN - 1) / ALIGN * ALIGN);
    void *data = NULL;
    if (posix_memalign(&data, HUGE_PAGE, n_bytes)) return NULL;
#ifdef MADV_HUGEPAGE
    (void)madvise(data, n_bytes / HUGE_PAGE * HUGE_PAGE, MADV_HUGEPAGE); /* a hint: refused, it changes nothing */
#endif
    return data;
}

/* A counting pool has everything but the memory. */
static bool allocate(pn_pool *pool, size_t n_bytes, void **data) {
    *data = NULL;
    if (pool->kind == PN_POOL_DEVICE) *data = pn_device_alloc(n_bytes);
    if (pool->kind == PN_POOL_HOST) *data = allocate_host(n_bytes);
    if (!*data && pool->kind != PN_POOL_COUNTING) return false;
    pool->system += n_bytes;
    return true;
}

static void give_back(pn_pool *pool, void *data, size_t n_bytes) {
    pool->system -= n_bytes;
    pool->given_back++;
    if (pool->kind == PN_POOL_COUNTING) return;
    if (pool->kind == PN_POOL_DEVICE)
        pn_device_free(data);
    else
        free(data);
}

pn_status pn_pool_create(pn_pool_kind kind, pn_pool **out) {
    if (kind == PN_POOL_DEVICE) PN_TRY(pn_device_open());
    pn_pool *p = calloc(1, sizeof *p);
    PN_CHECK(p, PN_MEMORY, "out of memory while creating a memory pool");
    p->kind = kind;
    *out = p;
    return PN_OK;
}

pn_status pn_pool_create_exact(pn_pool_kind kind, pn_pool **out) {
    PN_TRY(pn_pool_create(kind, out));
    (*out)->exact = true;
    return PN_OK;
}

void pn_pool_trim(pn_pool *pool) {
    for (int c = 0; c < CLASSES; c++) {
        for (cached *b = pool->free_list[c], *next; b; b = next) {
            next = b->next;
            give_back(pool, b->data, b->n_bytes);
            free(b);
        }
        pool->free_list[c] = NULL;
    }
}

static void free_pool(pn_pool *pool) {
    pn_pool_trim(pool);
    free(pool);
}

void pn_pool_destroy(pn_pool **pool) {
    if (!pool || !*pool) return;
    (*pool)->closed = true;
    if ((*pool)->n_out == 0) free_pool(*pool);
    *pool = NULL;
}

pn_status pn_storage_create(pn_pool *pool, size_t n_bytes, pn_storage **out) {
    PN_CHECK(n_bytes < ((size_t)1 << 46), PN_MEMORY, "a tensor of %zu bytes is larger than any machine's memory",
             n_bytes);
    size_t rounded;
    int c = size_class(n_bytes, &rounded);
    PN_ASSERT(c < CLASSES);
    if (pool->exact) rounded = n_bytes ? (n_bytes + ALIGN - 1) / ALIGN * ALIGN : ALIGN;
    pn_storage *s = calloc(1, sizeof *s);
    PN_CHECK(s, PN_MEMORY, "out of memory");
    cached *b = pool->free_list[c];
    bool got = true;
    if (b) {
        pool->free_list[c] = b->next;
        s->data = b->data;
        free(b);
    } else {
        got = allocate(pool, rounded, &s->data);
        if (!got && !pn_graph_recording()) { /* blocks of other sizes may be what is missing */
            pn_pool_trim(pool);
            got = allocate(pool, rounded, &s->data);
        }
    }
    if (!got) {
        free(s);
        PN_FAIL(PN_MEMORY,
                "%s memory exhausted: %.1f MB more on top of %.1f MB live; use fewer tokens per step or recompute",
                pool->kind == PN_POOL_DEVICE ? "GPU" : "host", (double)rounded / 1e6, (double)pool->live / 1e6);
    }
    s->n_bytes = rounded;
    s->refs = 1;
    s->pool = pool;
    pool->n_out++;
    pool->live += rounded;
    if (pool->live > pool->peak) pool->peak = pool->live;
    *out = s;
    return PN_OK;
}

void pn_storage_release(pn_storage **sp) {
    pn_storage *s = sp ? *sp : NULL;
    if (!s) return;
    *sp = NULL;
    if (--s->refs > 0) return;
    pn_pool *pool = s->pool;
    size_t rounded;
    int c = size_class(s->n_bytes, &rounded);
    cached *b = pool->closed || pool->exact ? NULL : malloc(sizeof *b);
    if (b) {
        *b = (cached){ s->data, s->n_bytes, pool->free_list[c] };
        pool->free_list[c] = b;
    } else {
        give_back(pool, s->data, s->n_bytes);
    }
    pool->live -= s->n_bytes;
    pool->n_out--;
    if (pool->closed && pool->n_out == 0) free_pool(pool);
    free(s);
}

size_t pn_pool_live_bytes(const pn_pool *pool) {
    return pool->live;
}
size_t pn_pool_peak_bytes(const pn_pool *pool) {
    return pool->peak;
}
void pn_pool_reset_peak(pn_pool *pool) {
    pool->peak = pool->live;
}
size_t pn_pool_system_bytes(const pn_pool *pool) {
    return pool->system;
}
size_t pn_pool_given_back(const pn_pool *pool) {
    return pool->given_back;
}
pn_pool_kind pn_pool_kind_of(const pn_pool *pool) {
    return pool->kind;
}
