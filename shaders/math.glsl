// Functions that expressions of graph/pointwise.c use and GLSL lacks.

// Error function; absolute error below 1.5e-7 (least-squares Chebyshev fits of erf(x)/x on [0,1] and -log(erfc(x)) on
// [1,4]; beyond 4 the float result is 1).
float erf(float x)
{
    float s = x * x;
    float small = x * (1.1283791 + s * (-0.37612626 + s * (0.11283597 + s * (-0.026854329 + s * (0.0051893122 +
                  s * (-0.00080188555 + s * 7.8824974e-05))))));
    float t = min(abs(x), 4.0);
    float q = 0.00075696863 + t * (1.1259259 + t * (0.63909334 + t * (0.10331898 + t * (-0.022621986 + t *
              (0.0034368676 + t * (-0.00031757203 + t * 1.3309389e-05))))));
    return abs(x) < 1.0 ? small : sign(x) * (1.0 - exp(-q));
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
