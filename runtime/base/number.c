/* Clock, hashes, half floats, progress. */
#include "base.h"

#include <math.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

uint64_t trn_now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

#ifdef CLOCK_BOOTTIME
double trn_process_seconds(void)
{
    char text[1024];
    unsigned long long ticks = 0;
    struct timespec now;
    FILE *file = fopen("/proc/self/stat", "r");
    size_t length = file ? fread(text, 1, sizeof text - 1, file) : 0;
    if (file) fclose(file);
    text[length] = '\0';
    const char *at = strrchr(text, ')'); /* behind the name of the program: field 3; the start is field 22 */
    for (int field = 3; at && field <= 22; field++)
        at = strchr(at + 1, ' ');
    if (!at || sscanf(at, "%llu", &ticks) != 1 || clock_gettime(CLOCK_BOOTTIME, &now) != 0) return 0;
    return (double)now.tv_sec + (double)now.tv_nsec * 1e-9 - (double)ticks / (double)sysconf(_SC_CLK_TCK);
}
#else
double trn_process_seconds(void)
{
    return 0;
}
#endif

uint64_t trn_fnv1a64(const void *data, size_t size, uint64_t seed)
{
    const uint8_t *bytes = data;
    for (size_t i = 0; i < size; i++) {
        seed ^= bytes[i];
        seed *= 0x100000001b3ull;
    }
    return seed;
}

uint64_t trn_splitmix64(uint64_t z)
{
    z += 0x9E3779B97F4A7C15ull;
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9ull;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBull;
    return z ^ (z >> 31);
}

double trn_hash_uniform(uint64_t name_hash, uint64_t i)
{
    return (double)(trn_splitmix64(name_hash + i) >> 40) / 8388608.0 - 1.0;
}

float trn_bf16_to_f32(uint16_t h)
{
    uint32_t bits = (uint32_t)h << 16;
    float f;
    memcpy(&f, &bits, sizeof f);
    return f;
}

float trn_f16_to_f32(uint16_t h)
{
    uint32_t sign = (uint32_t)(h & 0x8000u) << 16, exponent = (h >> 10) & 31u, mantissa = h & 1023u, bits;
    if (exponent == 31) {
        bits = sign | 0x7f800000u | (mantissa << 13);
    } else if (exponent) {
        bits = sign | ((exponent + 112) << 23) | (mantissa << 13);
    } else {
        float f = ldexpf((float)mantissa, -24);
        return sign ? -f : f;
    }
    float f;
    memcpy(&f, &bits, sizeof f);
    return f;
}

uint16_t trn_f32_to_f16(float f)
{
    uint32_t bits;
    memcpy(&bits, &f, sizeof bits);
    uint32_t sign = (bits >> 16) & 0x8000u, magnitude = bits & 0x7fffffffu;
    if (magnitude > 0x7f800000u) return (uint16_t)(sign | 0x7e00u);
    if (magnitude >= 0x477ff000u) return (uint16_t)(sign | 0x7c00u);
    if (magnitude < 0x38800000u) { /* subnormal half: let the float adder round */
        float rounded = fabsf(f) + 0.5f;
        memcpy(&bits, &rounded, sizeof bits);
        return (uint16_t)(sign | (bits - 0x3f000000u));
    }
    uint32_t odd = (magnitude >> 13) & 1u;
    return (uint16_t)(sign | ((magnitude - 0x38000000u + 0xfffu + odd) >> 13));
}

/* SHA-256, FIPS 180-4. */
static uint32_t rotate_right(uint32_t x, int n)
{
    return (x >> n) | (x << (32 - n));
}

/* One round; callers turn the names of the eight words instead of moving their values. */
static inline void sha256_round(uint32_t a, uint32_t b, uint32_t c, uint32_t *d, uint32_t e, uint32_t f,
                                uint32_t g, uint32_t *h, uint32_t added)
{
    uint32_t t = *h + added + (g ^ (e & (f ^ g)));
    t += rotate_right(e, 6) ^ rotate_right(e, 11) ^ rotate_right(e, 25);
    *d += t;
    *h = t + (rotate_right(a, 2) ^ rotate_right(a, 13) ^ rotate_right(a, 22)) + ((a & b) | (c & (a | b)));
}

static void sha256_block(uint32_t state[8], const uint8_t *block)
{
    static const uint32_t k[64] = {
        0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5,
        0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174,
        0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da,
        0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967,
        0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85,
        0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070,
        0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3,
        0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2};
    uint32_t w[64];
    for (int i = 0; i < 16; i++)
        w[i] = (uint32_t)block[4 * i] << 24 | (uint32_t)block[4 * i + 1] << 16 |
               (uint32_t)block[4 * i + 2] << 8 | block[4 * i + 3];
    for (int i = 16; i < 64; i++) {
        uint32_t a = rotate_right(w[i - 15], 7) ^ rotate_right(w[i - 15], 18) ^ (w[i - 15] >> 3);
        uint32_t b = rotate_right(w[i - 2], 17) ^ rotate_right(w[i - 2], 19) ^ (w[i - 2] >> 10);
        w[i] = w[i - 16] + a + w[i - 7] + b;
    }
    uint32_t s0 = state[0], s1 = state[1], s2 = state[2], s3 = state[3];
    uint32_t s4 = state[4], s5 = state[5], s6 = state[6], s7 = state[7];
    for (int i = 0; i < 64; i += 8) {
        sha256_round(s0, s1, s2, &s3, s4, s5, s6, &s7, k[i] + w[i]);
        sha256_round(s7, s0, s1, &s2, s3, s4, s5, &s6, k[i + 1] + w[i + 1]);
        sha256_round(s6, s7, s0, &s1, s2, s3, s4, &s5, k[i + 2] + w[i + 2]);
        sha256_round(s5, s6, s7, &s0, s1, s2, s3, &s4, k[i + 3] + w[i + 3]);
        sha256_round(s4, s5, s6, &s7, s0, s1, s2, &s3, k[i + 4] + w[i + 4]);
        sha256_round(s3, s4, s5, &s6, s7, s0, s1, &s2, k[i + 5] + w[i + 5]);
        sha256_round(s2, s3, s4, &s5, s6, s7, s0, &s1, k[i + 6] + w[i + 6]);
        sha256_round(s1, s2, s3, &s4, s5, s6, s7, &s0, k[i + 7] + w[i + 7]);
    }
    state[0] += s0;
    state[1] += s1;
    state[2] += s2;
    state[3] += s3;
    state[4] += s4;
    state[5] += s5;
    state[6] += s6;
    state[7] += s7;
}

void trn_sha256_begin(trn_sha256_state *state)
{
    *state = (trn_sha256_state){.words = {0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a, 0x510e527f,
                                          0x9b05688c, 0x1f83d9ab, 0x5be0cd19}};
}

void trn_sha256_update(trn_sha256_state *state, const void *data, size_t size)
{
    const uint8_t *bytes = data;
    size_t held = (size_t)(state->size % 64);
    state->size += size;
    if (held) {
        size_t taken = TRN_MIN(size, 64 - held);
        memcpy(state->block + held, bytes, taken);
        if (held + taken < 64) return;
        sha256_block(state->words, state->block);
        bytes += taken;
        size -= taken;
    }
    for (; size >= 64; size -= 64, bytes += 64)
        sha256_block(state->words, bytes);
    if (size) memcpy(state->block, bytes, size);
}

void trn_sha256_end(const trn_sha256_state *state, uint8_t digest[32])
{
    uint32_t words[8];
    uint8_t tail[128] = {0};
    size_t held = (size_t)(state->size % 64), tail_size = held < 56 ? 64 : 128;
    memcpy(words, state->words, sizeof words);
    if (held) memcpy(tail, state->block, held);
    tail[held] = 0x80;
    for (int i = 0; i < 8; i++)
        tail[tail_size - 1 - (size_t)i] = (uint8_t)(state->size * 8 >> (8 * i));
    sha256_block(words, tail);
    if (tail_size == 128) sha256_block(words, tail + 64);
    for (int i = 0; i < 32; i++)
        digest[i] = (uint8_t)(words[i / 4] >> (24 - 8 * (i % 4)));
}

void trn_sha256(const void *data, size_t size, uint8_t digest[32])
{
    trn_sha256_state state;
    trn_sha256_begin(&state);
    if (size) trn_sha256_update(&state, data, size);
    trn_sha256_end(&state, digest);
}

void trn_sha256_text(const uint8_t digest[32], char text[65])
{
    for (int i = 0; i < 32; i++)
        snprintf(text + 2 * i, 3, "%02x", digest[i]);
}

void trn_progress_report(const trn_progress *progress, const char *stage, uint64_t done, uint64_t total)
{
    if (progress && progress->report) progress->report(progress->user, stage, done, total);
}

bool trn_progress_cancelled(const trn_progress *progress)
{
    return progress && progress->cancelled && progress->cancelled(progress->user);
}
