/* Embeds one image with libterrane: reads RGB pixels, runs an encoder on the best Vulkan device, prints the vector.
 *   cc embed.c -o embed $(pkg-config --cflags --libs terrane)
 *   ./embed image.png galileo-nano encoder.pt        or, without weights:   ./embed image.png rcf */
#include <stdio.h>
#include <stdlib.h>
#include <terrane.h>

int main(int argc, char **argv)
{
    enum { SIDE = 64, CHANNELS = 3 };
    static float image[CHANNELS * SIDE * SIDE];
    const char *const names[] = {"red", "green", "blue"};
    trn_error err = {0};
    trn_gpu *gpu = NULL;
    trn_scene *scene = NULL;
    trn_encoder *encoder = NULL;
    trn_weights *weights = NULL;
    float *vector = NULL;
    int bands[CHANNELS] = {0, 1, 2}, order[CHANNELS];
    size_t used;

    if (argc < 3) return fprintf(stderr, "usage: embed IMAGE MODEL [WEIGHTS]\n"), 2;
    if (trn_scene_open((const char *const *)&argv[1], 1, NULL, &scene, &err)) goto done;
    if (trn_scene_read(scene, bands, CHANNELS, 0, 0, SIDE, SIDE, image, NULL, &err)) goto done;
    if (trn_encoder_create(argv[2], NULL, 0, &encoder, &err)) goto done;
    if (trn_encoder_choose_bands(encoder, names, CHANNELS, order, CHANNELS, &used, NULL, &err)) goto done;
    if (argc > 3 && trn_weights_open(argv[3], NULL, &weights, &err)) goto done;
    if (weights && trn_encoder_load(encoder, weights, NULL, &err)) goto done;
    if (trn_encoder_get_spec(encoder)->needs_fit && trn_encoder_fit(encoder, image, 1, CHANNELS, SIDE, &err)) goto done;
    if (trn_gpu_open(NULL, &gpu, &err)) goto done;
    trn_encode_options options = {.pool = TRN_FEATURES_MEAN};
    int channels = trn_encoder_get_spec(encoder)->channels;
    if (!(vector = calloc((size_t)channels, sizeof *vector))) goto done;
    if (trn_embed_image(gpu, encoder, image, CHANNELS, SIDE, &options, vector, &err)) goto done;
    for (int i = 0; i < channels; i++)
        printf("%g\n", vector[i]);
done:
    if (err.code) fprintf(stderr, "embed: %s\n", err.message);
    trn_gpu_close(gpu), trn_encoder_destroy(encoder), trn_weights_close(weights), trn_scene_close(scene), free(vector);
    return err.code;
}
