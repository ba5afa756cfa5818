/* Inside latency: the parts of a model, made to be timed. */
#ifndef PN_MODEL_LATENCY_PARTS_H
#define PN_MODEL_LATENCY_PARTS_H

#include "latency.h"

/* Seconds of one pass, measured now. The spec's options are resolved. */
pn_status pn_latency_time_block(const pn_block_spec *spec, const pn_dims *dims, const pn_latency_setting *setting,
                                pn_timing *out);
pn_status pn_latency_time_rest(const pn_dims *dims, const pn_latency_setting *setting, pn_timing *out);
pn_status pn_latency_time_ends(const pn_dims *dims, int64_t vocab, const pn_latency_setting *setting, pn_timing *out);

#endif
