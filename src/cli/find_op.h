/* An op by the name a user gave. */
#ifndef PN_CLI_FIND_OP_H
#define PN_CLI_FIND_OP_H

#include "op.h"

/* PN_USAGE with the nearest name when there is none. */
pn_status pn_find_op(const char *name, const pn_op **out);

#endif
