// Division by numbers that the host knows: n / d for n < 2^31 by one wide product, where 32-bit division is slow. The host
// gives d as (magic, shift): see trn_step_divisor.
uint divide(uint n, uint magic, uint shift)
{
    uint high, low;
    umulExtended(n, magic, high, low);
    return (high + n) >> shift;
}
