/* Products of bytes a second that one core makes with vpdpbusd on registers alone: benchmarks/maxsim.py compiles this. */

#include <immintrin.h>
#include <time.h>

#define CHAINS 24 /* sums at once: more than the instruction's latency times its throughput */

__attribute__((target("avx512f,avx512vnni"))) double peak(long rounds)
{
    __m512i sums[CHAINS], one = _mm512_set1_epi32(0x01020304), other = _mm512_set1_epi32(0x04030201);
    struct timespec begun, ended;
    for (int i = 0; i < CHAINS; i++)
        sums[i] = _mm512_setzero_si512();
    clock_gettime(CLOCK_MONOTONIC, &begun);
    for (long round = 0; round < rounds; round++)
        for (int i = 0; i < CHAINS; i++)
            __asm__ volatile("vpdpbusd %2, %1, %0" : "+v"(sums[i]) : "v"(one), "v"(other));
    clock_gettime(CLOCK_MONOTONIC, &ended);
    double seconds = (double)(ended.tv_sec - begun.tv_sec) + 1e-9 * (double)(ended.tv_nsec - begun.tv_nsec);
    return (double)rounds * CHAINS * 64 / seconds;
}
