/* What tests of graphs share: values of parameters by their names. */
#ifndef TEST_GRAPH_H
#define TEST_GRAPH_H

#include "graph.h"

/* A trn_fill: the values of test_hash_values for the parameter's name. user: NULL, or a double, their
 * scale instead of 0.4. */
trn_status test_fill(void *user, const char *name, const trn_shape *shape, void *out, trn_error *err);

#endif
