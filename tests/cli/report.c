/* postnas report: which files make the page. */
#include "cli_fixture.h"

#include "../io/io_fixture.h"

#include <string.h>

#include "files.h"

#define DATA POSTNAS_SOURCE_DIR "/tests/data/report/"

/* The page that a command wrote; the caller frees it. */
static char *page_of(const char *command, const char *page) {
    char *text;
    size_t n;
    program_result r = program(command);
    ck_assert_msg(r.code == 0, "%s: %s", command, r.err);
    holds(r.out, page);
    ck_ok(pn_file_read(page, 1 << 24, &text, &n));
    return text;
}

static void copy(const char *from, const char *to) {
    char *data;
    size_t n;
    ck_ok(pn_file_read(from, 1 << 24, &data, &n));
    ck_ok(pn_file_write(to, data, n));
    free(data);
}

START_TEST(speeds_beside_the_result) {
    char run[256], command[1024], page[300], file[300];
    strcpy(run, scratch("report"));
    snprintf(page, sizeof page, "%s.html", run);
    snprintf(command, sizeof command, "report " DATA "stages-result.json %s", page);
    char *named = page_of(command, page); /* stages-speed.json is beside it */
    holds(named, "<h2>Speed of the whole models</h2>");
    holds(named, "Pareto front");

    ck_ok(pn_make_directories(run));
    snprintf(file, sizeof file, "%s/result.json", run);
    copy(DATA "stages-result.json", file);
    snprintf(command, sizeof command, "report %s", run);
    snprintf(page, sizeof page, "%s/report.html", run);
    char *untimed = page_of(command, page);
    ck_assert(!strstr(untimed, "tokens/s"));
    snprintf(file, sizeof file, "%s/speed.json", run);
    copy(DATA "stages-speed.json", file);
    char *timed = page_of(command, page);
    ck_assert_str_eq(timed, named);
    free(timed);
    free(untimed);
    free(named);
}
END_TEST

TEST_MAIN("report", speeds_beside_the_result)
