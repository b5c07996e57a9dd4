/* Products of bytes a second that one core makes with vpdpbusd on registers alone: benchmarks/maxsim.py compiles this. */

#include <time.h>

#define ADD(sum) "vpdpbusd %%zmm31, %%zmm30, %%zmm" #sum "\n\t"
#define CHAINS 16 /* sums at once: more than the instruction's latency times its throughput */

double peak(long rounds)
{
    struct timespec begun, ended;
    long left = rounds;
    clock_gettime(CLOCK_MONOTONIC, &begun);
    __asm__ volatile("1:\n\t" ADD(0) ADD(1) ADD(2) ADD(3) ADD(4) ADD(5) ADD(6) ADD(7) ADD(8) ADD(9) ADD(10) ADD(11)
                         ADD(12) ADD(13) ADD(14) ADD(15) "dec %0\n\tjnz 1b"
                     : "+r"(left)
                     :
                     : "cc", "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7", "xmm8", "xmm9", "xmm10",
                       "xmm11", "xmm12", "xmm13", "xmm14", "xmm15");
    clock_gettime(CLOCK_MONOTONIC, &ended);
    double seconds = (double)(ended.tv_sec - begun.tv_sec) + 1e-9 * (double)(ended.tv_nsec - begun.tv_nsec);
    return (double)rounds * CHAINS * 64 / seconds;
}
