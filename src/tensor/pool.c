#include "pool.h"

#include <math.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "arena.h"
#include "device.h"
#include "machine.h"
#include "span.h"

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
    size_t given_back; /* times */
    cached *free_list[CLASSES];
    pn_arena *arena; /* of blocks from LARGE on; NULL: they are kept by class too */
    pn_span *span;   /* its memory, from the first such block on; NULL in a counting pool */
    size_t spanned;  /* bytes of it: of `system` */
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

static pn_status create(pn_pool_kind kind, bool arena, pn_pool **out) {
    if (kind == PN_POOL_DEVICE) PN_TRY(pn_device_open());
    pn_pool *p = calloc(1, sizeof *p);
    PN_CHECK(p, PN_MEMORY, "out of memory while creating a memory pool");
    p->kind = kind;
    const pn_status s = arena ? pn_arena_create(&p->arena) : PN_OK;
    if (s)
        free(p);
    else
        *out = p;
    return s;
}

static bool has_arena(pn_pool_kind kind) {
    const char *text = getenv("PN_CUDA_ARENA");
    return kind == PN_POOL_DEVICE && !(text && !strcmp(text, "0"));
}

pn_status pn_pool_create(pn_pool_kind kind, pn_pool **out) {
    return create(kind, has_arena(kind), out);
}

pn_status pn_pool_create_counting(pn_pool_kind of, pn_pool **out) {
    return create(PN_POOL_COUNTING, has_arena(of), out);
}

pn_status pn_pool_create_exact(pn_pool_kind kind, pn_pool **out) {
    PN_TRY(create(kind, false, out));
    (*out)->exact = true;
    return PN_OK;
}

/* ---- the arena ---- */

/* Memory up to where the arena ends, and where `less`, none beyond. */
static bool follow_end(pn_pool *pool, bool less) {
    const size_t wanted = pn_span_rounded(pn_arena_end(pool->arena));
    if (wanted == pool->spanned || (wanted < pool->spanned && !less)) return true;
    if (pool->kind == PN_POOL_DEVICE) {
        if (!pool->span && pn_span_create(&pool->span)) return false;
        if (pn_span_resize(pool->span, wanted)) return false;
    }
    if (wanted < pool->spanned) pool->given_back++;
    pool->system = pool->system - pool->spanned + wanted;
    pool->spanned = wanted;
    return true;
}

static bool take_part(pn_pool *pool, size_t n_bytes, pn_storage *s) {
    size_t at;
    if (pn_arena_take(pool->arena, n_bytes, &s->part, &at)) return false;
    if (follow_end(pool, false)) {
        s->data = pool->kind == PN_POOL_DEVICE ? (char *)pn_span_address(pool->span) + at : NULL;
        return true;
    }
    pn_arena_give(pool->arena, s->part);
    pn_arena_trim(pool->arena);
    s->part = NULL;
    return false;
}

/* ---- blocks ---- */

void pn_pool_trim(pn_pool *pool) {
    for (int c = 0; c < CLASSES; c++) {
        for (cached *b = pool->free_list[c], *next; b; b = next) {
            next = b->next;
            give_back(pool, b->data, b->n_bytes);
            free(b);
        }
        pool->free_list[c] = NULL;
    }
    if (pool->arena) {
        pn_arena_trim(pool->arena);
        (void)follow_end(pool, true); /* what does not go stays ours */
    }
}

static void free_pool(pn_pool *pool) {
    pn_pool_trim(pool);
    pn_span_destroy(&pool->span);
    pn_arena_destroy(&pool->arena);
    free(pool);
}

void pn_pool_destroy(pn_pool **pool) {
    if (!pool || !*pool) return;
    (*pool)->closed = true;
    if ((*pool)->n_out == 0) free_pool(*pool);
    *pool = NULL;
}

static bool take_block(pn_pool *pool, int c, size_t rounded, pn_storage *s) {
    cached *b = pool->free_list[c];
    if (!b) return allocate(pool, rounded, &s->data);
    pool->free_list[c] = b->next;
    s->data = b->data;
    free(b);
    return true;
}

/* What would take less is for the caller to say: here nobody knows what the memory is for. */
static pn_status exhausted(const pn_pool *pool, size_t wanted) {
    pn_device_info gpu;
    double free_bytes = INFINITY;
    char there[48] = "";
    if (pool->kind != PN_POOL_DEVICE)
        free_bytes = pn_memory_free();
    else if (!pn_graph_recording() && !pn_device_describe(&gpu))
        free_bytes = (double)gpu.free_bytes;
    if (isfinite(free_bytes)) snprintf(there, sizeof there, ", and %.1f MB are free", free_bytes / 1e6);
    PN_FAIL(PN_MEMORY, "%s memory exhausted: %.1f MB more are wanted on top of %.1f MB in use%s",
            pool->kind == PN_POOL_DEVICE ? "GPU" : "host", (double)wanted / 1e6, (double)pool->live / 1e6, there);
}

pn_status pn_storage_create(pn_pool *pool, size_t n_bytes, pn_storage **out) {
    PN_CHECK(n_bytes < ((size_t)1 << 46), PN_MEMORY, "a tensor of %zu bytes is larger than any machine's memory",
             n_bytes);
    size_t rounded;
    int c = size_class(n_bytes, &rounded);
    PN_ASSERT(c < CLASSES);
    const bool part = pool->arena && n_bytes >= LARGE;
    const size_t grain = part ? PN_ARENA_GRAIN : ALIGN;
    if (pool->exact || part) rounded = n_bytes ? (n_bytes + grain - 1) / grain * grain : grain;
    pn_storage *s = calloc(1, sizeof *s);
    PN_CHECK(s, PN_MEMORY, "out of memory");
    bool got = part ? take_part(pool, rounded, s) : take_block(pool, c, rounded, s);
    if (!got && !pn_graph_recording()) { /* blocks of other sizes may be what is missing */
        pn_error_clear();
        pn_pool_trim(pool);
        got = part ? take_part(pool, rounded, s) : take_block(pool, c, rounded, s);
    }
    if (!got) {
        free(s);
        return exhausted(pool, rounded);
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

pn_status pn_storage_again(const pn_storage *s, pn_storage **out) {
    pn_storage *again = malloc(sizeof *again);
    PN_CHECK(again, PN_MEMORY, "out of memory");
    *again = *s;
    again->refs = 1;
    again->again = true;
    s->pool->n_out++;
    *out = again;
    return PN_OK;
}

static void give_block(pn_pool *pool, pn_storage *s) {
    size_t rounded;
    int c = size_class(s->n_bytes, &rounded);
    cached *b = pool->closed || pool->exact ? NULL : malloc(sizeof *b);
    if (!b) {
        give_back(pool, s->data, s->n_bytes);
        return;
    }
    *b = (cached){ s->data, s->n_bytes, pool->free_list[c] };
    pool->free_list[c] = b;
}

void pn_storage_release(pn_storage **sp) {
    pn_storage *s = sp ? *sp : NULL;
    if (!s) return;
    *sp = NULL;
    if (--s->refs > 0) return;
    pn_pool *pool = s->pool;
    if (s->again) {
        free(s);
        if (--pool->n_out == 0 && pool->closed) free_pool(pool);
        return;
    }
    if (s->part)
        pn_arena_give(pool->arena, s->part);
    else
        give_block(pool, s);
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
