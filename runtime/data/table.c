/* split.csv: columns, rows, and the classes they name. */
#include "table.h"
#include "data_private.h"

#include <stdlib.h>
#include <string.h>

enum { MAX_FIELDS = 64 };

void split_table_free(split_table *table)
{
    free(table->text);
    free(table->rows);
    free(table->class_names);
    *table = (split_table){0};
}

static size_t find_column(char **fields, size_t count, const char *name)
{
    for (size_t i = 0; i < count; i++)
        if (!strcmp(fields[i], name)) return i;
    return SIZE_MAX;
}

static trn_status read_header(split_table *table, data_csv *csv, trn_error *err)
{
    char *fields[MAX_FIELDS];
    size_t count;
    trn_status status;
    if (!data_csv_next(csv, fields, MAX_FIELDS, &count, &status, err))
        return trn_fail(err, TRN_ERR_FORMAT, "it is empty");
    if (status != TRN_OK) return status;
    table->path = find_column(fields, count, "path");
    table->split = find_column(fields, count, "split");
    table->class_name = find_column(fields, count, "class");
    table->label = find_column(fields, count, "label");
    table->mask = find_column(fields, count, "mask");
    bool classes = table->class_name != SIZE_MAX || table->label != SIZE_MAX, masks = table->mask != SIZE_MAX;
    if (table->path == SIZE_MAX || table->split == SIZE_MAX || (!classes && !masks))
        return trn_fail(err, TRN_ERR_FORMAT,
                        "line 1: it needs the columns path, split, and class or label (or both), or mask");
    if (classes && masks)
        return trn_fail(err, TRN_ERR_FORMAT,
                        "line 1: images have a class or a mask: leave out the columns class and label, or "
                        "the column mask");
    return TRN_OK;
}

/* Relative, and stays in the folder. */
static bool is_inside(const char *path)
{
    if (!*path || *path == '/') return false;
    for (const char *part = path; part; part = strchr(part, '/') ? strchr(part, '/') + 1 : NULL) {
        size_t length = strcspn(part, "/");
        if (length == 2 && !strncmp(part, "..", 2)) return false;
    }
    return true;
}

static trn_status check_path(const char *path, size_t line, trn_error *err)
{
    return is_inside(path)
               ? TRN_OK
               : trn_fail(err, TRN_ERR_FORMAT, "line %zu: path '%.128s' leaves the folder", line, path);
}

static trn_status read_row(const split_table *table, char **fields, size_t count, table_row *row,
                           trn_error *err)
{
    const size_t columns[] = {table->path, table->split, table->class_name, table->label, table->mask};
    size_t last = 0;
    for (size_t i = 0; i < TRN_COUNT(columns); i++)
        if (columns[i] != SIZE_MAX) last = TRN_MAX(last, columns[i]);
    if (last >= count)
        return trn_fail(err, TRN_ERR_FORMAT, "line %zu has %zu fields, the header %zu or more", row->line,
                        count, last + 1);
    row->path = fields[table->path];
    row->class_name = table->class_name == SIZE_MAX ? NULL : fields[table->class_name];
    row->mask = table->mask == SIZE_MAX ? NULL : fields[table->mask];
    row->label = -1;
    trn_status status = check_path(row->path, row->line, err);
    if (status == TRN_OK && row->mask) status = check_path(row->mask, row->line, err);
    if (status != TRN_OK) return status;
    if (!trn_split_parse(fields[table->split], &row->split))
        return trn_fail(err, TRN_ERR_FORMAT, "line %zu: split '%.32s' is none of train, valid, test",
                        row->line, fields[table->split]);
    if (row->class_name && !*row->class_name)
        return trn_fail(err, TRN_ERR_FORMAT, "line %zu has no class", row->line);
    if (table->label != SIZE_MAX && (!trn_parse_int(fields[table->label], &row->label) || row->label < 0 ||
                                     row->label >= DATA_MAX_CLASSES))
        return trn_fail(err, TRN_ERR_FORMAT, "line %zu: label '%.32s' is no class number (0 to %d)",
                        row->line, fields[table->label], DATA_MAX_CLASSES - 1);
    return TRN_OK;
}

static trn_status read_rows(split_table *table, data_csv *csv, trn_error *err)
{
    char *fields[MAX_FIELDS];
    size_t count;
    trn_status status = TRN_OK;
    while (data_csv_next(csv, fields, MAX_FIELDS, &count, &status, err)) {
        table_row row = {.line = csv->line};
        if (status == TRN_OK) status = read_row(table, fields, count, &row, err);
        if (status != TRN_OK) return status;
        if (table->count == DATA_MAX_SAMPLES ||
            !trn_grow(&table->rows, &table->capacity, table->count + 1, sizeof row))
            return trn_fail_memory(err, table->count * sizeof row, "samples");
        table->rows[table->count++] = row;
    }
    return TRN_OK;
}

static int by_class(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

/* Classes by name: numbers in the order of the sorted names. */
static trn_status number_classes(split_table *table, trn_error *err)
{
    if (!table->count) return TRN_OK;
    char **names = calloc(table->count, sizeof *names);
    if (!names) return trn_fail_memory(err, table->count * sizeof *names, "names of classes");
    for (size_t i = 0; i < table->count; i++)
        names[i] = table->rows[i].class_name;
    qsort(names, table->count, sizeof *names, by_class);
    size_t unique = 0;
    for (size_t i = 0; i < table->count; i++)
        if (!unique || strcmp(names[unique - 1], names[i])) names[unique++] = names[i];
    for (size_t i = 0; i < table->count && unique <= DATA_MAX_CLASSES; i++) {
        char **found = bsearch(&table->rows[i].class_name, names, unique, sizeof *names, by_class);
        table->rows[i].label = found - names;
    }
    free(names);
    return unique <= DATA_MAX_CLASSES
               ? TRN_OK
               : trn_fail(err, TRN_ERR_FORMAT, "it names %zu classes: at most %d", unique, DATA_MAX_CLASSES);
}

/* Every number has one name and every name one number, and no number is left out. */
static trn_status check_classes(const split_table *table, size_t count, const char **names, trn_error *err)
{
    for (size_t i = 0; i < table->count; i++) {
        const table_row *row = &table->rows[i];
        const char *name = row->class_name ? row->class_name : "";
        if (names[row->label] && strcmp(names[row->label], name))
            return trn_fail(err, TRN_ERR_FORMAT, "line %zu: class %d is '%.64s' here and '%.64s' before",
                            row->line, (int)row->label, name, names[row->label]);
        names[row->label] = name;
    }
    for (size_t i = 0; i < count; i++) {
        if (!names[i])
            return trn_fail(err, TRN_ERR_FORMAT, "no image is of class %zu, though classes go up to %zu", i,
                            count - 1);
        for (size_t j = 0; *names[i] && j < i; j++)
            if (!strcmp(names[i], names[j]))
                return trn_fail(err, TRN_ERR_FORMAT, "classes %zu and %zu are both '%.64s'", j, i, names[i]);
    }
    return TRN_OK;
}

/* How many classes there are, and their names. */
static trn_status find_classes(split_table *table, trn_error *err)
{
    trn_status status = table->label == SIZE_MAX ? number_classes(table, err) : TRN_OK;
    if (status != TRN_OK) return status;
    size_t count = 0;
    for (size_t i = 0; i < table->count; i++)
        count = TRN_MAX(count, (size_t)table->rows[i].label + 1);
    table->class_names = calloc(count + 1, sizeof *table->class_names);
    if (!table->class_names) return trn_fail_memory(err, count * sizeof(char *), "names of classes");
    table->class_count = count;
    return check_classes(table, count, table->class_names, err);
}

trn_status split_table_parse(char *text, size_t size, split_table *table, trn_error *err)
{
    *table = (split_table){.text = text};
    if (strlen(text) != size) return trn_fail(err, TRN_ERR_FORMAT, "it holds a byte 0: it is no text");
    data_csv csv = {.text = text};
    if (!strncmp(csv.text, "\xef\xbb\xbf", 3)) csv.text += 3; /* a byte order mark */
    trn_status status = read_header(table, &csv, err);
    if (status == TRN_OK) status = read_rows(table, &csv, err);
    if (status == TRN_OK && table->mask == SIZE_MAX) status = find_classes(table, err);
    return status;
}

trn_status split_table_read(const char *path, split_table *table, trn_error *err)
{
    *table = (split_table){0};
    size_t size = 0;
    char *text = trn_read_file(path, DATA_MAX_JSON, &size, err);
    if (!text) return err && err->code ? err->code : TRN_ERR_IO;
    return split_table_parse(text, size, table, err);
}
