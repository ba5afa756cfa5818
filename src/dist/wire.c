#include "wire.h"

#include <xxhash.h>

void pn_wire_digest(const unsigned char token[PN_TOKEN_BYTES], bool hello, unsigned char out[PN_TOKEN_BYTES]) {
    const XXH128_hash_t h = XXH3_128bits_withSeed(token, PN_TOKEN_BYTES, hello ? 0x68656c6c6f : 0x77656c636f6d65);
    pn_put64(out, h.low64);
    pn_put64(out + 8, h.high64);
}

bool pn_wire_knows(const unsigned char token[PN_TOKEN_BYTES], bool hello, const void *digest) {
    unsigned char mine[PN_TOKEN_BYTES], differ = 0;
    pn_wire_digest(token, hello, mine);
    for (int i = 0; i < PN_TOKEN_BYTES; i++) differ |= mine[i] ^ ((const unsigned char *)digest)[i];
    return !differ; /* takes as long wherever they differ */
}
