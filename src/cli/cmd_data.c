#include <stdlib.h>
#include <string.h>

#include <xxhash.h>

#include "args.h"
#include "corpus.h"
#include "log.h"

/* ---- what was written ---- */

static void print_split(const char *name, int64_t n_docs, int64_t n_tokens) {
    printf("  %-8s %12lld documents  %14lld tokens\n", name, (long long)n_docs, (long long)n_tokens);
}

/* Closes the corpus and says what is in it and how to use it. */
static pn_status finish(pn_corpus **c, const char *dir) {
    int64_t docs[PN_SPLITS], tokens[PN_SPLITS];
    for (int i = 0; i < PN_SPLITS; i++) {
        docs[i] = pn_corpus_docs(*c, (pn_split)i);
        tokens[i] = pn_corpus_tokens(*c, (pn_split)i);
    }
    PN_TRY(pn_corpus_close(c));
    printf("%s\n", dir);
    for (int i = 0; i < PN_SPLITS; i++)
        if (docs[i]) print_split(pn_split_names[i], docs[i], tokens[i]);
    printf("in a configuration:  mixture: [{ shards: [%s], weight: 1 }]\n", dir);
    return PN_OK;
}

static pn_status need(const pn_args *args, const char *name, const char *why, const char **out) {
    *out = pn_args_value(args, name);
    PN_CHECK(*out, PN_USAGE, "postnas data: --%s is missing; %s", name, why);
    return PN_OK;
}

/* ---- text ---- */

static pn_status word(const pn_args *args, const char *name, const char *const *words, int *out) {
    const char *value = pn_args_value(args, name);
    int n = 0;
    while (words[n]) n++;
    for (*out = 0; *out < n; ++*out)
        if (!strcmp(words[*out], value)) return PN_OK;
    char all[256] = "";
    for (int i = 0; i < n; i++) {
        const size_t len = strlen(all);
        snprintf(all + len, sizeof all - len, "%s%s", i ? ", " : "", words[i]);
    }
    PN_FAIL(PN_USAGE, "postnas data: --%s is %s; it must be one of: %s", name, value, all);
}

/* "jsonl: a.jsonl and 3 more": names without their folders, so that equal input gives equal files. */
static void describe(const pn_args *args, int format, char *out, size_t room) {
    const char *slash = strrchr(args->operand[0], '/'), *first = slash ? slash + 1 : args->operand[0];
    const char *safe = pn_text_is_utf8(first, strlen(first), NULL) ? first : "a file";
    if (args->n_operands > 1)
        snprintf(out, room, "%s: %.128s and %d more", pn_text_format_names[format], safe, args->n_operands - 1);
    else
        snprintf(out, room, "%s: %.128s", pn_text_format_names[format], safe);
}

static pn_status add_text(const pn_args *args, const pn_text_source_config *source_config, const pn_corpus_text *how,
                          pn_corpus_config *config) {
    pn_text_source *source;
    pn_corpus *c = NULL;
    PN_TRY(pn_text_source_open(source_config, &source));
    const uint64_t identity[] = { pn_text_source_hash(source), pn_tokenizer_hash(config->tokenizer),
                                  (uint64_t)how->split,        (uint64_t)how->heldout_every,
                                  (uint64_t)how->search_every, (uint64_t)config->shard_tokens };
    config->identity = XXH3_64bits(identity, sizeof identity);
    pn_status s;
    PN_TRY_GOTO(s, pn_corpus_open(config, &c), done);
    PN_TRY_GOTO(s, pn_corpus_add_text(c, source, how), done);
    if (how->heldout_every && !pn_corpus_docs(c, PN_SPLIT_HELDOUT))
        pn_warn("no document was held out: there are fewer than %lld; try another --format",
                (long long)how->heldout_every);
    PN_TRY_GOTO(s, finish(&c, config->dir), done);
    if (pn_text_source_blanks(source) && !pn_args_has(args, "quiet"))
        printf("%lld blank documents were left out\n", (long long)pn_text_source_blanks(source));
done:
    pn_corpus_abort(&c);
    pn_text_source_close(&source);
    return s;
}

static pn_status run_text(const pn_args *args, const pn_tokenizer *tokenizer, pn_corpus_config *config) {
    int format, split;
    char source[256];
    pn_corpus_text how = { 0 };
    PN_CHECK(args->n_operands > 0, PN_USAGE,
             "postnas data: no input; name text files, or give --skills to generate documents");
    PN_CHECK(!pn_args_has(args, "config") && !pn_args_has(args, "set"), PN_USAGE,
             "postnas data: --config and --set go with --skills; for text files everything is an option");
    PN_TRY(word(args, "format", pn_text_format_names, &format));
    PN_TRY(word(args, "split", pn_split_names, &split));
    PN_TRY(pn_args_i64(args, "heldout-every", 2, INT64_MAX, &how.heldout_every));
    PN_TRY(pn_args_i64(args, "search-every", 2, INT64_MAX, &how.search_every));
    PN_CHECK(!pn_args_has(args, "field") || format == PN_TEXT_JSONL, PN_USAGE,
             "postnas data: --field goes with --format jsonl");
    how.split = (pn_split)split;
    describe(args, format, source, sizeof source);
    config->source = source;
    config->tokenizer = tokenizer;
    return add_text(args,
                    &(pn_text_source_config){ .files = (const char *const *)args->operand,
                                              .n_files = args->n_operands,
                                              .format = (pn_text_format)format,
                                              .field = pn_args_value(args, "field"),
                                              .repair = pn_args_has(args, "repair") },
                    &how, config);
}

/* ---- skills ---- */

typedef struct data_keys {
    int64_t seed, sequence_length, documents[PN_SPLITS];
} data_keys;

static const pn_option data_table[] = {
    PN_OPT_INT(data_keys, seed, 1, 0, 9e15, "what documents are drawn from"),
    PN_OPT_INT(data_keys, sequence_length, 256, 2, 1 << 24, "tokens that the longest document may have"),
    { .name = "train_documents",
      .kind = PN_OPTION_INT,
      .offset = offsetof(data_keys, documents[PN_SPLIT_TRAIN]),
      .def = "10000",
      .min = 0,
      .max = 1e12,
      .help = "documents to train with" },
    { .name = "search_documents",
      .kind = PN_OPTION_INT,
      .offset = offsetof(data_keys, documents[PN_SPLIT_SEARCH]),
      .def = "500",
      .min = 0,
      .max = 1e12,
      .help = "documents that a search may look at" },
    { .name = "heldout_documents",
      .kind = PN_OPTION_INT,
      .offset = offsetof(data_keys, documents[PN_SPLIT_HELDOUT]),
      .def = "500",
      .min = 0,
      .max = 1e12,
      .help = "documents kept for the last measurement" },
    PN_OPT_SECTION("mixture", "list: a skill each, with its weight and its options"),
    PN_OPT_END,
};

static const pn_config_section sections[] = {
    { .path = "data", .table = data_table },
    { .path = "data.mixture[]", .table = pn_mixture_keys },
    { .path = "data.mixture[]", .kind = "skills" },
    { .path = NULL },
};

static pn_status write_skills(pn_corpus *c, pn_mixture *m, const data_keys *keys) {
    for (int i = 0; i < PN_SPLITS; i++) PN_TRY(pn_corpus_add_skills(c, m, (pn_split)i, keys->documents[i]));
    return PN_OK;
}

static pn_status with_config(const pn_tokenizer *tokenizer, pn_config *yaml, pn_corpus_config *config) {
    data_keys keys;
    pn_mixture *m = NULL;
    pn_corpus *c = NULL;
    PN_TRY(pn_config_read(yaml, "data", data_table, &keys));
    const pn_mixture_config base = { .tokenizer = tokenizer,
                                     .frame = pn_doc_frame_default(tokenizer),
                                     .sequence_length = keys.sequence_length,
                                     .seed = (uint64_t)keys.seed };
    pn_status s;
    PN_TRY_GOTO(s, pn_mixture_read(yaml, "data.mixture", &base, &m), done);
    PN_TRY_GOTO(s, pn_config_finish(yaml), done);
    config->source = "skills";
    config->seed = (uint64_t)keys.seed;
    config->skills = true;
    config->tokenizer = tokenizer;
    const uint64_t identity[] = { pn_mixture_hash(m), pn_tokenizer_hash(tokenizer), (uint64_t)config->shard_tokens };
    config->identity = XXH3_64bits_withSeed(identity, sizeof identity, XXH3_64bits(&keys, sizeof keys));
    PN_TRY_GOTO(s, pn_corpus_open(config, &c), done);
    PN_TRY_GOTO(s, write_skills(c, m, &keys), done);
    PN_TRY_GOTO(s, finish(&c, config->dir), done);
    pn_mixture_print(m, PN_SPLIT_TRAIN, stdout);
done:
    pn_corpus_abort(&c);
    pn_mixture_destroy(&m);
    return s;
}

static pn_status run_skills(const pn_args *args, const pn_tokenizer *tokenizer, pn_corpus_config *config) {
    static const char *const for_text[] = { "format", "field", "split", "heldout-every", "search-every", "repair" };
    for (size_t i = 0; i < sizeof for_text / sizeof *for_text; i++)
        PN_CHECK(!pn_args_has(args, for_text[i]), PN_USAGE, "postnas data: --%s is for text files, not for --skills",
                 for_text[i]);
    PN_CHECK(args->n_operands == 0, PN_USAGE, "postnas data: --skills reads no files; leave out %s", args->operand[0]);
    pn_config *yaml;
    PN_TRY(pn_args_config(args, &yaml));
    pn_status s = with_config(tokenizer, yaml, config);
    pn_config_destroy(&yaml);
    return s;
}

/* ---- check ---- */

static pn_status check(const char *dir) {
    pn_token_set *set;
    PN_TRY(pn_token_set_open(dir, &set));
    pn_status s = pn_token_set_verify(set);
    const pn_token_info *info = pn_token_set_info(set);
    if (!s) {
        printf("%s\n", dir);
        print_split(info->split, info->n_docs, info->n_tokens);
        printf("  %lld shards, vocabulary %lld, tokenizer %016llx, %lld answers, from %s: all good\n",
               (long long)info->n_shards, (long long)info->vocab, (unsigned long long)info->tokenizer_hash,
               (long long)info->n_answers, info->source);
    }
    pn_token_set_close(&set);
    return s;
}

/* ---- the command ---- */

static pn_status run(const pn_args *args) {
    const char *tokenizer_dir;
    pn_corpus_config config = { 0 };
    if (pn_args_has(args, "check")) {
        PN_CHECK(args->n_operands == 0 && !pn_args_has(args, "tokenizer") && !pn_args_has(args, "out"), PN_USAGE,
                 "postnas data: --check only looks at a set; leave out what is for writing one");
        return check(pn_args_value(args, "check"));
    }
    PN_TRY(need(args, "tokenizer", "name the model's directory, or its tokenizer.json", &tokenizer_dir));
    PN_TRY(need(args, "out", "name a new directory for the token shards", &config.dir));
    PN_TRY(pn_args_i64(args, "shard-tokens", 1, INT64_C(1) << 40, &config.shard_tokens));
    pn_tokenizer *tokenizer;
    PN_TRY(pn_tokenizer_open(tokenizer_dir, &tokenizer));
    pn_status s =
        pn_args_has(args, "skills") ? run_skills(args, tokenizer, &config) : run_text(args, tokenizer, &config);
    pn_tokenizer_destroy(&tokenizer);
    return s;
}

static const pn_flag flags[] = {
    { .name = "tokenizer", .value = "DIR", .help = "model directory whose tokenizer.json to use" },
    { .name = "out", .letter = 'o', .value = "DIR", .help = "new directory for the token shards" },
    { .name = "format",
      .letter = 'f',
      .value = "FORMAT",
      .help = "text (a file is a document), paragraphs, pages (form feeds), or jsonl",
      .def = "text" },
    { .name = "field", .value = "NAME", .help = "jsonl: the field that holds the text", .def = "text" },
    { .name = "split", .value = "NAME", .help = "what the files are for: train, search or heldout", .def = "train" },
    { .name = "heldout-every", .value = "N", .help = "hold out one of N documents; without it, none" },
    { .name = "search-every",
      .value = "N",
      .help = "keep one of N documents for the search to look at; without it, none" },
    { .name = "shard-tokens", .value = "N", .help = "tokens per shard", .def = "67108864" },
    { .name = "repair", .help = "replace bytes that are not UTF-8 instead of stopping" },
    { .name = "skills", .help = "generate documents with known answers, as the configuration says" },
    PN_FLAG_CONFIG,
    PN_FLAG_SET,
    { .name = "check", .value = "DIR", .help = "verify every shard of a set: size, hash, checksums, ids" },
    PN_FLAG_END,
};

const pn_command pn_cmd_data = {
    .name = "data",
    .summary = "text, JSONL or generated skills to token shards",
    .usage = "--tokenizer DIR --out DIR [--format FORMAT] FILE... | --skills --config FILE | --check DIR",
    .help =
        "Encodes documents with a model's tokenizer and writes them as token shards: DIR/train, and DIR/search and\n"
        "DIR/heldout where documents are kept for them. A training, search or evaluation configuration then names\n"
        "DIR. Files may be gzip. Nothing is left behind when something is wrong with the input; the same input\n"
        "gives the same files. Stopped with Ctrl-C or killed, the same command goes on where it was.\n"
        "\n"
        "    postnas data --tokenizer models/qwen --out data/web --format jsonl --heldout-every 100 web.jsonl.gz\n"
        "    postnas data --tokenizer models/qwen --out data/books --format text books/*.txt\n"
        "\n"
        "With --skills, documents are generated: associative recall, copying, facts, arithmetic, plain text\n"
        "(`postnas list skills`). Their answers are known, so that what a model can do is measured exactly, and\n"
        "training and held-out documents never coincide.\n"
        "\n"
        "    postnas data --tokenizer models/tiny --out data/skills --skills --config skills.yaml\n"
        "\n"
        "    # skills.yaml\n"
        "    data:\n"
        "      seed: 1\n"
        "      sequence_length: 256\n"
        "      train_documents: 10000\n"
        "      heldout_documents: 500\n"
        "      mixture:\n"
        "        - { skill: recall, weight: 3, pairs_max: 24 }\n"
        "        - { skill: text, weight: 1 }\n"
        "\n"
        "    postnas data --check data/skills/heldout\n",
    .sections = sections,
    .reads = "text files (gzip or plain), or the configuration's section data; a tokenizer\n",
    .writes = "DIR/train, DIR/search, DIR/heldout: HDF5 shards and a manifest with sizes and checksums\n"
              "standard output: documents and tokens of each\n",
    .see = "postnas config data --keys: every key of the section data\n"
           "postnas list skills: generated documents; configs/skills.yaml: a file to copy\n"
           "postnas finetune, postnas search: their mixture names DIR\n",
    .flags = flags,
    .max_operands = -1,
    .run = run,
};
