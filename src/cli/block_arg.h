/* A block on the command line: `gated_deltanet`, or with options `{ type: gated_deltanet, expand_v: 1 }`. */
#ifndef PN_CLI_BLOCK_ARG_H
#define PN_CLI_BLOCK_ARG_H

#include "block.h"

/* `where` starts messages: "--block". The window of a swa without one is as wide as the state of gated_deltanet with
 * its default options allows (swa.h). PN_USAGE when there is no such mixer, option or value, or it does not fit dims.
 */
pn_status pn_block_arg(const char *where, const char *text, const pn_dims *dims, pn_block_spec *out);
/* A type with its default options, in the same way. */
pn_status pn_block_arg_default(const pn_block_type *type, const pn_dims *dims, pn_block_spec *out);

#endif
