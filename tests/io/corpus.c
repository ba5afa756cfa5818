/* A corpus whose writing is stopped or killed and goes on has the files of one that was written at once. */
#include "harness.h"

#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>
#include <zlib.h>

#include "io_fixture.h"

#include "corpus.h"
#include "files.h"
#include "signals.h"

enum { DOCS = 1500 };

static pn_tokenizer *tokenizer;
static char in[256], whole[256], parts[256], aside[300];

static void setup(void) {
    static const char *const specials[] = { "<|end|>" };
    ck_ok(pn_tokenizer_bytes(specials, 1, &tokenizer));
    snprintf(in, sizeof in, "%s", scratch("in.jsonl.gz"));
    snprintf(whole, sizeof whole, "%s", scratch("whole"));
    snprintf(parts, sizeof parts, "%s", scratch("parts"));
    snprintf(aside, sizeof aside, "%s.postnas-partial", parts);
    gzFile f = gzopen(in, "wb");
    ck_assert_ptr_nonnull(f);
    for (int i = 0; i < DOCS; i++)
        ck_assert_int_gt(gzprintf(f, i % 50 ? "{\"text\": \"Document %d says %d.\"}\n" : "\n", i, i * i), 0);
    gzclose(f);
}

static void teardown(void) {
    pn_tokenizer_destroy(&tokenizer);
}

static void same_files(void) {
    char command[1024];
    snprintf(command, sizeof command, "diff -r %s %s", whole, parts);
    ck_assert_int_eq(system(command), 0);
    ck_assert(!pn_file_exists(aside));
}

static pn_status pack_text(const char *dir, uint64_t identity, double save_seconds) {
    const char *const file = in;
    const pn_text_source_config from = { .files = &file, .n_files = 1, .format = PN_TEXT_JSONL };
    const pn_corpus_config config = { .dir = dir,
                                      .identity = identity,
                                      .tokenizer = tokenizer,
                                      .source = "test",
                                      .shard_tokens = 4000,
                                      .save_seconds = save_seconds };
    const pn_corpus_text how = { .split = PN_SPLIT_TRAIN, .heldout_every = 10, .search_every = 300 };
    pn_text_source *source;
    pn_corpus *c;
    ck_ok(pn_text_source_open(&from, &source));
    pn_status s = pn_corpus_open(&config, &c);
    if (!s) s = pn_corpus_add_text(c, source, &how);
    if (!s) ck_assert_int_eq(pn_text_source_blanks(source), DOCS / 50);
    if (!s) ck_assert_int_eq(pn_corpus_docs(c, PN_SPLIT_HELDOUT), (DOCS - DOCS / 50) / 10);
    if (!s) s = pn_corpus_close(&c);
    pn_corpus_abort(&c);
    pn_text_source_close(&source);
    return s;
}

START_TEST(stopped_text_goes_on) {
    setup();
    ck_ok(pack_text(whole, 1, 0));
    int stops = 0;
    for (pn_status s = PN_INTERRUPTED; s; stops++) {
        pn_interrupt_after(2); /* at the second batch of each process */
        s = pack_text(parts, 1, 0);
        ck_assert(!s || s == PN_INTERRUPTED);
        ck_assert_int_eq(pn_file_exists(aside), s != PN_OK);
        ck_assert_int_lt(stops, 20);
        if (stops == 1) {
            ck_assert_int_eq(pack_text(parts, 2, 0), PN_USAGE); /* another input: says so, and removes nothing */
            ck_assert_ptr_nonnull(strstr(pn_error_message(), "holds the beginning of a corpus from other input"));
        }
    }
    pn_interrupt_after(0);
    ck_assert_int_gt(stops, 4);
    same_files();
    teardown();
}
END_TEST

/* Killed at any moment, completing the sets included. */
START_TEST(killed_text_goes_on) {
    setup();
    int status = -1, kills = 0;
    for (unsigned wait = 1000; status; wait += 1000) { /* until a process is let finish */
        pid_t child = fork();
        if (child == 0) _exit(pack_text(parts, 1, 1e-9) != PN_OK);
        for (unsigned slept = 0; slept < wait && waitpid(child, &status, WNOHANG) == 0; slept += 500) usleep(500);
        if (kill(child, SIGKILL) == 0 && waitpid(child, &status, 0) == child) kills++;
        ck_assert(!WIFEXITED(status) || WEXITSTATUS(status) == 0);
        if (pn_file_exists(parts)) break; /* killed between the last rename and its exit */
    }
    ck_assert_int_gt(kills, 0);
    ck_ok(pack_text(whole, 1, 0)); /* after all children: they must not miss OpenMP's threads */
    same_files();
    teardown();
}
END_TEST

static pn_status pack_skills(const char *dir) {
    static const pn_mixture_part part = { .weight = { 1, 1 }, .class_weight = { 0, 1, 1 }, .skill = &pn_skill_recall };
    const pn_mixture_config from = { .tokenizer = tokenizer,
                                     .frame = pn_doc_frame_default(tokenizer),
                                     .sequence_length = 128,
                                     .seed = 3,
                                     .parts = &part,
                                     .n_parts = 1 };
    const pn_corpus_config config = {
        .dir = dir, .tokenizer = tokenizer, .source = "skills", .seed = 3, .shard_tokens = 2000, .skills = true
    };
    pn_mixture *m;
    pn_corpus *c;
    ck_ok(pn_mixture_create(&from, &m));
    pn_status s = pn_corpus_open(&config, &c);
    if (!s) s = pn_corpus_add_skills(c, m, PN_SPLIT_TRAIN, 100);
    if (!s) s = pn_corpus_add_skills(c, m, PN_SPLIT_HELDOUT, 30);
    if (!s) s = pn_corpus_close(&c);
    pn_corpus_abort(&c);
    pn_mixture_destroy(&m);
    return s;
}

START_TEST(stopped_skills_go_on) {
    setup();
    ck_ok(pack_skills(whole));
    int stops = 0;
    for (pn_status s = PN_INTERRUPTED; s; stops++) {
        pn_interrupt_after(45);
        s = pack_skills(parts);
        ck_assert(!s || s == PN_INTERRUPTED);
        ck_assert_int_lt(stops, 20);
    }
    pn_interrupt_after(0);
    ck_assert_int_gt(stops, 2);
    same_files();
    teardown();
}
END_TEST

TEST_MAIN("corpus", killed_text_goes_on, stopped_text_goes_on, stopped_skills_go_on)
