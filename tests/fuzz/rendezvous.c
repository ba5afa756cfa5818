/* Where ranks meet, as text of the command line, of a file that rank 0 wrote, and of Slurm's environment. */
#include "fuzz.h"
#include "launch.h"
#include "rendezvous.h"

static void check_places(const pn_meeting *m) {
    FUZZ_ASSERT(m->n_places >= 0 && m->n_places <= PN_PLACES_MOST);
    for (int i = 0; i < m->n_places; i++) {
        const pn_place *p = &m->place[i];
        FUZZ_ASSERT(p->host[0] && p->first >= 1 && p->last <= 65535 && p->first <= p->last);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n_bytes) {
    char *text = malloc(n_bytes + 1), host[64];
    if (!text) return 0;
    memcpy(text, data, n_bytes);
    text[n_bytes] = '\0';
    pn_meeting m;
    pn_status s = pn_meeting_parse(text, "run", &m);
    if (s) fuzz_refused(s);
    if (!s) check_places(&m);
    FUZZ_ASSERT(!pn_meeting_parse("file:/meet", "run", &m));
    s = pn_meeting_read_note(&m, text);
    if (s) fuzz_refused(s);
    check_places(&m);
    s = pn_slurm_first_host(text, host, sizeof host);
    if (s) fuzz_refused(s);
    FUZZ_ASSERT(s || (host[0] && !strpbrk(host, " ,[]/")));
    free(text);
    return 0;
}
