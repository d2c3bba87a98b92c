/* The device, or the devices, that a test program runs on. */
#ifndef TEST_DEVICE_H
#define TEST_DEVICE_H

#include "gpu.h"

extern trn_gpu *gpu; /* of the group that runs */

/* Set-up and tear-down of a cmocka group. Closing fails when the validation layer had anything to say. */
int open_device(void **state);
int close_device(void **state);

/* Calls test with `gpu` open on each usable device found, through addresses where it has them, then through
 * storage buffers; name says which. Fails on a machine without a Vulkan driver, and on validation messages.
 */
void test_every_device(void (*test)(const char *name));

#endif
