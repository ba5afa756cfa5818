/* Everything that is registered, by kind: what `postnas list` shows and the documentation of keys is made of. */
#ifndef PN_CLI_REGISTRY_H
#define PN_CLI_REGISTRY_H

#include "options.h"

typedef struct pn_registered {
    const char *name;
    char summary[256];
    const pn_option *options; /* NULL: none */
} pn_registered;

typedef struct pn_registry {
    const char *name; /* "blocks" */
    int (*count)(void);
    pn_registered (*at)(int i); /* 0 .. count() - 1 */
} pn_registry;

const pn_registry *pn_registries(int *n);
const pn_registry *pn_registry_find(const char *name); /* NULL if unknown */

#endif
