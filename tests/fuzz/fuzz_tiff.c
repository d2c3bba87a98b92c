/* Bytes as a scene: whatever they hold, opening and reading end in values or an error. Takes TIFF, JPEG and
 * PNG. */
#include "raster_private.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    enum { SIDE = 32 };
    trn_error err = {0};
    trn_scene *scene;
    if (scene_open_memory("fuzz", data, size, NULL, &scene, &err) != TRN_OK) {
        if (!err.message[0]) abort(); /* an error says what is wrong */
        return 0;
    }
    const trn_scene_info *info = trn_scene_get_info(scene);
    const int bands[2] = {0, (int)info->band_count - 1};
    static float out[2 * SIDE * SIDE];
    static uint8_t valid[SIDE * SIDE];
    const int64_t corners[][2] = {{-5, -5}, {info->width - SIDE / 2, info->height - SIDE / 2}};
    for (size_t i = 0; i < TRN_COUNT(corners); i++) {
        err = (trn_error){0};
        trn_status status =
            trn_scene_read(scene, bands, 2, corners[i][0], corners[i][1], SIDE, SIDE, out, valid, &err);
        if (status != TRN_OK && !err.message[0]) abort();
    }
    trn_scene_close(scene);
    return 0;
}
