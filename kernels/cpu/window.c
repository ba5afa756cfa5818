#include "window.h"

#include <string.h>

pn_window pn_window_make(const pn_docs *docs, const float *tokens, const float *state, int64_t channels, int64_t width,
                         float *history) {
    pn_window w = { tokens, history, channels, width, state ? width * channels : 0 };
    if (!state) {
        memset(history, 0, (size_t)(width * channels) * sizeof *history);
        return w;
    }
#pragma omp parallel for schedule(static) if (docs->n * width * channels > 65536)
    for (int64_t d = 0; d < docs->n; d++) {
        const float *from = state + d * width * channels;
        float *to = history + d * width * channels;
        for (int64_t c = 0; c < channels; c++)
            for (int64_t j = 0; j < width; j++) to[j * channels + c] = from[c * width + j];
    }
    return w;
}

void pn_window_new_state(const pn_window *w, const pn_docs *docs, float *state) {
    int64_t channels = w->channels, width = w->width;
#pragma omp parallel for schedule(static) if (docs->n * width * channels > 65536)
    for (int64_t d = 0; d < docs->n; d++) {
        int64_t length = docs->offset[d + 1] - docs->offset[d];
        float *to = state + d * width * channels;
        for (int64_t j = 0; j < width; j++) {
            const float *row = pn_window_row(w, docs, d, length - width + j);
            for (int64_t c = 0; c < channels; c++) to[c * width + j] = row[c];
        }
    }
}

void pn_window_add_rows(const float *rows, int64_t channels, int64_t width, float *state) {
    for (int64_t c = 0; c < channels; c++)
        for (int64_t j = 0; j < width; j++) state[c * width + j] += rows[j * channels + c];
}
