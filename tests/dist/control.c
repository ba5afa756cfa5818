/* The control channel: how ranks meet, who is kept out, and small messages. */
#include "ranks.h"

#include <netinet/in.h>
#include <sys/socket.h>

#include "rendezvous.h"
#include "signals.h"

/* ---- messages ---- */

static int messages(ranks *r, int rank, pn_control *control) {
    rank_report *report = &r->report[rank];
    int all[RANKS_MOST];
    for (int i = 0; i < 50; i++) {
        const int mine = 100 * i + rank;
        RANK_OK(report, pn_control_exchange(control, "numbers", &mine, sizeof mine, all));
        for (int k = 0; k < r->n; k++) RANK_CHECK(report, all[k] == 100 * i + k, "rank %d gave %d", k, all[k]);
    }
    int64_t most = rank == r->n - 1 ? 1000 : -rank;
    RANK_OK(report, pn_control_max(control, "most", &most));
    RANK_CHECK(report, most == 1000, "the most is %lld", (long long)most);
    char text[128];
    memset(text, rank, sizeof text);
    RANK_OK(report, pn_control_broadcast(control, "text", r->n - 1, text, sizeof text));
    RANK_CHECK(report, text[0] == r->n - 1 && text[127] == r->n - 1, "broadcast");
    const size_t large = PN_EXCHANGE_MOST / (size_t)r->n;
    char *big = calloc((size_t)r->n + 1, large);
    memset(big, rank + 1, large);
    RANK_OK(report, pn_control_exchange(control, "large", big, large, big + large));
    for (int k = 0; k < r->n; k++)
        RANK_CHECK(report, big[(size_t)(k + 2) * large - 1] == k + 1, "the last byte of rank %d", k);
    RANK_CHECK(report, pn_control_exchange(control, "too large", big, large + 1, big) == PN_COMM, "too large");
    free(big);
    return 0;
}

START_TEST(everybody_gets_everything) {
    for (int n = 1; n <= 4; n++) {
        ranks *r = ranks_new(n);
        ranks_start(r, messages);
        ranks_all_succeed(r);
        ranks_free(r);
    }
}
END_TEST

static pn_status full_disk(void) {
    PN_FAIL(PN_IO, "step-40: no space left");
}
static int agree(ranks *r, int rank, pn_control *control) {
    rank_report *report = &r->report[rank];
    RANK_OK(report, pn_control_agree(control, "checkpoint", PN_OK));
    const pn_status s = pn_control_agree(control, "checkpoint", rank == 1 ? full_disk() : PN_OK);
    RANK_CHECK(report, s == PN_IO, "agreed on %s", pn_status_text(s));
    const char *want = rank == 1 ? "step-40: no space left" : "rank 1: step-40: no space left";
    RANK_CHECK(report, !strcmp(pn_error_message(), want), "%s", pn_error_message());
    RANK_OK(report, pn_control_agree(control, "checkpoint", PN_OK)); /* the ranks go on */
    return 0;
}

START_TEST(all_agree_on_what_failed) {
    ranks *r = ranks_new(3);
    ranks_start(r, agree);
    ranks_all_succeed(r);
    ranks_free(r);
}
END_TEST

static int differ(ranks *r, int rank, pn_control *control) {
    const pn_status s = pn_control_barrier(control, rank == 1 ? "evaluation" : "checkpoint");
    report_failure(&r->report[rank], s);
    return s == PN_COMM ? 0 : 13;
}

START_TEST(ranks_that_want_different_things) {
    ranks *r = ranks_new(2);
    ranks_start(r, differ);
    ranks_all_succeed(r);
    for (int i = 0; i < 2; i++)
        ck_assert_msg(strstr(r->report[i].message, "rank 1 failed: it wants 'evaluation'"), "%s", r->report[i].message);
    ranks_free(r);
}
END_TEST

/* ---- meeting ---- */

static int nothing(ranks *r, int rank, pn_control *control) {
    (void)r;
    (void)rank;
    (void)control;
    return 0;
}

static int free_port(void) {
    int fd, port;
    ck_ok(pn_net_listen("127.0.0.1", 0, &fd, &port));
    pn_net_close(&fd);
    return port;
}

START_TEST(at_a_host_and_port) {
    ranks *r = ranks_new(3);
    snprintf(r->rendezvous, sizeof r->rendezvous, "127.0.0.1:%d", free_port());
    for (int i = r->n - 1; i >= 0; i--) { /* rank 0 last */
        ranks_start_one(r, i, nothing);
        usleep(20000);
    }
    ranks_all_succeed(r);
    ranks_free(r);
}
END_TEST

START_TEST(in_a_file) {
    ranks *r = ranks_new(2);
    snprintf(r->rendezvous, sizeof r->rendezvous, "file:%s/meet", r->dir);
    char stale[128];
    snprintf(stale, sizeof stale, "%s/meet", r->dir);
    ck_ok(pn_file_write(stale, "postnas rendezvous 1\ntok", 24)); /* what a run before left */
    ranks_start_one(r, 1, nothing);
    usleep(50000);
    ranks_start_one(r, 0, nothing);
    ranks_all_succeed(r);
    ck_assert(!pn_file_exists(stale)); /* the next run finds none */
    ranks_free(r);
}
END_TEST

/* Both at one place: each rank finds its own. */
START_TEST(two_runs_at_once) {
    ranks *r[2];
    const int port = free_port();
    for (int k = 0; k < 2; k++) {
        r[k] = ranks_new(3);
        r[k]->run_id = k ? "one" : "other";
        snprintf(r[k]->rendezvous, sizeof r[k]->rendezvous, "127.0.0.1:%d-%d", port, port + 5);
    }
    for (int i = 0; i < 3; i++)
        for (int k = 0; k < 2; k++) ranks_start_one(r[k], i, messages);
    for (int k = 0; k < 2; k++) {
        ranks_all_succeed(r[k]);
        ranks_free(r[k]);
    }
}
END_TEST

static int connect_to(int port) {
    int fd;
    ck_ok(pn_net_connect("127.0.0.1", port, pn_seconds() + 5, &fd));
    return fd;
}

static void send_bytes(int fd, const void *bytes, size_t n) {
    ck_ok(pn_net_send_all(fd, bytes, n, pn_seconds() + 5));
}

/* Other programs, other runs, and whoever has read the source: none of them disturbs. */
START_TEST(strangers_are_kept_out) {
    ranks *r = ranks_new(2);
    const int port = free_port();
    snprintf(r->rendezvous, sizeof r->rendezvous, "127.0.0.1:%d", port);
    ranks_start_one(r, 0, messages);
    int fd[40], n = 0;
    for (;;) {
        if (!pn_net_connect("127.0.0.1", port, pn_seconds() + 5, &fd[0])) break; /* rank 0 listens */
        usleep(5000);
    }
    n = 1;
    static const char web[] = "GET / HTTP/1.1\r\nHost: here\r\n\r\n";
    send_bytes(fd[0], web, sizeof web);
    unsigned char frame[PN_WIRE_HEADER + PN_HELLO_BYTES] = { 0 };
    pn_wire_write(frame, PN_WIRE_HELLO, 1, PN_HELLO_BYTES); /* the wrong digest */
    send_bytes(fd[n++] = connect_to(port), frame, sizeof frame);
    pn_wire_write(frame, PN_WIRE_HELLO, 1, PN_WIRE_MOST); /* a long one, never sent */
    send_bytes(fd[n++] = connect_to(port), frame, PN_WIRE_HEADER);
    pn_wire_write(frame, PN_WIRE_FAILED, 1, 4);
    send_bytes(fd[n++] = connect_to(port), frame, PN_WIRE_HEADER + 4);
    pn_wire_write(frame, PN_WIRE_HELLO, 1, 0xfffffff0);
    send_bytes(fd[n++] = connect_to(port), frame, PN_WIRE_HEADER);
    while (n < 40) fd[n++] = connect_to(port); /* that say nothing */
    for (int i = 0; i < 5; i++) {              /* half a frame and gone */
        int f = connect_to(port);
        send_bytes(f, frame, 7);
        pn_net_close(&f);
    }
    unsigned char answer[256];
    long got;
    const double until = pn_seconds() + 5;
    while ((got = pn_net_receive(fd[1], answer, sizeof answer)) == 0 && pn_seconds() < until) usleep(1000);
    ck_assert_msg(got > PN_WIRE_HEADER && answer[4] == PN_WIRE_REFUSED, "a wrong token is answered: %ld bytes", got);
    ranks_start_one(r, 1, messages);
    ranks_all_succeed(r);
    for (int i = 0; i < n; i++) pn_net_close(&fd[i]);
    ranks_free(r);
}
END_TEST

static void says(const ranks *r, int rank, pn_status s, const char *a, const char *b) {
    const rank_report *said = &r->report[rank];
    ck_assert_msg(said->status == s && strstr(said->message, a) && strstr(said->message, b), "rank %d says: %s", rank,
                  said->message);
}

START_TEST(ranks_that_never_come) {
    ranks *r = ranks_new(4);
    r->start = 1;
    ranks_start_one(r, 0, nothing);
    ranks_start_one(r, 2, nothing);
    ranks_wait_one(r, 0);
    ranks_wait_one(r, 2);
    says(r, 0, PN_COMM, "after 1 s ranks 1, 3 of 4 had not come to local:", "were they started");
    says(r, 2, PN_COMM, "rank 0 failed: after 1 s ranks 1, 3 of 4 had not come", "");
    ranks_free(r);
}
END_TEST

START_TEST(a_rank_0_that_never_comes) {
    ranks *r = ranks_new(2);
    r->start = 0.3;
    snprintf(r->rendezvous, sizeof r->rendezvous, "127.0.0.1:%d", free_port());
    ranks_start_one(r, 1, nothing);
    ranks_wait_one(r, 1);
    says(r, 1, PN_COMM, "rank 1 did not find rank 0 of 2 at 127.0.0.1:", "Connection refused");
    snprintf(r->rendezvous, sizeof r->rendezvous, "file:%s/meet", r->dir);
    ranks_start_one(r, 1, nothing);
    ranks_wait_one(r, 1);
    says(r, 1, PN_COMM, "rank 1 did not find rank 0 of 2 at file:", "No such file");
    ranks_free(r);
}
END_TEST

/* The second one of a kind is refused, and the run goes on without it. */
START_TEST(ranks_that_do_not_belong) {
    ranks *r = ranks_new(3), *other = ranks_new(4);
    r->start = 5;
    const int port = free_port();
    snprintf(r->rendezvous, sizeof r->rendezvous, "127.0.0.1:%d", port);
    strcpy(other->rendezvous, r->rendezvous);
    ranks_start_one(r, 0, nothing);
    ranks_start_one(other, 3, nothing);
    ranks_wait_one(other, 3);
    says(other, 3, PN_USAGE, "rank 3 was started as one of 4 ranks, rank 0 as one of 3", "");
    ranks_start_one(r, 1, nothing);
    usleep(300000);
    other->n = 3;
    ranks_start_one(other, 1, nothing);
    ranks_wait_one(other, 1);
    says(other, 1, PN_USAGE, "rank 1 is there already", "");
    ranks_start_one(r, 2, nothing);
    ranks_all_succeed(r);
    ranks_free(r);
    ranks_free(other);
}
END_TEST

START_TEST(another_token_is_another_run) {
    ranks *r = ranks_new(2);
    r->start = 0.6;
    snprintf(r->rendezvous, sizeof r->rendezvous, "127.0.0.1:%d", free_port());
    ranks_start_one(r, 0, nothing);
    setenv("POSTNAS_TOKEN", "secret", 1);
    ranks_start_one(r, 1, nothing);
    unsetenv("POSTNAS_TOKEN");
    ranks_wait(r);
    says(r, 1, PN_COMM, "another run is there", "did not find rank 0");
    says(r, 0, PN_COMM, "rank 1 of 2 had not come", "");
    ranks_free(r);
}
END_TEST

START_TEST(a_signal_ends_the_wait) {
    ranks *r = ranks_new(2);
    pn_signals_install();
    ranks_start_one(r, 0, nothing);
    usleep(200000);
    kill(r->pid[0], SIGTERM);
    ranks_wait_one(r, 0);
    says(r, 0, PN_INTERRUPTED, "stopped while rank 0 waited", "");
    ranks_free(r);
}
END_TEST

/* One that is asked to stop as the last one comes goes on: they stop together later, and none takes it for dead. */
START_TEST(a_signal_as_they_meet_ends_nothing) {
    ranks *r = ranks_new(3);
    pn_signals_install();
    for (int i = 0; i < 2; i++) ranks_start_one(r, i, messages);
    usleep(200000);
    kill(r->pid[1], SIGTERM);
    usleep(300000);
    ranks_start_one(r, 2, messages);
    ranks_all_succeed(r);
    ranks_free(r);
}
END_TEST

START_TEST(a_signal_ends_the_wait_of_all) {
    for (int asked = 0; asked < 2; asked++) { /* rank 0; another, for which the third never comes */
        ranks *r = ranks_new(3);
        pn_signals_install();
        for (int i = 0; i < 2; i++) ranks_start_one(r, i, nothing);
        usleep(200000);
        kill(r->pid[asked], SIGTERM);
        for (int i = 0; i < 2; i++) {
            ranks_wait_one(r, i);
            says(r, i, PN_INTERRUPTED, "stopped while rank", "waited for the others");
        }
        ranks_free(r);
    }
}
END_TEST

START_TEST(texts_that_are_no_rendezvous) {
    static const char *const bad[] = { "",           "host",    ":1",       "host:",          "host:0",
                                       "host:65536", "host:1x", "host:5-4", "a:b:1",          "host:1-999",
                                       "[::1:5",     "[]:5",    "file:",    "host:123456789", "host:-1" };
    pn_meeting m;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        ck_assert_msg(pn_meeting_parse(bad[i], "", &m) == PN_USAGE, "'%s'", bad[i]);
    ck_ok(pn_meeting_parse("node-1.cluster:1-8", "", &m));
    ck_assert(!strcmp(m.place[0].host, "node-1.cluster") && m.place[0].first == 1 && m.place[0].last == 8);
    ck_ok(pn_meeting_parse("[fe80::1]:65535", "", &m));
    ck_assert(!strcmp(m.place[0].host, "fe80::1") && m.place[0].first == 65535);
}
END_TEST

START_TEST(notes_that_are_none) {
    static const char token[] = "token 00112233445566778899aabbccddeeff\n";
    static const char *const bad[] = { "",
                                       "postnas",
                                       "postnas rendezvous 1\n",
                                       "postnas rendezvous 1\nend\n",
                                       "postnas rendezvous 1\ntoken 0011\nend\n",
                                       "postnas rendezvous 1\nat x 0\nend\n",
                                       "postnas rendezvous 1\nat x 70000\nend\n",
                                       "postnas rendezvous 1\nsomething\nend" };
    pn_meeting m;
    ck_ok(pn_meeting_parse("file:/x", "", &m));
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        ck_assert_msg(pn_meeting_read_note(&m, bad[i]) == PN_FORMAT, "%s", bad[i]);
    char many[PN_NOTE_BYTES] = "postnas rendezvous 1\n";
    strcat(many, token);
    for (int i = 0; i < 200; i++) strcat(many, "at host 1\n");
    strcat(many, "end\n");
    ck_assert_int_eq(pn_meeting_read_note(&m, many), PN_FORMAT);
    char good[256];
    snprintf(good, sizeof good, "postnas rendezvous 1\n%sat host 1\nat other 2\nend\n", token);
    ck_ok(pn_meeting_read_note(&m, good));
    ck_assert(m.n_places == 2 && m.token[1] == 0x11 && !strcmp(m.place[1].host, "other") && m.place[1].first == 2);
}
END_TEST

TEST_MAIN("control", everybody_gets_everything, all_agree_on_what_failed, ranks_that_want_different_things,
          at_a_host_and_port, in_a_file, two_runs_at_once, strangers_are_kept_out, ranks_that_never_come,
          a_rank_0_that_never_comes, ranks_that_do_not_belong, another_token_is_another_run, a_signal_ends_the_wait,
          a_signal_as_they_meet_ends_nothing, a_signal_ends_the_wait_of_all, texts_that_are_no_rendezvous,
          notes_that_are_none)
