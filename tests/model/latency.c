/* The latency table: what is stored is never measured again, what is not a table is refused, and what is measured is
 * what latency.h says. How long things take is not a test's business. */
#include "harness.h"

#include <string.h>
#include <unistd.h>

#include "files.h"
#include "json.h"
#include "latency.h"
#include "latency_measure.h"

static const pn_dims dims = { .hidden = 32,
                              .heads = 2,
                              .kv_heads = 1,
                              .head_dim = 16,
                              .intermediate = 64,
                              .rope_theta = 1e4,
                              .rms_norm_eps = 1e-6,
                              .qkv_bias = true };

static char directory[64], file[96], other[96];

static void setup(void) {
    strcpy(directory, "/tmp/postnas-latency-XXXXXX");
    ck_assert_ptr_nonnull(mkdtemp(directory));
    snprintf(file, sizeof file, "%s/latency.json", directory);
    snprintf(other, sizeof other, "%s/other.json", directory);
}
static void teardown(void) {
    ck_ok(pn_remove_tree(directory));
}

static pn_block_spec spec_of(const pn_block_type *type) {
    pn_block_spec spec;
    ck_ok(pn_block_spec_default(type, &spec));
    if (type == &pn_block_swa)
        ck_ok(pn_option_parse(pn_option_find(type->options, "window_size"), "test", "40", 0, spec.options));
    return spec;
}

static pn_model_config config_of(const pn_block_type *first) {
    pn_model_config c = { .dims = dims, .vocab = 50, .n_layers = 3, .tied = true, .bos = -1, .eos = -1 };
    for (int l = 0; l < c.n_layers; l++) c.layer[l] = spec_of(l ? &pn_block_attention : first);
    return c;
}

static pn_latency_setting setting_of(pn_latency_pass pass, int64_t context) {
    const pn_model_config base = config_of(&pn_block_attention);
    pn_latency_options o;
    pn_latency_setting s;
    ck_ok(pn_options_defaults(pn_latency_option_table, &o));
    o.batch = 2;
    o.chunk = 16;
    o.repeat = 2;
    o.seconds = 0.01;
    ck_ok(pn_latency_setting_of(&o, pass, context, &base, &s));
    return s;
}

static bool same(const pn_timing *a, const pn_timing *b) {
    return a->median == b->median && a->least == b->least && a->most == b->most && a->runs == b->runs;
}

/* Every block that is not an MLP, both passes, a window passed and contexts of one token. */
START_TEST(stored_entries_are_not_measured_again) {
    setup();
    int n;
    const pn_block_type *const *types = pn_block_types(&n);
    pn_latency *t;
    pn_timing first[64], again;
    for (int round = 0; round < 2; round++) {
        int at = 0;
        ck_ok(pn_latency_open(file, NULL, &t));
        for (int i = 0; i < n; i++) {
            const pn_block_spec spec = spec_of(types[i]);
            for (int pass = 0; pass < 4 && types[i] != &pn_block_none; pass++, at++) {
                const pn_latency_setting s = setting_of(pass % 2, pass < 2 ? 100 : 1);
                ck_ok(pn_latency_block(t, &spec, &dims, &s, round ? &again : &first[at]));
                ck_assert(first[at].median > 0 && first[at].least <= first[at].median &&
                          first[at].median <= first[at].most && first[at].runs >= 1);
                if (round) ck_assert(same(&again, &first[at]));
            }
        }
        ck_assert_int_eq(pn_latency_measured(t), round ? 0 : at);
        pn_latency_close(&t);
    }
    teardown();
}
END_TEST

START_TEST(a_measurement_belongs_to_all_of_its_key) {
    pn_latency *t;
    pn_timing x;
    pn_block_spec spec = spec_of(&pn_block_gated_deltanet);
    const pn_latency_setting decode = setting_of(PN_LATENCY_DECODE, 30), prefill = setting_of(PN_LATENCY_PREFILL, 30);
    pn_latency_setting other_batch = decode, other_chunk = prefill, longer = decode;
    other_batch.batch++;
    other_chunk.chunk++;
    longer.context++;
    pn_dims wider = dims;
    wider.hidden *= 2;
    ck_ok(pn_latency_open(NULL, NULL, &t));
    const struct {
        const pn_dims *dims;
        const pn_latency_setting *setting;
    } at[] = { { &dims, &decode },      { &dims, &prefill }, { &dims, &other_batch },
               { &dims, &other_chunk }, { &dims, &longer },  { &wider, &decode } };
    for (int round = 0; round < 2; round++)
        for (int i = 0; i < 6; i++) {
            ck_ok(pn_latency_block(t, &spec, at[i].dims, at[i].setting, &x));
            ck_assert_int_eq(pn_latency_measured(t), round ? 6 : i + 1);
        }
    const pn_option *heads = pn_option_find(spec.type->options, "num_heads");
    ck_ok(pn_option_parse(heads, "test", "2", 0, spec.options)); /* what 0 means here */
    ck_ok(pn_latency_block(t, &spec, &dims, &decode, &x));
    ck_assert_int_eq(pn_latency_measured(t), 6);
    ck_ok(pn_option_parse(heads, "test", "1", 0, spec.options));
    ck_ok(pn_latency_block(t, &spec, &dims, &decode, &x));
    ck_assert_int_eq(pn_latency_measured(t), 7);
    spec = spec_of(&pn_block_none);
    ck_ok(pn_latency_block(t, &spec, &dims, &decode, &x));
    ck_assert(pn_latency_measured(t) == 7 && x.median == 0);
    pn_latency_close(&t);
}
END_TEST

START_TEST(a_prediction_is_the_sum_of_the_parts) {
    const pn_model_config config = config_of(&pn_block_gated_deltanet);
    pn_latency *t;
    for (int pass = 0; pass < 2; pass++) {
        const pn_latency_setting s = setting_of(pass, 50);
        pn_timing all, part[4];
        ck_ok(pn_latency_open(NULL, NULL, &t));
        ck_ok(pn_latency_predict(t, &config, &s, &all));
        ck_assert_int_eq(pn_latency_measured(t), 4); /* two mixers, the rest of a layer, the ends */
        ck_ok(pn_latency_block(t, &config.layer[0], &dims, &s, &part[0]));
        ck_ok(pn_latency_block(t, &config.layer[1], &dims, &s, &part[1]));
        ck_ok(pn_latency_rest(t, &dims, &s, &part[2]));
        ck_ok(pn_latency_ends(t, &dims, config.vocab, &s, &part[3]));
        ck_assert_int_eq(pn_latency_measured(t), 4);
        double sum = part[0].median + 2 * part[1].median + 3 * part[2].median + part[3].median;
        ck_assert_double_eq_tol(all.median, sum, 1e-12 * sum);
        pn_latency_close(&t);
    }
}
END_TEST

START_TEST(a_run_starts_from_the_table_of_another) {
    setup();
    const pn_block_spec spec = spec_of(&pn_block_attention);
    const pn_latency_setting s = setting_of(PN_LATENCY_DECODE, 20), longer = setting_of(PN_LATENCY_DECODE, 21);
    pn_latency *t;
    pn_timing first, x;
    ck_ok(pn_latency_open(other, NULL, &t));
    ck_ok(pn_latency_block(t, &spec, &dims, &s, &first));
    pn_latency_close(&t);
    ck_ok(pn_latency_open(file, other, &t));
    ck_assert(pn_file_exists(file));
    ck_ok(pn_latency_block(t, &spec, &dims, &s, &x));
    ck_assert(same(&first, &x) && !pn_latency_measured(t));
    pn_latency_freeze(t);
    ck_assert_int_eq(pn_latency_block(t, &spec, &dims, &longer, &x), PN_USAGE);
    ck_assert_ptr_nonnull(strstr(pn_error_message(), "attention at a context of 21 tokens"));
    pn_latency_close(&t);
    ck_ok(pn_remove_tree(other)); /* it went over */
    ck_ok(pn_latency_open(file, other, &t));
    ck_ok(pn_latency_block(t, &spec, &dims, &s, &x));
    ck_assert(same(&first, &x) && !pn_latency_measured(t));
    pn_latency_close(&t);
    teardown();
}
END_TEST

#define HEAD  "{\"format\": \"postnas latency table\", \"version\": 1, \"entries\": "
#define TIMES "\"seconds\": 2, \"least\": 1, \"most\": 3, \"runs\": 4"

START_TEST(what_is_no_table_is_refused) {
    static const struct {
        const char *text, *message;
    } at[] = {
        { "", "latency.json:1" },
        { "[]", "latency.json: format is missing" },
        { "{\"format\": \"another\"}", "format is \"another\", not \"postnas latency table\"" },
        { "{\"format\": \"postnas latency table\", \"version\": 2, \"entries\": []}",
          "version must be a whole number in 1 .. 1, but is 2" },
        { HEAD "7}", "entries must be" },
        { HEAD "[{\"key\": 3}]}", "entries.0.key must be" },
        { HEAD "[3]}", "entries.0.key is missing" },
        { HEAD "[{" TIMES "}]}", "entries.0.key is missing" },
        { HEAD "[{" TIMES ", \"key\": {}}, {" TIMES ", \"key\": {}}]}", "entries.1.key is that of an entry before" },
        { HEAD "[{\"seconds\": \"2\", \"key\": {}}]}", "entries.0.seconds must be" },
        { HEAD "[{\"seconds\": -2, \"least\": 1, \"most\": 3, \"runs\": 4, \"key\": {}}]}",
          "entries.0.seconds must be" },
        { HEAD "[{\"seconds\": 0, \"least\": 0, \"most\": 3, \"runs\": 4, \"key\": {}}]}",
          "entries.0.seconds must be" },
        { HEAD "[{\"seconds\": 1e300, \"least\": 1, \"most\": 3, \"runs\": 4, \"key\": {}}]}",
          "entries.0.seconds must be" },
        { HEAD "[{\"seconds\": 2, \"least\": 3, \"most\": 3, \"runs\": 4, \"key\": {}}]}", "entries.0.least must be" },
        { HEAD "[{\"seconds\": 2, \"least\": 1, \"most\": 1, \"runs\": 4, \"key\": {}}]}", "entries.0.most must be" },
        { HEAD "[{\"seconds\": 2, \"least\": 1, \"most\": 3, \"runs\": 0, \"key\": {}}]}", "entries.0.runs must be" },
        { HEAD "[{\"seconds\": 2, \"least\": 1, \"most\": 3, \"key\": {}}]}", "entries.0.runs is missing" },
    };
    setup();
    for (size_t i = 0; i < sizeof at / sizeof *at; i++) {
        pn_latency *t = NULL;
        ck_ok(pn_file_write(file, at[i].text, strlen(at[i].text)));
        for (int as_start = 0; as_start < 2; as_start++) {
            ck_assert_int_eq(pn_latency_open(as_start ? other : file, file, &t), PN_FORMAT);
            ck_assert_msg(strstr(pn_error_message(), at[i].message), "%s: %s", at[i].text, pn_error_message());
            ck_assert(!t && !pn_file_exists(other));
        }
    }
    pn_latency *t = NULL;
    ck_ok(pn_remove_tree(file));
    ck_assert_int_eq(pn_latency_open(other, file, &t), PN_IO);
    teardown();
}
END_TEST

/* Where a piece costs a constant and what it looks back on, up to a window, the pieces measured give the whole sum. */
START_TEST(pieces_add_up_to_the_prompt) {
    for (int64_t context = 1; context <= 5000; context += context < 300 ? 1 : 97) {
        pn_latency_piece piece[PN_LATENCY_PIECES];
        const int64_t chunk = 16, windows[] = { 0, 64, 1 << 30 };
        int n = pn_latency_pieces(context, chunk, piece);
        ck_assert_int_le(n, 12);
        ck_assert_int_eq(piece[n - 1].past + piece[n - 1].tokens, context);
        for (int w = 0; w < 3; w++) {
            double expected = 0, sum = 0;
            for (int64_t past = 0; past < context; past += chunk) {
                int64_t tokens = context - past < chunk ? context - past : chunk;
                expected += (double)tokens * (7 + (double)(past < windows[w] ? past : windows[w]));
            }
            for (int i = 0; i < n; i++)
                sum += piece[i].weight * (double)piece[i].tokens *
                       (7 + (double)(piece[i].past < windows[w] ? piece[i].past : windows[w]));
            ck_assert_double_eq_tol(sum, expected, 1e-9 * expected);
        }
    }
}
END_TEST

/* A state that assumes a past is the one that the past leaves, had it left zeros. */
START_TEST(an_assumed_past_is_one_of_zeros) {
    enum { PAST = 150, NEW = 5 };
    int n;
    const pn_block_type *const *types = pn_block_types(&n);
    for (int i = 0; i < n; i++) {
        const pn_block_spec spec = spec_of(types[i]);
        pn_params *params;
        pn_block *block;
        pn_tape *t;
        pn_tensor *past, *x, *y[2];
        pn_state *state[2];
        pn_carry carry = { 0 };
        const int64_t before[] = { 0, PAST }, after[] = { 0, NEW };
        const pn_docs first = { .n = 1, .offset = before }, next = { .n = 1, .offset = after };
        ck_ok(pn_params_create(PN_F32, &params));
        ck_ok(pn_block_create(&spec, &dims, params, "", &block));
        pn_params_init(params, 1);
        ck_ok(pn_tape_create(PN_CPU, &t));
        pn_tape_record(t, false);
        ck_ok(pn_tape_new(t, PN_F32, 2, (int64_t[]){ PAST, dims.hidden }, &past));
        ck_ok(pn_tape_new(t, PN_F32, 2, (int64_t[]){ NEW, dims.hidden }, &x));
        for (int64_t k = 0; k < PAST * dims.hidden; k++) pn_f32(past)[k] = (float)(k % 11) / 5 - 1;
        for (int64_t k = 0; k < NEW * dims.hidden; k++) pn_f32(x)[k] = (float)(k % 7) / 3 - 1;
        for (int k = 0; k < 2; k++) ck_ok(pn_state_create(block, 1, params->pool, PN_F32, &state[k]));
        ck_ok(pn_block_extend(block, t, past, &first, state[0], &carry, &y[0]));
        for (int k = 0; k < state[0]->n_tensors; k++) pn_tensor_fill_zero(state[0]->tensor[k]);
        pn_state_assume_past(state[1], PAST);
        for (int k = 0; k < 2; k++) {
            carry = (pn_carry){ 0 };
            ck_ok(pn_block_extend(block, t, x, &next, state[k], &carry, &y[k]));
        }
        ck_assert_msg(!memcmp(pn_f32(y[0]), pn_f32(y[1]), pn_tensor_bytes(y[0])), "%s", types[i]->name);
        ck_assert_int_eq(state[1]->past[0], PAST + NEW);
        for (int k = 0; k < 2; k++) pn_state_destroy(&state[k]);
        pn_tape_destroy(&t);
        pn_block_destroy(&block);
        pn_params_destroy(&params);
    }
}
END_TEST

START_TEST(a_whole_model_is_measured) {
    pn_model *m;
    int choice;
    const pn_model_config config = config_of(&pn_block_swa);
    const pn_block_spec gdn = spec_of(&pn_block_gated_deltanet);
    ck_ok(pn_model_create(&config, PN_F32, NULL, &m));
    pn_params_init(m->params, 1);
    ck_ok(pn_model_add_candidate(m, 1, &gdn, &choice));
    const pn_path path = { .n = 3, .choice = { 0, (uint8_t)choice, 0 } };
    for (int pass = 0; pass < 4; pass++) {
        const pn_latency_setting s = setting_of(pass % 2, 100);
        pn_timing x;
        ck_ok(pn_latency_model(m, pass < 2 ? &path : NULL, &s, &x));
        ck_assert(x.median > 0 && x.least <= x.median && x.median <= x.most && x.runs >= 1);
        ck_assert_double_eq(pn_latency_tokens(&s), pass % 2 ? 100 : 2);
    }
    pn_model_destroy(&m);
}
END_TEST

START_TEST(a_context_beyond_the_memory_is_refused) {
    const pn_block_spec spec = spec_of(&pn_block_attention);
    const pn_latency_setting s = setting_of(PN_LATENCY_DECODE, (int64_t)1 << 46);
    pn_latency *t;
    pn_timing x;
    ck_ok(pn_latency_open(NULL, NULL, &t));
    ck_assert_int_eq(pn_latency_block(t, &spec, &dims, &s, &x), PN_USAGE);
    ck_assert_ptr_nonnull(strstr(pn_error_message(), "this machine has"));
    pn_latency_close(&t);
}
END_TEST

TEST_MAIN("latency", stored_entries_are_not_measured_again, a_measurement_belongs_to_all_of_its_key,
          a_prediction_is_the_sum_of_the_parts, a_run_starts_from_the_table_of_another, what_is_no_table_is_refused,
          pieces_add_up_to_the_prompt, an_assumed_past_is_one_of_zeros, a_whole_model_is_measured,
          a_context_beyond_the_memory_is_refused)
