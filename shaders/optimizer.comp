// One step of an optimiser on one parameter, in place: graph/update_weights.c. Macros: ADAMW or SGD, MOMENTUM, NESTEROV,
// COUPLED, NORM, CLIP, AVERAGE, ACCUMULATE. Operands that a variant has no use for are bound to another one, and not touched.
#version 460

#define BUFFERS(B)                                                                                            \
    B(0, Float, gradient) B(1, Float, now) B(2, Uint, norm) B(3, Float, weights) B(4, Float, first)           \
    B(5, Float, second) B(6, Float, average) B(7, Float, accumulated)
#define SCALARS                                                                                               \
    uint count;                                                                                               \
    float lr_scale, decay, first_rate, second_rate, eps, max_norm, average_rate;
#include "terrane.glsl"

layout(local_size_x = 128) in;

// a + rate * (b - a), from the end that is nearer, so that a rate of 1 gives b.
float blend(float a, float b, float rate)
{
    return rate < 0.5 ? a + rate * (b - a) : b - (1.0 - rate) * (b - a);
}

void main()
{
    uint i = INVOCATION_INDEX;
    if (i >= p.count) return;
    float g = AT(gradient, i);
    bool ends_step = AT(now, 4) > 0.0;
#ifdef ACCUMULATE
    g += AT(accumulated, i);
    AT(accumulated, i) = ends_step ? 0.0 : g;
#endif
    if (!ends_step) return;
    float old = AT(weights, i), w = old;
    float lr = AT(now, 0) * p.lr_scale;
    g *= AT(now, 5);
#ifdef NORM
    uint norm = AT(norm, 0);
    // looked at as bits: compilers may take it that floats are never NaN or infinite
    if ((norm & 0x7f800000u) == 0x7f800000u) {
#ifdef AVERAGE
        if (AT(now, 3) > 0.0) AT(average, i) = old;
#endif
        return;
    }
#ifdef CLIP
    g *= min(1.0, p.max_norm / (uintBitsToFloat(norm) + 1e-6));
#endif
#endif
#ifdef COUPLED
    g += p.decay * w;
#else
    w -= lr * p.decay * w;
#endif
#if defined ADAMW
    float m = blend(AT(first, i), g, p.first_rate);
    float v = blend(AT(second, i), g * g, p.second_rate);
    AT(first, i) = m;
    AT(second, i) = v;
    w -= lr * AT(now, 1) * m / (sqrt(v) * AT(now, 2) + p.eps);
#elif defined MOMENTUM
    float m = p.first_rate * AT(first, i) + g;
    AT(first, i) = m;
#ifdef NESTEROV
    w -= lr * (g + p.first_rate * m);
#else
    w -= lr * m;
#endif
#else
    w -= lr * g;
#endif
    AT(weights, i) = w;
#ifdef AVERAGE
    AT(average, i) = blend(AT(now, 3) > 0.0 ? old : AT(average, i), w, p.average_rate);
#endif
}
