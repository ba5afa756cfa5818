#include "block_arg.h"

#include "block_cost.h"
#include "buffer.h"
#include "config.h"
#include "swa.h"

typedef struct block_keys {
    const char *type;
} block_keys;
static const pn_option keys[] = {
    PN_OPT_STRING(block_keys, type, NULL, "see `postnas list blocks`", .example = "gated_deltanet"),
    PN_OPT_END,
};

static pn_status settle(const pn_dims *dims, pn_block_spec *spec) {
    pn_block_spec linear;
    pn_block_cost cost;
    PN_TRY(pn_block_spec_default(&pn_block_gated_deltanet, &linear));
    PN_TRY(pn_swa_settle(spec, &linear, 1, dims));
    PN_TRY(pn_block_spec_cost(spec, dims, 1, 2, &cost)); /* whether it can be built */
    return PN_OK;
}

pn_status pn_block_arg_default(const pn_block_type *type, const pn_dims *dims, pn_block_spec *out) {
    PN_TRY(pn_block_spec_default(type, out));
    PN_TRY(settle(dims, out));
    return PN_OK;
}

static pn_status read_block(pn_config *c, const char *where, const pn_dims *dims, pn_block_spec *out) {
    block_keys k;
    PN_TRY(pn_config_read(c, "block", keys, &k));
    const pn_block_type *type = k.type ? pn_block_find(k.type) : NULL;
    PN_CHECK(type && type->role == PN_MIXER, PN_USAGE, "%s: no token mixer is named \"%s\"; see `postnas list blocks`",
             where, k.type ? k.type : "");
    PN_TRY(pn_block_spec_default(type, out));
    if (type->options) PN_TRY(pn_config_read(c, "block", type->options, out->options));
    PN_TRY(pn_config_finish(c));
    PN_TRY(settle(dims, out));
    return PN_OK;
}

pn_status pn_block_arg(const char *where, const char *text, const pn_dims *dims, pn_block_spec *out) {
    pn_buf yaml = { 0 };
    pn_config *c = NULL;
    pn_buf_printf(&yaml, *text == '{' ? "block: %s\n" : "block: { type: %s }\n", text);
    pn_status s = pn_buf_status(&yaml);
    if (!s) s = pn_config_parse(where, pn_buf_string(&yaml), &c);
    if (!s) s = read_block(c, where, dims, out);
    pn_config_destroy(&c);
    pn_buf_free(&yaml);
    return s;
}
