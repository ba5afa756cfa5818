/* Where ranks meet: rank 0 listens, the others find out where and connect.
 *
 * Three ways: "HOST:PORT" or "HOST:FIRST-LAST" (the first free port; the others try all of them, and the token tells
 * which is theirs), "file:PATH" (rank 0 writes where it listens, and a random token, readable by its user alone), or a
 * note that somebody else carries ("mpi:"). A note and a file hold the same text. "local:PATH" is a file for ranks of
 * one machine: nobody else can connect. */
#ifndef PN_DIST_RENDEZVOUS_H
#define PN_DIST_RENDEZVOUS_H

#include "files.h"
#include "wire.h"

enum { PN_NOTE_BYTES = 4096, PN_PLACES_MOST = 64 };

typedef struct pn_place {
    char host[256];
    int first, last; /* ports */
} pn_place;

typedef struct pn_meeting {
    pn_place place[PN_PLACES_MOST];
    int n_places;
    char file[PN_PATH_MAX]; /* "": none */
    bool local;             /* on the loopback interface alone */
    bool carried;           /* "mpi:" */
    char text[512];         /* for messages: "node1:20000-20007", "file:/shared/meet" */
    unsigned char token[PN_TOKEN_BYTES];
} pn_meeting;

/* PN_USAGE for a text that is none of these. The token is made of the run's id, and of POSTNAS_TOKEN where the
 * environment has it. */
pn_status pn_meeting_parse(const char *rendezvous, const char *run_id, pn_meeting *out);

/* Rank 0: listens, and where the others cannot know where, makes up a token and writes the note (PN_NOTE_BYTES; "" when
 * none is needed), and the file where there is one. *port: for messages. */
pn_status pn_meeting_listen(pn_meeting *m, int *fd, int *port, char *note);
/* Rank 0, once all have come: the file goes. */
void pn_meeting_over(const pn_meeting *m);

/* Takes places and token from a note. PN_FORMAT when it is none, or was cut short. */
pn_status pn_meeting_read_note(pn_meeting *m, const char *note);
/* The note in the file, as it is now. PN_IO: not there yet. */
pn_status pn_meeting_read_file(pn_meeting *m);

#endif
