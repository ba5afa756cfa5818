/* Logging and progress, with standard error going to a file and to a terminal. */
#include "harness.h"
#include <fcntl.h>
#include <jansson.h>
#include <math.h>
#include <pthread.h>
#include <string.h>
#include <sys/ioctl.h>
#include <termios.h>
#include <unistd.h>

#include "clock.h"
#include "files.h"
#include "log.h"
#include "progress.h"

static char text[1 << 16];
static int before = -1, captured = -1;

/* Standard error goes to `fd` until said_so_far. */
static void capture(int fd) {
    fflush(stderr);
    before = dup(STDERR_FILENO);
    captured = fd;
    ck_assert_int_ge(dup2(fd, STDERR_FILENO), 0);
}

static void restore(void) {
    fflush(stderr);
    dup2(before, STDERR_FILENO);
    close(before);
}

static int temporary_file(void) {
    FILE *f = tmpfile();
    ck_assert_ptr_nonnull(f);
    return fileno(f);
}

static const char *said_to_file(void) {
    restore();
    ssize_t n = pread(captured, text, sizeof text - 1, 0);
    ck_assert_int_ge(n, 0);
    text[n] = '\0';
    return text;
}

START_TEST(messages_for_people) {
    unsetenv("PN_LOG");
    capture(temporary_file());
    pn_info("one %d", 1);
    pn_warn("two");
    pn_debug("tape", "three");
    pn_log_quiet(true);
    pn_info("four");
    pn_warn("five");
    pn_log_status_line("never in a file");
    pn_log_quiet(false);
    ck_assert_str_eq(said_to_file(), "one 1\nwarning: two\nwarning: five\n");
}
END_TEST

START_TEST(debug_by_room) {
    static const struct {
        const char *rooms, *room;
        bool on;
    } c[] = { { "debug", "tape", true },       { "tape", "tape", true },   { "comm,tape", "tape", true },
              { "tape,comm", "tape", true },   { "tapes", "tape", false }, { "mytape", "tape", false },
              { "mytape,tape", "tape", true }, { "", "tape", false } };
    for (size_t i = 0; i < sizeof c / sizeof *c; i++) {
        setenv("PN_LOG", c[i].rooms, 1);
        ck_assert_msg(pn_debugging(c[i].room) == c[i].on, "PN_LOG=%s, %s", c[i].rooms, c[i].room);
    }
    unsetenv("PN_LOG");
    ck_assert(!pn_debugging("tape"));
}
END_TEST

static void *log_much(void *name) {
    for (int i = 0; i < 200; i++) {
        pn_event e = pn_event_begin("step");
        pn_event_str(&e, "thread", name);
        pn_event_i64(&e, "i", i);
        pn_event_end(&e);
    }
    return NULL;
}

START_TEST(records_for_programs) {
    char dir[] = "/tmp/postnas-log-XXXXXX", path[PN_PATH_MAX];
    ck_assert_ptr_nonnull(mkdtemp(dir));
    ck_ok(pn_path_join(path, dir, "log.jsonl"));
    ck_ok(pn_file_write(path, "{}\n{\"unfinis", 12)); /* a process was killed here */
    ck_ok(pn_log_open(path));
    capture(temporary_file());
    char *longest = malloc(100001);
    memset(longest, 'x', 100000);
    longest[100000] = '\0';
    pn_event e = pn_event_begin("step \"quoted\"");
    pn_event_f64(&e, "loss", 1.25);
    pn_event_f64(&e, "nan", NAN);
    pn_event_i64(&e, "big", INT64_MIN);
    pn_event_str(&e, "text", "a\n\"b\"\\ \xff \xc3\xbc");
    pn_event_str(&e, "long", longest);
    pn_event_end(&e);
    pn_warn("careful: %s", "\"x\"");
    ck_assert_str_eq(said_to_file(), "warning: careful: \"x\"\n");
    pthread_t threads[4];
    static char names[4][2] = { "a", "b", "c", "d" };
    for (int i = 0; i < 4; i++) ck_assert_int_eq(pthread_create(&threads[i], NULL, log_much, names[i]), 0);
    for (int i = 0; i < 4; i++) pthread_join(threads[i], NULL);
    pn_log_close();
    pn_info(" "); /* closed: goes nowhere but standard error */

    FILE *f = fopen(path, "r");
    char *line = NULL;
    size_t cap = 0;
    int n = 0;
    while (getline(&line, &cap, f) > 0) {
        json_t *r = json_loads(line, JSON_REJECT_DUPLICATES, NULL);
        if (n == 0) ck_assert_str_eq(line, "{}\n"); /* what was whole stays */
        if (n > 0) {
            int year, month, day, hour, minute, second;
            ck_assert_msg(r != NULL, "line %d is no JSON: %.200s", n, line);
            ck_assert_int_eq(sscanf(json_string_value(json_object_get(r, "time")), "%4d-%2d-%2dT%2d:%2d:%2dZ", &year,
                                    &month, &day, &hour, &minute, &second),
                             6);
        }
        const char *kind = json_string_value(json_object_get(r, "event"));
        if (n == 1) {
            ck_assert_str_eq(kind, "step \"quoted\"");
            ck_assert_double_eq(json_real_value(json_object_get(r, "loss")), 1.25);
            ck_assert(json_is_null(json_object_get(r, "nan")));
            ck_assert_int_eq(json_integer_value(json_object_get(r, "big")), INT64_MIN);
            ck_assert_str_eq(json_string_value(json_object_get(r, "text")), "a\n\"b\"\\ \xef\xbf\xbd \xc3\xbc");
            ck_assert_str_eq(json_string_value(json_object_get(r, "long")), longest);
        } else if (n == 2) {
            ck_assert_str_eq(kind, "message");
            ck_assert_str_eq(json_string_value(json_object_get(r, "level")), "warning");
            ck_assert_str_eq(json_string_value(json_object_get(r, "text")), "careful: \"x\"");
        }
        json_decref(r);
        n++;
    }
    ck_assert_int_eq(n, 3 + 4 * 200);
    free(line);
    free(longest);
    fclose(f);
    ck_assert_int_eq(pn_log_open("/nowhere/log.jsonl"), PN_IO);
    ck_ok(pn_remove_tree(dir));
}
END_TEST

START_TEST(a_full_disk_is_told_once) {
    ck_ok(pn_log_open("/dev/full"));
    capture(temporary_file());
    pn_info("one");
    pn_info("two");
    ck_assert_str_eq(said_to_file(), "one\nwarning: the log cannot be written: No space left on device; going on "
                                     "without it\ntwo\n");
}
END_TEST

START_TEST(compact_numbers) {
    static const struct {
        double value;
        const char *text;
    } c[] = { { 0, "0" },          { 7, "7" },          { 999, "999" },    { 0.5, "0.50" },    { 12.345, "12.3" },
              { 999.6, "1.00k" },  { 1000, "1.00k" },   { 1234, "1.23k" }, { 12345, "12.3k" }, { 999499, "999k" },
              { 999500, "1.00M" }, { 4.56e9, "4.56G" }, { 1e12, "1.00T" }, { 1e15, "1000T" } };
    char buffer[24];
    for (size_t i = 0; i < sizeof c / sizeof *c; i++)
        ck_assert_str_eq(pn_compact_text(c[i].value, buffer, sizeof buffer), c[i].text);
}
END_TEST

START_TEST(durations) {
    static const struct {
        double seconds;
        const char *text;
    } c[] = { { 0, "0 s" },          { -1, "0 s" },         { 3.4, "3 s" },        { 59.6, "1 min 0 s" },
              { 125, "2 min 5 s" },  { 3840, "1 h 4 min" }, { 180000, "2 d 2 h" }, { 1e300, "11574 d 1 h" },
              { NAN, "11574 d 1 h" } };
    char buffer[48];
    for (size_t i = 0; i < sizeof c / sizeof *c; i++)
        ck_assert_str_eq(pn_duration_text(c[i].seconds, buffer, sizeof buffer), c[i].text);
}
END_TEST

/* As if `seconds` had gone by. */
static void pass(pn_progress *p, double seconds) {
    p->started -= seconds;
    p->next -= seconds;
    p->shown -= seconds;
}

static int lines(const char *said) {
    int n = 0;
    for (; (said = strchr(said, '\n')); said++) n++;
    return n;
}

START_TEST(progress_in_a_file) {
    static const double gaps[] = { 10, 15, 22.5, 33.75, 50.625, 60, 60, 60 }; /* then one a minute */
    enum { LINES = sizeof gaps / sizeof *gaps };
    capture(temporary_file());
    pn_progress p = pn_progress_begin("training", 0, 1000, "tokens");
    int64_t done = 0;
    for (int i = 0; i < LINES; i++) {
        for (int k = 0; k < 100; k++) pn_progress_update(&p, done, "too soon");
        pass(&p, gaps[i] - 0.5);
        pn_progress_update(&p, done, "too soon");
        pass(&p, 0.5);
        pn_progress_update(&p, done = 100 * (i + 1), "loss %.1f", 2.5);
    }
    pn_progress_update(&p, 1000, "too soon");
    pn_progress_end(&p);
    const char *said = said_to_file();
    ck_assert_int_eq(lines(said), LINES + 1);
    ck_assert_msg(!strncmp(said, "training  10%  100 of 1.00k tokens  10.0/s  10 s, 1 min 30 s left  loss 2.5\n", 75),
                  "%s", said);
    const char *last = strstr(said, "\ntraining: ");
    ck_assert_str_eq(last, "\ntraining: 1.00k tokens in 5 min 12 s (3.21/s)\n");
    for (const char *c = said; *c; c++) ck_assert_msg(*c == '\n' || *c >= ' ', "control character %d", *c);
    ck_assert_ptr_null(strstr(said, "too soon"));
}
END_TEST

START_TEST(short_work_says_nothing_in_a_file) {
    capture(temporary_file());
    pn_progress p = pn_progress_begin("training", 0, 10, "tokens");
    for (int i = 0; i <= 10; i++) pn_progress_update(&p, i, "x");
    pn_progress_end(&p);
    ck_assert_str_eq(said_to_file(), "");
}
END_TEST

/* A resumed run goes through what is done at a thousand times the speed, then works: the remaining time must follow. */
START_TEST(remaining_time_after_a_quick_start) {
    capture(temporary_file());
    pn_progress p = pn_progress_begin("training", 0, 100000, "tokens");
    p.terminal = true; /* looked at often; the line goes nowhere */
    p.interval = 1;
    int64_t done = 50000;
    for (int second = 0; second < 120; second++) {
        p.next = 0;
        pass(&p, 1);
        pn_progress_update(&p, done, "x");
        done += 50;
    }
    restore();
    ck_assert_double_gt((double)(p.done - p.first) / 120, 450); /* the mean would promise nine times as much */
    ck_assert_double_ge(p.rate, 50);
    ck_assert_double_le(p.rate, 100);
}
END_TEST

/* What an earlier run did counts for the percentage, not for the rate. */
START_TEST(resumed_work) {
    capture(temporary_file());
    pn_progress p = pn_progress_begin("training", 500, 1000, "tokens");
    pass(&p, 20);
    pn_progress_update(&p, 600, "x");
    pn_progress_end(&p);
    ck_assert_str_eq(said_to_file(), "training  60%  600 of 1.00k tokens  5.00/s  20 s, 1 min 20 s left  x\n"
                                     "training: 600 tokens, 100 of them now in 20 s (5.00/s)\n");
}
END_TEST

/* Updates all the time until a line has been shown; 1000 units would take two seconds. Ends at 1000. */
static void work(pn_progress *p) {
    double start = pn_seconds(), due = p->next;
    while (p->next <= due) {
        double done = 500 * (pn_seconds() - start);
        pn_progress_update(p, done < 999 ? (int64_t)done : 999, "loss %.1f", 2.5);
        usleep(1000);
    }
    for (int i = 0; i < 100; i++) pn_progress_update(p, 1000, "too soon");
}

START_TEST(progress_on_a_terminal) {
    int terminal = posix_openpt(O_RDWR | O_NOCTTY);
    if (terminal < 0 || grantpt(terminal) || unlockpt(terminal))
        ck_skip("no pseudo-terminals here (is devpts mounted?)");
    int screen = open(ptsname(terminal), O_RDWR | O_NOCTTY);
    struct winsize size = { .ws_row = 24, .ws_col = 40 };
    struct termios mode;
    ck_assert(screen >= 0 && ioctl(screen, TIOCSWINSZ, &size) == 0 && tcgetattr(screen, &mode) == 0);
    mode.c_oflag &= (tcflag_t)~OPOST;
    ck_assert_int_eq(tcsetattr(screen, TCSANOW, &mode), 0);
    capture(screen);
    setenv("TERM", "xterm", 1);
    pn_progress p = pn_progress_begin("training a model with a long name", 0, 1000, "tokens");
    work(&p);
    pn_info("between");
    pn_log_status_line("shown");
    pass(&p, 1);
    pn_progress_end(&p);
    pn_log_status_line("a status line of more than 39 columns \xc3\xa4\xc3\xb6\xc3\xbc");
    setenv("TERM", "dumb", 1);
    ck_assert(!pn_log_on_terminal());
    pn_log_status_line("nothing is rewritten here");
    setenv("TERM", "xterm", 1);
    pn_log_status_line("left over");
    pn_log_close();
    restore();
    close(screen);
    size_t n = 0;
    for (ssize_t got; n < sizeof text - 1 && (got = read(terminal, text + n, sizeof text - 1 - n)) > 0;)
        n += (size_t)got; /* until the last writer has closed */
    text[n] = '\0';
    /* lines cut to 39 columns and rewritten in place; a message takes the line away first */
    int rewritten = 0;
    for (char *s = text; (s = strchr(s, '\r')); s++) {
        if (strncmp(s, "\rtraining a model with a long name ", 35)) continue;
        rewritten++;
        ck_assert_uint_eq(strcspn(s + 1, "\033"), 39);
    }
    ck_assert_int_eq(rewritten, 1);
    ck_assert_ptr_nonnull(strstr(text, "\033[K\r\033[Kbetween\n\rshown\033[K\r\033[Ktraining a model"));
    const char *end = "\ra status line of more than 39 columns \xc3\xa4\033[K\rleft over\033[K\r\033[K";
    ck_assert_str_eq(text + strlen(text) - strlen(end), end);
    close(terminal);
}
END_TEST

START_TEST(unknown_totals_have_no_percentage) {
    capture(temporary_file());
    pn_progress p = pn_progress_begin("reading", 0, 0, "bytes");
    p.next = 0;
    pn_progress_update(&p, 5, "x");
    p.next = 0;
    pn_progress_update(&p, 2000000, "%s", "");
    const char *said = said_to_file();
    ck_assert(!strncmp(said, "reading  5 bytes  ", 18));
    ck_assert_ptr_nonnull(strstr(said, "\nreading  2.00M bytes  "));
    ck_assert_ptr_null(strchr(said, '%'));
    ck_assert_ptr_null(strstr(said, "left"));
}
END_TEST

START_TEST(clocks) {
    double wall = pn_seconds(), cpu = pn_thread_cpu_seconds();
    volatile double x = 1;
    while (pn_thread_cpu_seconds() < cpu + 0.05) x = x * 1.0000001;
    ck_assert_double_ge(pn_seconds() - wall, 0.045);
    cpu = pn_thread_cpu_seconds();
    wall = pn_seconds();
    usleep(50000);
    ck_assert_double_ge(pn_seconds() - wall, 0.045);
    ck_assert_double_lt(pn_thread_cpu_seconds() - cpu, 0.045); /* sleeping takes no processor time */
}
END_TEST

TEST_MAIN("log", messages_for_people, debug_by_room, records_for_programs, a_full_disk_is_told_once, compact_numbers,
          durations, progress_in_a_file, short_work_says_nothing_in_a_file, remaining_time_after_a_quick_start,
          resumed_work, progress_on_a_terminal, unknown_totals_have_no_percentage, clocks)
