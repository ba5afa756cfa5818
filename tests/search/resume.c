/* A whole search that is stopped again and again, in every phase, gives the result.json and the model of an undisturbed
 * one; when it is finished, it says so. */
#include "search_fixture.h"

START_TEST(local_by_layers) {
    setup();
    stop_and_go_on((const char *const[]){ "supernet.order=layer", NULL });
    ck_ok(pn_remove_tree(top));
}
END_TEST

START_TEST(local_by_steps) {
    setup();
    stop_and_go_on((const char *const[]){ "supernet.order=step", NULL });
    ck_ok(pn_remove_tree(top));
}
END_TEST

START_TEST(sampled) {
    setup();
    stop_and_go_on((const char *const[]){ "supernet.mode=sampled", NULL });
    ck_ok(pn_remove_tree(top));
}
END_TEST

/* Gates that pay for measured seconds: a run measures and keeps them; runs with its table give its result, however
 * often they stop. */
START_TEST(gated_by_seconds) {
    setup();
    char table[128], *said;
    snprintf(table, sizeof table, "latency.table=%s/first/state/latency.json", top);
    const char *const mode[] = { "supernet.mode=gated",
                                 "supernet.gates={cost: seconds, cost_context: 200}",
                                 "latency.seconds=0.01",
                                 "distill.tokens=0",
                                 NULL,
                                 NULL };
    const char *with_table[sizeof mode / sizeof *mode];
    memcpy(with_table, mode, sizeof mode);
    with_table[4] = table;
    ck_ok(search("first", mode, &said));
    free(said);
    json_t *first = result_of("first"), *gates = json_object_get(first, "gates");
    ck_assert(json_is_object(gates) || json_is_array(gates));
    stop_and_go_on(with_table);
    json_t *whole = result_of("whole");
    ck_assert(json_equal(gates, json_object_get(whole, "gates")));
    json_decref(first);
    json_decref(whole);
    ck_ok(pn_remove_tree(top));
}
END_TEST

TEST_MAIN("search_resume", local_by_layers, local_by_steps, sampled, gated_by_seconds)
