// Division by numbers that the host knows: n / d for n < 2^31 by one wide product, where 32-bit division is slow. The host
// gives the magic number of each divisor, and the shifts of all of them in one word: see trn_step_divisors.
uint divide(uint n, uint magic, uint shifts, uint which)
{
    uint high, low;
    umulExtended(n, magic, high, low);
    return (high + n) >> (shifts >> (5u * which) & 31u);
}

// Takes the last digit, of base d, off n.
uint take(inout uint n, uint d, uint magic, uint shifts, uint which)
{
    uint rest = divide(n, magic, shifts, which), digit = n - rest * d;
    n = rest;
    return digit;
}
