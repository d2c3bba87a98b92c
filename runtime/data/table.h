/* split.csv: which image is of which split, and its class or its mask. */
#ifndef TRN_DATA_TABLE_H
#define TRN_DATA_TABLE_H

#include "data.h"

typedef struct table_row {
    char *path, *class_name, *mask; /* class_name and mask may be NULL */
    int64_t label;                  /* -1: not given */
    trn_split split;
    size_t line;
} table_row;

typedef struct split_table {
    char *text; /* what the rows point into */
    table_row *rows;
    size_t count, capacity;
    size_t path, split, class_name, label, mask; /* columns; SIZE_MAX: absent */
    size_t class_count;                          /* 0 with masks */
    const char **class_names;                    /* [class_count] when there is a column of classes */
} split_table;

/* Reads and checks a file; *table is to be freed also after a failure. */
trn_status split_table_read(const char *path, split_table *table, trn_error *err);
/* The same of a text, which the table takes. */
trn_status split_table_parse(char *text, size_t size, split_table *table, trn_error *err);
void split_table_free(split_table *table);

#endif
