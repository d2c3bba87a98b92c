/* source: finds the line of a field in a recipe's text, for errors that point at the mistake itself. */
#ifndef TRN_SOURCE_H
#define TRN_SOURCE_H

#include <stddef.h>

/* The line on which `field` (NULL: none) of the constructor called on `line` is given; with item > 0, that of
 * the item-th value inside the field's braces, or of the constructor's own item-th value when field is NULL.
 * `line` itself when the text does not show it, as when the table was made elsewhere. */
int trn_source_line(const char *text, size_t size, int line, const char *constructor, const char *field,
                    int item);

#endif
