#include "supernet.h"

static const char *const modes[] = {
    [PN_SUPERNET_LOCAL] = "local", [PN_SUPERNET_SAMPLED] = "sampled", [PN_SUPERNET_GATED] = "gated", NULL
};
static const char *const orders[] = { [PN_ORDER_LAYER] = "layer", [PN_ORDER_STEP] = "step", NULL };
static const char *const stores[] = { "f32", "bf16", NULL };

#define LOCAL_KEYS                                                                                                     \
    PN_OPT_ENUM(pn_supernet_phase, order, "layer", orders,                                                             \
                "local: all steps of a layer before the next one, or all layers each step"),                           \
        PN_OPT_ENUM(pn_supernet_phase, store, "f32", stores, "local, order layer: precision of the activations kept")

const pn_option pn_supernet_keys[] = {
    PN_OPT_ENUM(pn_supernet_phase, mode, "local", modes, "how candidates are trained"),
    LOCAL_KEYS,
    PN_OPT_SECTION("gates", "gated: how gates learn"),
    PN_OPT_SECTION("then", "after local training: a second phase with a mode and keys of its own; absent: none"),
    PN_OPT_END,
};

const pn_option pn_supernet_then_keys[] = {
    PN_OPT_ENUM(pn_supernet_phase, mode, "gated", modes, "how candidates are trained further: sampled or gated"),
    PN_OPT_SECTION("gates", "gated: how gates learn"),
    PN_OPT_END,
};

const pn_option pn_supernet_local_keys[] = {
    LOCAL_KEYS,
    PN_OPT_END,
};

static pn_status read_phase(pn_config *file, const char *section, const pn_option *table, pn_supernet_phase *phase) {
    char gates[128];
    snprintf(gates, sizeof gates, "%s.gates", section);
    PN_TRY(pn_config_read(file, section, table, phase));
    PN_TRY(pn_config_read(file, section, pn_train_option_table, &phase->train));
    PN_TRY(pn_config_read(file, gates, pn_gate_option_table, &phase->gates));
    return PN_OK;
}

static const char *phase_section(const char *section, int phase, char *buffer, size_t n) {
    snprintf(buffer, n, "%s%s", section, phase ? ".then" : "");
    return buffer;
}

pn_status pn_supernet_config_read(pn_config *file, const char *section, pn_supernet_config *out) {
    char then[128];
    *out = (pn_supernet_config){ .n_phases = 1 };
    PN_TRY(read_phase(file, section, pn_supernet_keys, &out->phase[0]));
    phase_section(section, 1, then, sizeof then);
    if (!pn_config_has(file, then)) return PN_OK;
    out->n_phases = 2;
    PN_TRY(read_phase(file, then, pn_supernet_then_keys, &out->phase[1]));
    PN_CHECK(out->phase[0].mode == PN_SUPERNET_LOCAL, PN_USAGE,
             "%s: comes after local training, but mode is %s; use mode: local, or leave it out",
             pn_config_where(file, then), modes[out->phase[0].mode]);
    PN_CHECK(out->phase[1].mode != PN_SUPERNET_LOCAL, PN_USAGE, "%s: mode is local again; use sampled or gated",
             pn_config_where(file, then));
    return PN_OK;
}

pn_status pn_supernet_local_read(pn_config *file, const char *section, pn_supernet_config *out) {
    *out = (pn_supernet_config){ .n_phases = 1 };
    out->phase[0].mode = PN_SUPERNET_LOCAL;
    PN_TRY(pn_config_read(file, section, pn_supernet_local_keys, &out->phase[0]));
    PN_TRY(pn_config_read(file, section, pn_train_option_table, &out->phase[0].train));
    return PN_OK;
}

pn_status pn_supernet_config_check(pn_config *file, const char *section, const pn_supernet_config *c,
                                   const pn_mixture *mixture) {
    char path[128];
    for (int i = 0; i < c->n_phases; i++)
        PN_TRY(pn_train_options_check(&c->phase[i].train, mixture,
                                      pn_config_where(file, phase_section(section, i, path, sizeof path))));
    return PN_OK;
}

pn_status pn_supernet_blocks_check(const pn_supernet_config *c, const pn_block_spec *blocks, int n_blocks,
                                   const char *where) {
    for (int i = 0; i < c->n_phases; i++)
        for (int b = 0; b < n_blocks && c->phase[i].mode != PN_SUPERNET_SAMPLED; b++) {
            const char *option = pn_block_spec_crosses_layers(&blocks[b]);
            PN_CHECK(!option, PN_USAGE,
                     "%s: %s with %s depends on other layers, which mode %s does not hand it; use %s: false, or mode: "
                     "sampled",
                     where, blocks[b].type->name, option, modes[c->phase[i].mode], option);
        }
    return PN_OK;
}
