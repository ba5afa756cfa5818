#include "packs.h"

const pn_pack pn_packs[PN_PACKS] = {
    { "T1", { 1, (const int64_t[]){ 0, 1 }, NULL } },
    { "T2", { 1, (const int64_t[]){ 0, 2 }, NULL } },
    { "T5", { 1, (const int64_t[]){ 0, 5 }, NULL } },
    { "T63", { 1, (const int64_t[]){ 0, 63 }, NULL } },
    { "T64", { 1, (const int64_t[]){ 0, 64 }, NULL } },
    { "T65", { 1, (const int64_t[]){ 0, 65 }, NULL } },
    { "T1000", { 1, (const int64_t[]){ 0, 1000 }, NULL } },
    { "T4097", { 1, (const int64_t[]){ 0, 4097 }, NULL } },
    { "docs 1 3 64 67 130", { 5, (const int64_t[]){ 0, 1, 4, 68, 135, 265 }, NULL } },
    { "docs 15 16 17 31 33", { 5, (const int64_t[]){ 0, 15, 31, 48, 79, 112 }, NULL } },
    { "docs 3 0 1 2", { 4, (const int64_t[]){ 0, 3, 3, 4, 6 }, NULL } },
    { "docs 1 1 1", { 3, (const int64_t[]){ 0, 1, 2, 3 }, NULL } },
    { "docs 64 6", { 2, (const int64_t[]){ 0, 64, 70 }, NULL } },
    { "docs 0 0", { 2, (const int64_t[]){ 0, 0, 0 }, NULL } },
    { "docs 66 5", { 2, (const int64_t[]){ 0, 66, 71 }, NULL } },
};
