/* Small folders of images with a split.csv, for tests of learning. */
#ifndef TEST_IMAGES_H
#define TEST_IMAGES_H

#include "base.h"

typedef struct test_images {
    int side;
    int classes;            /* each of a colour of its own, with some noise */
    int train, valid, test; /* images of each class */
    const char *mask;       /* not NULL: segmentation; this folder below gets masks: halves of two classes */
} test_images;

/* Writes images "c0_train_0.png" and so on and split.csv into dir. Fails the test when it cannot. */
void test_images_write(const char *dir, const test_images *images);
/* One image: width x height of colour `colour`, noise by seed. */
void test_image_write(const char *dir, const char *name, int width, int height, int colour, int seed);

#endif
