// Functions that expressions of graph/pointwise.c use and GLSL lacks.

// The standard normal distribution: density, and the probability of values below x; absolute errors below 2e-7. The tail
// beyond t is the density times a smooth function (Mills' ratio): here a minimax fit in 1 / (1 + 0.32 t) on [0, 6].
float normal_bell(float t)
{
    t = min(abs(t), 14.0); // beyond it is 0
    return exp(-0.5 * t * t);
}
float normal_pdf(float x)
{
    return 0.39894228 * normal_bell(x);
}
float normal_cdf(float x)
{
    float u = 1.0 / (1.0 + 0.32 * min(abs(x), 14.0));
    float tail = normal_bell(x) * (0.00480835744 + u * (0.0814058656 + u * (0.310235007 + u * (-0.259483176 +
                 u * (0.491907704 + u * -0.128873789)))));
    return mix(tail, 1.0 - tail, x > 0.0);
}

// log(1 + u) for u in [0, 1], exact to the last bits also of small u: twice the area tangent of u/(2+u).
float log1p_unit(float u)
{
    float r = u / (2.0 + u), s = r * r;
    return 2.0 * r * (1.0 + s * (0.33333333 + s * (0.2 + s * (0.14285714 + s * (0.11111111 + s * (0.090909091 +
           s * 0.076923077))))));
}

// tanh that stays finite for large arguments on every driver.
float tanh_safe(float x)
{
    return 1.0 - 2.0 / (exp(2.0 * min(x, 40.0)) + 1.0);
}

// sin(x + quarter_turns * pi/2) with absolute error below 2e-7 for |x| up to 6000: GLSL's own sin and cos may be off by
// 5e-4. Quarter turns are taken off in three parts; the rest is a least-squares polynomial on [-pi/4, pi/4].
float sin_reduced(float x, int quarter_turns)
{
    float turns = round(x * 0.636619772);
    float r = ((x - turns * 1.5703125) - turns * 0.0004837513) - turns * 7.5497901e-08;
    float s = r * r;
    float odd = r + r * s * (-0.16666667 + s * (0.0083333319 + s * (-0.00019840039 + s * 2.7243805e-06)));
    float even = 1.0 - 0.5 * s + s * s * (0.041666664 + s * (-0.0013888278 + s * 2.4542656e-05));
    int quadrant = (int(turns) + quarter_turns) & 3;
    float value = (quadrant & 1) == 0 ? odd : even;
    return quadrant < 2 ? value : -value;
}

float sin_precise(float x)
{
    return sin_reduced(x, 0);
}

float cos_precise(float x)
{
    return sin_reduced(x, 1);
}
