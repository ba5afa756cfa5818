/* Every product below is exact in float32 (an f16 scale has 11 bits, the integers it meets at most 12 together), so
 * each value is rounded once at most and contraction into fused multiply-adds changes nothing. */
#include "gguf_quant.h"

#include <string.h>

static float f16(const uint8_t *p) {
    uint16_t h = (uint16_t)(p[0] | p[1] << 8);
    float f;
    pn_convert(&f, PN_F32, &h, PN_F16, 1);
    return f;
}

/* ---- blocks of 32: byte j holds value j in its low bits and value j + 16 in its high bits ---- */

/* f16 d, 4 bits q: d (q - 8) */
static void q4_0(const uint8_t *b, int64_t n, float *out) {
    for (; n > 0; n--, b += 18, out += 32) {
        float d = f16(b);
        const uint8_t *q = b + 2;
        for (int j = 0; j < 16; j++) {
            out[j] = d * (float)((q[j] & 15) - 8);
            out[j + 16] = d * (float)((q[j] >> 4) - 8);
        }
    }
}

/* f16 d, f16 m, 4 bits q: d q + m */
static void q4_1(const uint8_t *b, int64_t n, float *out) {
    for (; n > 0; n--, b += 20, out += 32) {
        float d = f16(b), m = f16(b + 2);
        const uint8_t *q = b + 4;
        for (int j = 0; j < 16; j++) {
            out[j] = d * (float)(q[j] & 15) + m;
            out[j + 16] = d * (float)(q[j] >> 4) + m;
        }
    }
}

static uint32_t u32(const uint8_t *p) {
    return (uint32_t)p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
}

/* f16 d, 32 fifth bits, 4 bits q: d (q - 16) */
static void q5_0(const uint8_t *b, int64_t n, float *out) {
    for (; n > 0; n--, b += 22, out += 32) {
        float d = f16(b);
        uint32_t high = u32(b + 2);
        const uint8_t *q = b + 6;
        for (int j = 0; j < 16; j++) {
            out[j] = d * (float)((int)((q[j] & 15) | (high >> j & 1) << 4) - 16);
            out[j + 16] = d * (float)((int)((q[j] >> 4) | (high >> (j + 16) & 1) << 4) - 16);
        }
    }
}

/* f16 d, f16 m, 32 fifth bits, 4 bits q: d q + m */
static void q5_1(const uint8_t *b, int64_t n, float *out) {
    for (; n > 0; n--, b += 24, out += 32) {
        float d = f16(b), m = f16(b + 2);
        uint32_t high = u32(b + 4);
        const uint8_t *q = b + 8;
        for (int j = 0; j < 16; j++) {
            out[j] = d * (float)((q[j] & 15) | (high >> j & 1) << 4) + m;
            out[j + 16] = d * (float)((q[j] >> 4) | (high >> (j + 16) & 1) << 4) + m;
        }
    }
}

/* f16 d, 8 bits q: d q */
static void q8_0(const uint8_t *b, int64_t n, float *out) {
    for (; n > 0; n--, b += 34, out += 32) {
        float d = f16(b);
        for (int j = 0; j < 32; j++) out[j] = d * (float)(int8_t)b[2 + j];
    }
}

/* ---- blocks of 256, in groups of 16 or 32 values that have a scale of their own ---- */

/* 16 bytes of 4-bit scale and offset, 64 bytes of 2-bit q, f16 d, f16 m: d scale q - m offset.
 * Bits 2j of byte l of half h are value 128 h + 32 j + l. */
static void q2_k(const uint8_t *b, int64_t n, float *out) {
    for (; n > 0; n--, b += 84, out += 256) {
        float d = f16(b + 80), m = f16(b + 82);
        for (int i = 0; i < 256; i++) {
            int half = i / 128, j = i % 128 / 32, l = i % 32, scale = b[i / 16];
            int q = b[16 + 32 * half + l] >> (2 * j) & 3;
            out[i] = d * (float)(scale & 15) * (float)q - m * (float)(scale >> 4);
        }
    }
}

/* 32 bytes of third bits, 64 bytes of 2-bit q, 12 bytes of sixteen 6-bit scales, f16 d: d (scale - 32) (q - 4). */
static void q3_k(const uint8_t *b, int64_t n, float *out) {
    for (; n > 0; n--, b += 110, out += 256) {
        float d = f16(b + 108);
        float scale[16];
        for (int g = 0; g < 16; g++) {
            int low = b[96 + g % 8] >> (g / 8 * 4) & 15, high = b[104 + g % 4] >> (g / 4 * 2) & 3;
            scale[g] = d * (float)((low | high << 4) - 32);
        }
        for (int i = 0; i < 256; i++) {
            int half = i / 128, j = i % 128 / 32, l = i % 32;
            int q = (b[32 + 32 * half + l] >> (2 * j) & 3) | (b[l] >> (4 * half + j) & 1) << 2;
            out[i] = scale[i / 16] * (float)(q - 4);
        }
    }
}

/* Eight 6-bit scales and eight 6-bit offsets in 12 bytes: the first four of each are whole in bytes 0-3 and 4-7, whose
 * two top bits complete the nibbles of bytes 8-11. */
static void scales_6bit(const uint8_t *s, int g, int *scale, int *offset) {
    if (g < 4) {
        *scale = s[g] & 63;
        *offset = s[g + 4] & 63;
    } else {
        *scale = (s[g + 4] & 15) | (s[g - 4] >> 6) << 4;
        *offset = (s[g + 4] >> 4) | (s[g] >> 6) << 4;
    }
}

/* f16 d, f16 m, 12 bytes of scales, 128 bytes of 4-bit q: d scale q - m offset.
 * Byte l of quarter c holds value l of group 2c in its low bits and of group 2c + 1 in its high bits. */
static void q4_k(const uint8_t *b, int64_t n, float *out) {
    for (; n > 0; n--, b += 144, out += 256) {
        float d = f16(b), m = f16(b + 2);
        for (int g = 0; g < 8; g++) {
            int scale, offset;
            scales_6bit(b + 4, g, &scale, &offset);
            float ds = d * (float)scale, mo = m * (float)offset;
            const uint8_t *q = b + 16 + 32 * (g / 2);
            for (int l = 0; l < 32; l++) out[32 * g + l] = ds * (float)(q[l] >> (4 * (g % 2)) & 15) - mo;
        }
    }
}

/* The same with 32 bytes of fifth bits before q: bit g of byte l belongs to value l of group g. */
static void q5_k(const uint8_t *b, int64_t n, float *out) {
    for (; n > 0; n--, b += 176, out += 256) {
        float d = f16(b), m = f16(b + 2);
        for (int g = 0; g < 8; g++) {
            int scale, offset;
            scales_6bit(b + 4, g, &scale, &offset);
            float ds = d * (float)scale, mo = m * (float)offset;
            const uint8_t *high = b + 16, *q = b + 48 + 32 * (g / 2);
            for (int l = 0; l < 32; l++)
                out[32 * g + l] = ds * (float)((q[l] >> (4 * (g % 2)) & 15) | (high[l] >> g & 1) << 4) - mo;
        }
    }
}

/* 128 bytes of 4 low bits, 64 bytes of 2 high bits, sixteen 8-bit scales, f16 d: d scale (q - 32). In each half, byte l
 * of 64 holds values l and l + 64 in its low and high bits; the high bits are laid out as in q2_k. */
static void q6_k(const uint8_t *b, int64_t n, float *out) {
    for (; n > 0; n--, b += 210, out += 256) {
        float d = f16(b + 208);
        for (int i = 0; i < 256; i++) {
            int half = i / 128, k = i % 128;
            int low = b[64 * half + k % 64] >> (k / 64 * 4) & 15;
            int high = b[128 + 32 * half + k % 32] >> (k / 32 * 2) & 3;
            out[i] = d * (float)(int8_t)b[192 + i / 16] * (float)((low | high << 4) - 32);
        }
    }
}

/* By ggml's numbers. Types without to_f32 or dtype have a known size but no reader here. */
static const pn_gguf_type types[] = {
    [0] = { "F32", 1, 4, PN_F32, NULL },
    [1] = { "F16", 1, 2, PN_F16, NULL },
    [2] = { "Q4_0", 32, 18, PN_DTYPES, q4_0 },
    [3] = { "Q4_1", 32, 20, PN_DTYPES, q4_1 },
    [6] = { "Q5_0", 32, 22, PN_DTYPES, q5_0 },
    [7] = { "Q5_1", 32, 24, PN_DTYPES, q5_1 },
    [8] = { "Q8_0", 32, 34, PN_DTYPES, q8_0 },
    [10] = { "Q2_K", 256, 84, PN_DTYPES, q2_k },
    [11] = { "Q3_K", 256, 110, PN_DTYPES, q3_k },
    [12] = { "Q4_K", 256, 144, PN_DTYPES, q4_k },
    [13] = { "Q5_K", 256, 176, PN_DTYPES, q5_k },
    [14] = { "Q6_K", 256, 210, PN_DTYPES, q6_k },
    [15] = { "Q8_K", 256, 292, PN_DTYPES, NULL },
    [16] = { "IQ2_XXS", 256, 66, PN_DTYPES, NULL },
    [17] = { "IQ2_XS", 256, 74, PN_DTYPES, NULL },
    [18] = { "IQ3_XXS", 256, 98, PN_DTYPES, NULL },
    [19] = { "IQ1_S", 256, 50, PN_DTYPES, NULL },
    [20] = { "IQ4_NL", 32, 18, PN_DTYPES, NULL },
    [21] = { "IQ3_S", 256, 110, PN_DTYPES, NULL },
    [22] = { "IQ2_S", 256, 82, PN_DTYPES, NULL },
    [23] = { "IQ4_XS", 256, 136, PN_DTYPES, NULL },
    [24] = { "I8", 1, 1, PN_DTYPES, NULL },
    [25] = { "I16", 1, 2, PN_DTYPES, NULL },
    [26] = { "I32", 1, 4, PN_I32, NULL },
    [27] = { "I64", 1, 8, PN_I64, NULL },
    [28] = { "F64", 1, 8, PN_F64, NULL },
    [29] = { "IQ1_M", 256, 56, PN_DTYPES, NULL },
    [30] = { "BF16", 1, 2, PN_BF16, NULL },
    [34] = { "TQ1_0", 256, 54, PN_DTYPES, NULL },
    [35] = { "TQ2_0", 256, 66, PN_DTYPES, NULL },
    [39] = { "MXFP4", 32, 17, PN_DTYPES, NULL },
    [40] = { "NVFP4", 64, 36, PN_DTYPES, NULL },
    [41] = { "Q1_0", 128, 18, PN_DTYPES, NULL },
};

const pn_gguf_type *pn_gguf_type_of(uint32_t id) {
    return id < sizeof types / sizeof *types && types[id].name ? &types[id] : NULL;
}
