/* cache: features in files of a folder, by key. Private to learn. */
#ifndef TRN_LEARN_CACHE_H
#define TRN_LEARN_CACHE_H

#include "learn.h"

/* malloc'd path of the file of a key; NULL: there is no cache (wanted so, or the folder cannot be made: a
 * note says so). */
char *learn_cache_path(const char *folder, const char *key, const trn_learn_hooks *hooks);
/* *found: the file is there, complete, undamaged and of this key; what else is there is a note. The sizes
 * must be `count` and `label_count`. */
trn_status learn_cache_read(const char *path, const char *key, size_t count, size_t label_count,
                            const trn_learn_hooks *hooks, trn_feature_set *out, bool *found, trn_error *err);
trn_status learn_cache_write(const char *path, const char *key, const trn_feature_set *set, trn_error *err);

#endif
