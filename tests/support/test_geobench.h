/* Real samples of GEO-Bench tasks, where they lie beside the checkout. */
#ifndef TEST_GEOBENCH_H
#define TEST_GEOBENCH_H

/* "../shared/data/<name>", or NULL when it is not there. malloc'd. */
char *test_shared_data(const char *name);
/* A new folder of this name with links to the files of "../shared/data/geobench/<name>" and a default
 * partition of its own, which has the samples that are there in train and again in valid: what is stored as
 * the partition may list others, or be the text of a link. malloc'd; NULL, with a note, when there are none.
 */
char *test_geobench_folder(const char *name);

#endif
