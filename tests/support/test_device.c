/* Opening and closing the devices of a test program. */
#include "test_device.h"

#include <stdio.h>
#include <stdlib.h>

#include "test_support.h"

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

static void on_device(const trn_device_info *info, trn_access access, void (*test)(const char *name))
{
    trn_error err = {0};
    char index[16], name[320];
    snprintf(index, sizeof index, "%d", info->index);
    snprintf(name, sizeof name, "%s, %s", info->name,
             access == TRN_ACCESS_ADDRESS ? "addresses" : "storage buffers");
    assert_trn_ok(trn_gpu_open(&(trn_gpu_options){.device = index, .access = access}, &gpu, &err), err);
    printf("device: %s\n", name);
    test(name);
    assert_int_equal(close_device(NULL), 0);
}

void test_every_device(void (*test)(const char *name))
{
    trn_error err = {0};
    trn_device_info *devices = NULL;
    size_t count = 0;
    int usable = 0;
    assert_trn_ok(trn_gpu_enumerate(&devices, &count, &err), err);
    for (size_t i = 0; i < count; i++) {
        const trn_device_info *info = &devices[i];
        if (!info->usable) continue;
        usable++;
        if (info->buffer_address && info->int64) on_device(info, TRN_ACCESS_ADDRESS, test);
        on_device(info, TRN_ACCESS_STORAGE, test);
    }
    assert_true(usable > 0);
    free(devices);
}
