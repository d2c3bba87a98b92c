/* libFuzzer: bare pickles, and legacy checkpoints after their preamble. */
#include "fuzz_weights.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void parse(const uint8_t *data, size_t size)
{
    trn_pickle pickle;
    trn_error err = {0};
    size_t consumed = 0;
    trn_status status = trn_pickle_parse(data, size, &pickle, &consumed, &err);
    fuzz_require(consumed <= size);
    fuzz_require(status == TRN_OK ? pickle.root != NULL : err.message[0] != 0);
    trn_pickle_free(&pickle);
}

static void open_legacy(const uint8_t *data, size_t size)
{
    static const uint8_t preamble[] = {0x80, 0x02, 0x8a, 0x0a, 0x6c, 0xfc, 0x9c, 0x46, 0xf9,
                                       0x20, 0x6a, 0xa8, 0x50, 0x19, 0x2e, 0x80, 0x02, 'M',
                                       0xe9, 0x03, '.',  0x80, 0x02, '}',  '.'};
    uint8_t *file = malloc(sizeof preamble + size);
    fuzz_require(file != NULL);
    memcpy(file, preamble, sizeof preamble);
    if (size) memcpy(file + sizeof preamble, data, size);
    fuzz_open_and_read(file, sizeof preamble + size);
    free(file);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (!size) return 0;
    if (data[0] % 2)
        open_legacy(data + 1, size - 1);
    else
        parse(data + 1, size - 1);
    return 0;
}
