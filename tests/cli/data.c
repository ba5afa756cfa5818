/* postnas data: what it writes holds the text it read, and a mistake leaves nothing behind. */
#include "cli_fixture.h"

#include <dirent.h>
#include <stdarg.h>

#include "../io/io_fixture.h"
#include "mixture.h"

static const char tokenizer_dir[] = POSTNAS_SOURCE_DIR "/tests/data/tokenizer";

static program_result data(const char *format, ...) PN_PRINTF(1, 2);
/* postnas data --tokenizer ..., in the scratch directory. */
static program_result data(const char *format, ...) {
    char rest[2048], all[4096];
    va_list args;
    va_start(args, format);
    vsnprintf(rest, sizeof rest, format, args);
    va_end(args);
    snprintf(all, sizeof all, "data --quiet --tokenizer %s %s", tokenizer_dir, rest);
    return program(all);
}

static void refused(program_result r, const char *part) {
    ck_assert_msg(r.code == 2, "exit code %d: %s", r.code, r.err);
    holds(r.err, part);
    ck_assert_str_eq(r.out, "");
}

static int entries(const char *dir) {
    int n = 0;
    DIR *d = opendir(dir);
    ck_assert_ptr_nonnull(d);
    for (struct dirent *e; (e = readdir(d));) n += e->d_name[0] != '.';
    closedir(d);
    return n;
}

static void write_jsonl(const char *path, int n) {
    FILE *f = fopen(path, "wb");
    for (int i = 0; i < n; i++) fprintf(f, "{\"id\": %d, \"body\": \"Document %d says \\u00e9%d.\\n\"}\n", i, i, i * i);
    fclose(f);
}

START_TEST(text_comes_back_out_of_the_shards) {
    enum { N = 700 };
    char in[256], out[256], again[256], path[300], command[1024];
    snprintf(in, sizeof in, "%s", scratch("in.jsonl"));
    snprintf(out, sizeof out, "%s", scratch("out"));
    snprintf(again, sizeof again, "%s", scratch("again"));
    write_jsonl(in, N);
    program_result r = data(
        "--out %s --format jsonl --field body --heldout-every 10 --search-every 20 --shard-tokens 1000 %s", out, in);
    ck_assert_msg(r.code == 0, "%s", r.err);
    holds(r.out, "heldout");
    holds(r.out, "shards: [");
    pn_tokenizer *t;
    ck_ok(pn_tokenizer_open(tokenizer_dir, &t));
    pn_token_set *sets[PN_SPLITS];
    int64_t next[PN_SPLITS] = { 0 };
    for (int s = 0; s < PN_SPLITS; s++) {
        snprintf(path, sizeof path, "%s/%s", out, pn_split_names[s]);
        ck_ok(pn_token_set_open(path, &sets[s]));
        ck_ok(pn_token_set_needs(sets[s], pn_tokenizer_hash(t)));
        ck_assert_str_eq(pn_token_set_info(sets[s])->split, pn_split_names[s]);
        ck_assert_str_eq(pn_token_set_info(sets[s])->source, "jsonl: in.jsonl");
    }
    pn_token_doc d = { 0 };
    for (int i = 0; i < N; i++) {
        const int s = i % 10 == 9 ? PN_SPLIT_HELDOUT : i % 20 == 18 ? PN_SPLIT_SEARCH : PN_SPLIT_TRAIN;
        char want[128], *text;
        size_t n;
        ck_ok(pn_token_set_doc(sets[s], next[s]++, &d));
        ck_assert_int_eq(d.tokens[d.n - 1], pn_tokenizer_eos(t));
        ck_ok(pn_tokenizer_decode(t, d.tokens, d.n - 1, false, &text, &n));
        snprintf(want, sizeof want, "Document %d says \xC3\xA9%d.\n", i, i * i);
        ck_assert_str_eq(text, want);
        free(text);
    }
    for (int s = 0; s < PN_SPLITS; s++) {
        ck_assert_int_eq(next[s], pn_token_set_info(sets[s])->n_docs);
        pn_token_set_close(&sets[s]);
    }
    pn_token_doc_free(&d);
    pn_tokenizer_destroy(&t);
    /* The same input gives the same files, with any number of threads. */
    r = data(
        "--threads 1 --out %s --format jsonl --field body --heldout-every 10 --search-every 20 --shard-tokens 1000 %s",
        again, in);
    ck_assert_int_eq(r.code, 0);
    snprintf(command, sizeof command, "diff -r %s %s", out, again);
    ck_assert_int_eq(system(command), 0);
    snprintf(command, sizeof command, "data --check %s/train", out);
    r = program(command);
    ck_assert_int_eq(r.code, 0);
    holds(r.out, "all good");
    /* One changed byte is found. */
    snprintf(path, sizeof path, "%s/train/shard-00002.h5", out);
    FILE *f = fopen(path, "r+b");
    fseek(f, 5000, SEEK_SET);
    fputc('#', f);
    fclose(f);
    refused(program(command), "shard-00002.h5: changed since it was written");
}
END_TEST

START_TEST(mistakes_leave_nothing_behind) {
    char in[256], bad[256], folder[256], out[300];
    snprintf(in, sizeof in, "%s", scratch("good.txt"));
    snprintf(bad, sizeof bad, "%s", scratch("bad.jsonl"));
    snprintf(folder, sizeof folder, "%s", scratch("folder"));
    snprintf(out, sizeof out, "%s/out", folder);
    mkdir(folder, 0777);
    write_text(in, "Some text.\n\nAnd more.\n");
    FILE *f = fopen(bad, "wb");
    for (int i = 0; i < 1000; i++) fputs(i == 900 ? "{\"text\": oops}\n" : "{\"text\": \"fine\"}\n", f);
    fclose(f);
    refused(data("--out %s", out), "no input");
    refused(data("%s", in), "--out is missing");
    refused(program("data --out /tmp/x /tmp/y"), "--tokenizer is missing");
    refused(data("--out %s --format jsonl %s", out, bad), "bad.jsonl:901: not a line of JSON");
    refused(data("--out %s --format words %s", out, in), "it must be one of: text, paragraphs, pages, jsonl");
    refused(data("--out %s --split test %s", out, in), "it must be one of: train, search, heldout");
    refused(data("--out %s --field body %s", out, in), "--format jsonl");
    refused(data("--out %s %s/nowhere", out, folder), "nowhere: cannot read the file");
    refused(data("--out %s --heldout-every 1 %s", out, in), "heldout-every");
    refused(data("--out %s --config x.yaml %s", out, in), "--skills");
    refused(data("--out %s --skills %s", out, in), "reads no files");
    refused(data("--out %s --skills --format jsonl", out), "--format is for text files");
    refused(data("--out %s --skills", out), "data.mixture");
    refused(data("--out %s --skills --config %s/nowhere.yaml", out, folder), "nowhere.yaml");
    write_text(in, " \n \n");
    refused(data("--out %s %s", out, in), "holds no documents");
    write_text(in, "caf\xE9");
    refused(data("--out %s %s", out, in), "--repair");
    ck_assert_int_eq(entries(folder), 0);
    ck_assert_int_eq(data("--out %s --repair %s", out, in).code, 0);
    refused(data("--out %s --repair %s", out, in), "not an empty directory");
    ck_assert_int_eq(entries(folder), 1);
}
END_TEST

START_TEST(skills_are_written_and_read_by_a_mixture) {
    char yaml[256], out[256], again[256], path[300], command[1024];
    snprintf(yaml, sizeof yaml, "%s", scratch("skills.yaml"));
    snprintf(out, sizeof out, "%s", scratch("skills"));
    snprintf(again, sizeof again, "%s", scratch("skills-again"));
    write_text(
        yaml, "data:\n  sequence_length: 128\n  train_documents: 400\n  heldout_documents: 100\n  search_documents: 0\n"
              "  mixture:\n    - { skill: recall, weight: 3, pairs_max: 12 }\n    - { skill: facts }\n");
    program_result r = data("--out %s --skills --config %s", out, yaml);
    ck_assert_msg(r.code == 0, "%s", r.err);
    holds(r.out, "75.0%  skill recall");
    ck_assert_int_eq(entries(out), 2);
    ck_assert_int_eq(data("--out %s --skills --config %s", again, yaml).code, 0);
    snprintf(command, sizeof command, "diff -r %s %s", out, again);
    ck_assert_int_eq(system(command), 0);
    pn_token_set *set;
    pn_token_doc d = { 0 };
    snprintf(path, sizeof path, "%s/heldout", out);
    ck_ok(pn_token_set_open(path, &set));
    ck_ok(pn_token_set_verify(set));
    ck_assert_int_eq(pn_token_set_info(set)->n_docs, 100);
    int listed = 0, recalls = 0;
    for (int i = 0; i < 100; i++) {
        ck_ok(pn_token_set_doc(set, i, &d));
        ck_assert_int_gt(d.n_answers, 0);
        for (int64_t k = 0; k < d.n_answers; k++) {
            const pn_answer *a = &d.answers[k];
            if (a->choice < 0) {
                recalls++;
                ck_assert_int_eq(d.tokens[a->begin], d.tokens[a->begin - a->distance]);
                continue;
            }
            listed++; /* the gold choice is the answer */
            const int64_t *begin = &d.choice_begin[a->choice + a->gold];
            ck_assert_int_eq(begin[1] - begin[0], a->end - a->begin);
            ck_assert_mem_eq(d.choice_tokens + begin[0], d.tokens + a->begin,
                             (size_t)(a->end - a->begin) * sizeof(int32_t));
        }
    }
    ck_assert(listed > 50 && recalls > 300);
    pn_token_doc_free(&d);
    pn_token_set_close(&set);
    pn_tokenizer *t;
    pn_mixture *m;
    pn_row row = { 0 };
    const char *const dir = out;
    const pn_mixture_part part = { .weight = { 1, 1 }, .class_weight = { 0, 1, 2 }, .shards = &dir, .n_shards = 1 };
    ck_ok(pn_tokenizer_open(tokenizer_dir, &t));
    ck_ok(pn_mixture_create(
        &(pn_mixture_config){ .tokenizer = t, .sequence_length = 512, .seed = 1, .parts = &part, .n_parts = 1 }, &m));
    ck_assert(pn_mixture_has(m, PN_SPLIT_TRAIN) && pn_mixture_has(m, PN_SPLIT_HELDOUT) &&
              !pn_mixture_has(m, PN_SPLIT_SEARCH));
    ck_ok(pn_mixture_row(m, PN_SPLIT_TRAIN, 0, &row));
    int answers = 0;
    for (int i = 0; i + 1 < 512; i++)
        if (row.targets[i] >= 0 && row.token_class[i + 1] == PN_CLASS_ANSWER) answers += row.weights[i] == 2;
    ck_assert_int_gt(answers, 10);
    pn_row_free(&row);
    pn_mixture_destroy(&m);
    pn_tokenizer_destroy(&t);
}
END_TEST

START_TEST(the_example_configuration_works) {
    char out[256];
    snprintf(out, sizeof out, "%s", scratch("example"));
    program_result r = data("--out %s --skills --config %s/configs/skills.yaml --set data.train_documents=1000", out,
                            POSTNAS_SOURCE_DIR);
    ck_assert_msg(r.code == 0, "%s", r.err);
    holds(r.out, "train            1000 documents");
    holds(r.out, " 70.0%  skill recall");
}
END_TEST

TEST_MAIN("data", the_example_configuration_works, text_comes_back_out_of_the_shards, mistakes_leave_nothing_behind,
          skills_are_written_and_read_by_a_mixture)
