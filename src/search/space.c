#include "space.h"

#include "buffer.h"

pn_space pn_space_all_free(int n_layers, int linear) {
    pn_space s = { .start = { .n = n_layers }, .linear = linear };
    s.start = pn_space_all_linear(&s);
    return s;
}

pn_space pn_space_part(const pn_space *s, int first, int n, const pn_path *placed) {
    pn_space part = { .start = *placed, .linear = s->linear, .n_limits = n };
    for (int i = 0; i < n; i++) part.limit[i] = s->limit[first + i];
    return part;
}

bool pn_space_free(const pn_space *s, int layer) {
    return s->start.choice[layer] == s->linear;
}

pn_status pn_space_check(const pn_space *s) {
    int wanted = 0, layers = pn_space_count(&s->start, s->linear);
    pn_buf text = { 0 };
    for (int i = 0; i < s->n_limits; i++) {
        wanted += s->limit[i].count;
        pn_buf_printf(&text, "%s%d %s", i ? " and " : "", s->limit[i].count, s->limit[i].name);
    }
    pn_status status = PN_OK;
    if (wanted > layers)
        status = pn_fail_at(__FILE__, __LINE__, PN_USAGE, "search.limits: %s do not fit %d layers; lower %s",
                            pn_buf_string(&text), layers, s->n_limits > 1 ? "one of them" : "it");
    pn_buf_free(&text);
    return status;
}

int pn_space_count(const pn_path *path, int choice) {
    int n = 0;
    for (int l = 0; l < path->n; l++) n += path->choice[l] == choice;
    return n;
}

bool pn_space_complete(const pn_space *s, const pn_path *path) {
    int n[PN_MAX_LIMITS] = { 0 };
    for (int l = 0; l < path->n; l++) {
        if (path->choice[l] == s->start.choice[l]) continue;
        int k = 0;
        while (k < s->n_limits && s->limit[k].choice != path->choice[l]) k++;
        if (k == s->n_limits || !pn_space_free(s, l)) return false;
        n[k]++;
    }
    for (int k = 0; k < s->n_limits; k++)
        if (n[k] > s->limit[k].count || (s->limit[k].exact && n[k] < s->limit[k].count)) return false;
    return true;
}

double pn_choose(int n, int k) {
    double r = 1;
    for (int i = 1; i <= k; i++) r = r * (n - k + i) / i;
    return r;
}

double pn_space_ways(const pn_space *s, int first, int n) {
    if (first >= s->n_limits) return 1;
    PN_ASSERT(first < PN_MAX_LIMITS);
    const pn_limit *limit = &s->limit[first];
    double ways = 0;
    for (int k = limit->exact ? limit->count : 0; k <= limit->count && k <= n; k++)
        ways += pn_choose(n, k) * pn_space_ways(s, first + 1, n - k);
    return ways;
}

double pn_space_paths(const pn_space *s) {
    return pn_space_ways(s, 0, pn_space_count(&s->start, s->linear));
}

pn_path pn_space_all_linear(const pn_space *s) {
    pn_path p = { .n = s->start.n };
    for (int l = 0; l < p.n; l++) p.choice[l] = (uint8_t)s->linear;
    return p;
}

pn_path pn_space_uniform(const pn_space *s) {
    pn_path p = s->start;
    for (int k = 0; k < s->n_limits; k++) {
        int layer[PN_MAX_LAYERS], m = 0, count = s->limit[k].exact ? s->limit[k].count : 0;
        for (int l = 0; l < p.n; l++)
            if (p.choice[l] == s->linear) layer[m++] = l;
        PN_ASSERT(m >= count);
        for (int i = 0; i < count; i++) p.choice[layer[(2 * i + 1) * m / (2 * count)]] = (uint8_t)s->limit[k].choice;
    }
    return p;
}
