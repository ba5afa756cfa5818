/* Options of a block by name, as a configuration would set them. */
#ifndef PN_TESTS_BLOCK_OPTION_H
#define PN_TESTS_BLOCK_OPTION_H

#include "block.h"
#include "harness.h"

static inline void set_option(pn_block_spec *spec, const char *name, const char *value) {
    const pn_option *row = pn_option_find(spec->type->options, name);
    ck_assert_msg(row != NULL, "%s has no option %s", spec->type->name, name);
    ck_ok(pn_option_parse(row, spec->type->name, value, 0, spec->options));
}

#endif
