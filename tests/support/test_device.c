/* Opening and closing the device of a test program. */
#include "test_device.h"

#include <stdio.h>

trn_gpu *gpu;

int open_device(void **state)
{
    (void)state;
    trn_error err = {0};
    if (trn_gpu_open(NULL, &gpu, &err) == TRN_OK) return 0;
    fprintf(stderr, "%s\n", err.message);
    return -1;
}

int close_device(void **state)
{
    (void)state;
    int messages = (int)trn_gpu_get_stats(gpu).validation_messages;
    trn_gpu_close(gpu);
    return messages;
}
