/* Bytes as split.csv: a table whose rows stay in their folder and whose classes are there, or an error; and
 * as the pickle of a sample. */
#include "data_private.h"
#include "table.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void require(bool holds)
{
    if (!holds) abort();
}

static void check_row(const split_table *table, const table_row *row)
{
    require(row->path[0] && row->path[0] != '/' && strncmp(row->path, "../", 3) != 0);
    require((size_t)row->split < TRN_SPLIT_COUNT && row->line > 1);
    if (table->mask != SIZE_MAX)
        require(row->mask && row->mask[0] && row->mask[0] != '/' && !table->class_count);
    else
        require(row->label >= 0 && (size_t)row->label < table->class_count);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    trn_error err = {0};
    int64_t label;
    char *text = malloc(size + 1);
    require(text != NULL);
    if (size) memcpy(text, data, size);
    text[size] = 0;
    trn_status status = data_pickle_label(text, strlen(text), &label, &err);
    require(status == TRN_OK || err.message[0]);
    err = (trn_error){0};
    split_table table;
    status = split_table_parse(text, size, &table, &err);
    require(status == TRN_OK || err.message[0]);
    for (size_t i = 0; i < table.count && status == TRN_OK; i++)
        check_row(&table, &table.rows[i]);
    split_table_free(&table);
    return 0;
}
