#include "packs.h"

const pn_pack pn_packs[PN_PACKS] = {
    { "T1", { 1, (const int64_t[]){ 0, 1 }, NULL, 0 } },
    { "T2", { 1, (const int64_t[]){ 0, 2 }, NULL, 0 } },
    { "T5", { 1, (const int64_t[]){ 0, 5 }, NULL, 0 } },
    { "T63", { 1, (const int64_t[]){ 0, 63 }, NULL, 0 } },
    { "T64", { 1, (const int64_t[]){ 0, 64 }, NULL, 0 } },
    { "T65", { 1, (const int64_t[]){ 0, 65 }, NULL, 0 } },
    { "T1000", { 1, (const int64_t[]){ 0, 1000 }, NULL, 0 } },
    { "T4097", { 1, (const int64_t[]){ 0, 4097 }, NULL, 0 } },
    { "docs 1 3 64 67 130", { 5, (const int64_t[]){ 0, 1, 4, 68, 135, 265 }, NULL, 0 } },
    { "docs 15 16 17 31 33", { 5, (const int64_t[]){ 0, 15, 31, 48, 79, 112 }, NULL, 0 } },
    { "docs 3 0 1 2", { 4, (const int64_t[]){ 0, 3, 3, 4, 6 }, NULL, 0 } },
    { "docs 1 1 1", { 3, (const int64_t[]){ 0, 1, 2, 3 }, NULL, 0 } },
    { "docs 64 6", { 2, (const int64_t[]){ 0, 64, 70 }, NULL, 0 } },
    { "docs 0 0", { 2, (const int64_t[]){ 0, 0, 0 }, NULL, 0 } },
    { "docs 66 5", { 2, (const int64_t[]){ 0, 66, 71 }, NULL, 0 } },
};
