/* What pull and models both say of an encoder's published file. */
#ifndef TRN_COMMAND_MODEL_INFO_H
#define TRN_COMMAND_MODEL_INFO_H

#include "models.h"

/* NULL with err naming the nearest encoder. */
const trn_model_info *model_info_find(const char *name, trn_error *err);
/* Whether info->source is the file itself, not a page about it. */
bool model_source_is_file(const trn_model_info *info);
/* One line about a licence that forbids commercial use; false when it does not. */
bool model_licence_warning(const trn_model_info *info, char *out, size_t capacity);

/* Everything about one encoder, as text or as a JSON object. */
trn_status model_show(const char *name, bool json, trn_text *out, trn_error *err);

#endif
