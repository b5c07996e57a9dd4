/* MaxSim over int8 codes and over sign bits, by the instructions that the processor has.
 *
 * Each page's vectors lie row after row. A block of rows is turned so that a register holds the same four (two) codes
 * of many vectors, in any order of the vectors, since only their maximum counts; a row that is missing from the last
 * block is its first row once more. Every path gives the same integers.
 */

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#if defined(__x86_64__)
#include <immintrin.h>
#elif defined(__aarch64__)
#include <arm_neon.h>
#if defined(__linux__)
#include <sys/auxv.h>
#endif
#endif

#define GROUP 12      /* tokens that are scored together, at most */
#define WIDEST 65536  /* dimensions: sums of products stay within 32 bits */
#define LANES 8       /* vectors whose bits lie side by side */
#define UNROLL _Pragma("GCC unroll 12") /* or sums that are kept in an array go through memory */

/* A question's tokens. Of int8 codes: in groups, and of each `step` dimensions those of all tokens of a group side by
 * side. Of bits: one token after the other. */
typedef struct {
    int tokens, dim;       /* dim: codes, or words of 64 bits */
    int group;             /* tokens in a group, but for the last */
    const void *packed;
    int32_t *correction;   /* what is added to the sums of each token */
} Query;

/* The greatest sum of products (of bits: the least number that differ) of each token with any of a page's vectors. */
typedef void Best(const Query *query, const void *page, int64_t count, void *scratch, int32_t *best);

static int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }

/* Where so many rows of a page lie, from `first` on; its own place stands for those that the page does not have. */
static inline void find_rows(const int8_t **rows, int most, const int8_t *codes, int64_t first, int64_t count, int dim)
{
    for (int row = 0; row < most; row++)
        rows[row] = codes + (first + row < count ? first + row : first) * dim;
}

#if defined(__x86_64__)

/* AVX-512 VNNI: 32 vectors, 4 dimensions a register of 16. vpdpbusd multiplies unsigned by signed: 128 is added to the
 * codes, and 128 times the sum of a token's codes taken off again. */

#define VNNI __attribute__((target("avx512f,avx512bw,avx512vnni")))

VNNI static inline __m512i four_rows(const int8_t *const *rows, int64_t at, int whole)
{
    __m128i a, b, c, d;
    if (whole) {
        a = _mm_loadu_si128((const __m128i *)(rows[0] + at));
        b = _mm_loadu_si128((const __m128i *)(rows[4] + at));
        c = _mm_loadu_si128((const __m128i *)(rows[8] + at));
        d = _mm_loadu_si128((const __m128i *)(rows[12] + at));
    } else {
        a = _mm_loadl_epi64((const __m128i *)(rows[0] + at));
        b = _mm_loadl_epi64((const __m128i *)(rows[4] + at));
        c = _mm_loadl_epi64((const __m128i *)(rows[8] + at));
        d = _mm_loadl_epi64((const __m128i *)(rows[12] + at));
    }
    __m512i found = _mm512_inserti32x4(_mm512_castsi128_si512(a), b, 1);
    found = _mm512_inserti32x4(_mm512_inserti32x4(found, c, 2), d, 3);
    return _mm512_xor_si512(found, _mm512_set1_epi8((char)0x80));
}

/* 16 rows → for each four dimensions a register, every second of `to` */
VNNI static void turn_vnni(const int8_t *const *rows, int dim, __m512i *to)
{
    for (int at = 0; at < dim; at += 16) {
        int whole = at + 16 <= dim;
        __m512i a = four_rows(rows, at, whole), b = four_rows(rows + 1, at, whole);
        __m512i c = four_rows(rows + 2, at, whole), d = four_rows(rows + 3, at, whole);
        __m512i ab = _mm512_unpacklo_epi32(a, b), cd = _mm512_unpacklo_epi32(c, d);
        to[0] = _mm512_unpacklo_epi64(ab, cd);
        to[2] = _mm512_unpackhi_epi64(ab, cd);
        if (whole) {
            ab = _mm512_unpackhi_epi32(a, b), cd = _mm512_unpackhi_epi32(c, d);
            to[4] = _mm512_unpacklo_epi64(ab, cd);
            to[6] = _mm512_unpackhi_epi64(ab, cd);
        }
        to += 8;
    }
}

/* As text: around the intrinsic GCC copies each sum, and then those of 12 tokens find no room in the registers. */
#define ADD_PRODUCTS(sum, unsigned_, signed_)                                                                          \
    __asm__("vpdpbusd %2, %1, %0" : "+v"(sum) : "v"(unsigned_), "v"(signed_))

#define DEFINE_VNNI(TOKENS)                                                                                            \
    VNNI static void dots_vnni_##TOKENS(const __m512i *turned, int steps, const int32_t *query, __m512i *best)         \
    {                                                                                                                  \
        __m512i one[TOKENS], two[TOKENS];                                                                              \
        UNROLL for (int t = 0; t < TOKENS; t++) {                                                                      \
            __m512i token = _mm512_set1_epi32(query[t]);                                                               \
            one[t] = _mm512_dpbusd_epi32(_mm512_setzero_si512(), turned[0], token);                                    \
            two[t] = _mm512_dpbusd_epi32(_mm512_setzero_si512(), turned[1], token);                                    \
        }                                                                                                              \
        for (int step = 1; step < steps; step++) {                                                                     \
            __m512i left = turned[2 * step], right = turned[2 * step + 1];                                             \
            UNROLL for (int t = 0; t < TOKENS; t++) {                                                                  \
                __m512i token = _mm512_set1_epi32(query[step * TOKENS + t]);                                           \
                ADD_PRODUCTS(one[t], left, token);                                                                     \
                ADD_PRODUCTS(two[t], right, token);                                                                    \
            }                                                                                                          \
        }                                                                                                              \
        UNROLL for (int t = 0; t < TOKENS; t++)                                                                        \
            best[t] = _mm512_max_epi32(best[t], _mm512_max_epi32(one[t], two[t]));                                     \
    }
DEFINE_VNNI(1) DEFINE_VNNI(2) DEFINE_VNNI(3) DEFINE_VNNI(4) DEFINE_VNNI(5) DEFINE_VNNI(6)
DEFINE_VNNI(7) DEFINE_VNNI(8) DEFINE_VNNI(9) DEFINE_VNNI(10) DEFINE_VNNI(11) DEFINE_VNNI(12)

typedef void DotsVnni(const __m512i *turned, int steps, const int32_t *query, __m512i *best);
static DotsVnni *const DOTS_VNNI[GROUP + 1] = {
    NULL, dots_vnni_1, dots_vnni_2, dots_vnni_3, dots_vnni_4, dots_vnni_5, dots_vnni_6,
    dots_vnni_7, dots_vnni_8, dots_vnni_9, dots_vnni_10, dots_vnni_11, dots_vnni_12,
};

VNNI static void int8_vnni(const Query *query, const void *page, int64_t count, void *scratch, int32_t *best)
{
    const int8_t *codes = page;
    int dim = query->dim, steps = dim / 4;
    __m512i *turned = scratch, *maxima = turned + 2 * steps + 8;
    for (int t = 0; t < query->tokens; t++)
        maxima[t] = _mm512_set1_epi32(INT32_MIN);
    for (int64_t first = 0; first < count; first += 32) {
        const int8_t *rows[32];
        find_rows(rows, 32, codes, first, count, dim);
        turn_vnni(rows, dim, turned);
        turn_vnni(rows + 16, dim, turned + 1);
        int64_t next = (first + 32) * dim, end = smaller(first + 64, count) * dim;
        for (; next < end; next += 64) /* the next block comes from memory while this one is scored */
            _mm_prefetch((const char *)codes + next, _MM_HINT_T0);
        const int32_t *packed = query->packed;
        for (int t = 0; t < query->tokens; t += query->group) {
            int tokens = (int)smaller(query->group, query->tokens - t);
            DOTS_VNNI[tokens](turned, steps, packed, maxima + t);
            packed += (int64_t)steps * tokens;
        }
    }
    for (int t = 0; t < query->tokens; t++)
        best[t] = _mm512_reduce_max_epi32(maxima[t]) + query->correction[t];
}

/* AVX2: 16 vectors, 2 dimensions a register of 8, widened to 16 bits: vpmaddubsw would saturate. */

#define AVX2 __attribute__((target("avx2")))

AVX2 static inline __m256i two_rows(const int8_t *one, const int8_t *other)
{
    __m128i a = _mm_cvtepi8_epi16(_mm_loadl_epi64((const __m128i *)one));
    __m128i b = _mm_cvtepi8_epi16(_mm_loadl_epi64((const __m128i *)other));
    return _mm256_inserti128_si256(_mm256_castsi128_si256(a), b, 1);
}

/* 8 rows → for each two dimensions a register, every second of `to` */
AVX2 static void turn_avx2(const int8_t *const *rows, int dim, __m256i *to)
{
    for (int at = 0; at < dim; at += 8, to += 8) {
        __m256i a = two_rows(rows[0] + at, rows[4] + at), b = two_rows(rows[1] + at, rows[5] + at);
        __m256i c = two_rows(rows[2] + at, rows[6] + at), d = two_rows(rows[3] + at, rows[7] + at);
        __m256i ab = _mm256_unpacklo_epi32(a, b), cd = _mm256_unpacklo_epi32(c, d);
        to[0] = _mm256_unpacklo_epi64(ab, cd);
        to[2] = _mm256_unpackhi_epi64(ab, cd);
        ab = _mm256_unpackhi_epi32(a, b), cd = _mm256_unpackhi_epi32(c, d);
        to[4] = _mm256_unpacklo_epi64(ab, cd);
        to[6] = _mm256_unpackhi_epi64(ab, cd);
    }
}

#define DEFINE_AVX2(TOKENS)                                                                                            \
    AVX2 static void dots_avx2_##TOKENS(const __m256i *turned, int steps, const int32_t *query, __m256i *best)         \
    {                                                                                                                  \
        __m256i one[TOKENS], two[TOKENS];                                                                              \
        UNROLL for (int t = 0; t < TOKENS; t++)                                                                        \
            one[t] = two[t] = _mm256_setzero_si256();                                                                  \
        for (int step = 0; step < steps; step++) {                                                                     \
            __m256i left = turned[2 * step], right = turned[2 * step + 1];                                             \
            UNROLL for (int t = 0; t < TOKENS; t++) {                                                                  \
                __m256i token = _mm256_set1_epi32(query[step * TOKENS + t]);                                           \
                one[t] = _mm256_add_epi32(one[t], _mm256_madd_epi16(left, token));                                     \
                two[t] = _mm256_add_epi32(two[t], _mm256_madd_epi16(right, token));                                    \
            }                                                                                                          \
        }                                                                                                              \
        UNROLL for (int t = 0; t < TOKENS; t++)                                                                        \
            best[t] = _mm256_max_epi32(best[t], _mm256_max_epi32(one[t], two[t]));                                     \
    }
DEFINE_AVX2(1) DEFINE_AVX2(2) DEFINE_AVX2(3) DEFINE_AVX2(4)

typedef void DotsAvx2(const __m256i *turned, int steps, const int32_t *query, __m256i *best);
static DotsAvx2 *const DOTS_AVX2[] = {NULL, dots_avx2_1, dots_avx2_2, dots_avx2_3, dots_avx2_4};

AVX2 static void int8_avx2(const Query *query, const void *page, int64_t count, void *scratch, int32_t *best)
{
    const int8_t *codes = page;
    int dim = query->dim, steps = dim / 2;
    __m256i *turned = scratch, *maxima = turned + 2 * steps;
    for (int t = 0; t < query->tokens; t++)
        maxima[t] = _mm256_set1_epi32(INT32_MIN);
    for (int64_t first = 0; first < count; first += 16) {
        const int8_t *rows[16];
        find_rows(rows, 16, codes, first, count, dim);
        turn_avx2(rows, dim, turned);
        turn_avx2(rows + 8, dim, turned + 1);
        const int32_t *packed = query->packed;
        for (int t = 0; t < query->tokens; t += query->group) {
            int tokens = (int)smaller(query->group, query->tokens - t);
            DOTS_AVX2[tokens](turned, steps, packed, maxima + t);
            packed += (int64_t)steps * tokens;
        }
    }
    for (int t = 0; t < query->tokens; t++) {
        int32_t lanes[8];
        _mm256_storeu_si256((__m256i *)lanes, maxima[t]);
        best[t] = lanes[0];
        for (int lane = 1; lane < 8; lane++)
            best[t] = best[t] > lanes[lane] ? best[t] : lanes[lane];
    }
}

/* Bits: of LANES vectors the first word of each, then the second. */

#define VPOPCNT __attribute__((target("avx512f,avx512vpopcntdq")))
#define RUN 16 /* times LANES vectors stay in the nearest cache while all tokens pass */

VPOPCNT static inline __attribute__((always_inline)) __m512i
least(const char *bits, int64_t groups, int words, const uint64_t *token, __m512i found)
{
    for (int64_t group = 0; group < groups; group++) {
        __m512i differing = _mm512_setzero_si512();
        for (int word = 0; word < words; word++, bits += 8 * LANES) {
            __m512i own = _mm512_set1_epi64((long long)token[word]);
            differing = _mm512_add_epi64(
                differing, _mm512_popcnt_epi64(_mm512_xor_si512(own, _mm512_loadu_si512(bits))));
        }
        found = _mm512_min_epi64(found, differing);
    }
    return found;
}

VPOPCNT static void bits_vpopcnt(const Query *query, const void *page, int64_t count, void *scratch, int32_t *best)
{
    int words = query->dim;
    int64_t groups = (count + LANES - 1) / LANES;
    __m512i *minima = scratch;
    for (int t = 0; t < query->tokens; t++)
        minima[t] = _mm512_set1_epi64(INT32_MAX);
    for (int64_t first = 0; first < groups; first += RUN) {
        const char *run = (const char *)page + first * words * LANES * 8;
        const uint64_t *token = query->packed;
        int64_t length = smaller(RUN, groups - first);
        for (int t = 0; t < query->tokens; t++, token += words) {
            switch (words) { /* unrolled for the usual widths */
            case 2: minima[t] = least(run, length, 2, token, minima[t]); break;
            case 5: minima[t] = least(run, length, 5, token, minima[t]); break;
            case 6: minima[t] = least(run, length, 6, token, minima[t]); break;
            default: minima[t] = least(run, length, words, token, minima[t]);
            }
        }
    }
    for (int t = 0; t < query->tokens; t++)
        best[t] = (int32_t)_mm512_reduce_min_epi64(minima[t]);
}

/* AVX2 has no such instruction: the ones of each byte are those of its halves, by a table. */

#define BYTES 31 /* words of which no more than 255 bits of a byte can differ */

AVX2 static inline __m256i ones(__m256i bits)
{
    const __m256i table = _mm256_setr_epi8(0, 1, 1, 2, 1, 2, 2, 3, 1, 2, 2, 3, 2, 3, 3, 4,
                                           0, 1, 1, 2, 1, 2, 2, 3, 1, 2, 2, 3, 2, 3, 3, 4);
    const __m256i half = _mm256_set1_epi8(15);
    __m256i low = _mm256_shuffle_epi8(table, _mm256_and_si256(bits, half));
    __m256i high = _mm256_shuffle_epi8(table, _mm256_and_si256(_mm256_srli_epi16(bits, 4), half));
    return _mm256_add_epi8(low, high);
}

AVX2 static inline __attribute__((always_inline)) __m256i
least_avx2(const char *bits, int64_t groups, int words, const uint64_t *token, __m256i found)
{
    const __m256i zero = _mm256_setzero_si256();
    for (int64_t group = 0; group < groups; group++) {
        __m256i left = zero, right = zero; /* 4 vectors each */
        for (int first = 0; first < words; first += BYTES) {
            __m256i a = zero, b = zero;
            for (int word = first; word < words && word < first + BYTES; word++, bits += 8 * LANES) {
                __m256i own = _mm256_set1_epi64x((long long)token[word]);
                a = _mm256_add_epi8(a, ones(_mm256_xor_si256(own, _mm256_loadu_si256((const __m256i *)bits))));
                b = _mm256_add_epi8(b, ones(_mm256_xor_si256(own, _mm256_loadu_si256((const __m256i *)bits + 1))));
            }
            left = _mm256_add_epi64(left, _mm256_sad_epu8(a, zero));
            right = _mm256_add_epi64(right, _mm256_sad_epu8(b, zero));
        }
        found = _mm256_min_epi32(found, _mm256_min_epi32(left, right)); /* none is beyond 32 bits */
    }
    return found;
}

AVX2 static void bits_avx2(const Query *query, const void *page, int64_t count, void *scratch, int32_t *best)
{
    int words = query->dim;
    int64_t groups = (count + LANES - 1) / LANES;
    __m256i *minima = scratch;
    for (int t = 0; t < query->tokens; t++)
        minima[t] = _mm256_set1_epi64x(INT32_MAX);
    for (int64_t first = 0; first < groups; first += RUN) {
        const char *run = (const char *)page + first * words * LANES * 8;
        const uint64_t *token = query->packed;
        int64_t length = smaller(RUN, groups - first);
        for (int t = 0; t < query->tokens; t++, token += words) {
            switch (words) {
            case 2: minima[t] = least_avx2(run, length, 2, token, minima[t]); break;
            case 5: minima[t] = least_avx2(run, length, 5, token, minima[t]); break;
            case 6: minima[t] = least_avx2(run, length, 6, token, minima[t]); break;
            default: minima[t] = least_avx2(run, length, words, token, minima[t]);
            }
        }
    }
    for (int t = 0; t < query->tokens; t++) {
        int64_t lanes[4];
        _mm256_storeu_si256((__m256i *)lanes, minima[t]);
        best[t] = (int32_t)smaller(smaller(lanes[0], lanes[1]), smaller(lanes[2], lanes[3]));
    }
}
#endif

#if defined(__aarch64__)

static void bits_words(const Query *query, const void *page, int64_t count, void *scratch, int32_t *best)
{
    (void)scratch;
    const uint64_t *token = query->packed;
    int words = query->dim;
    for (int t = 0; t < query->tokens; t++, token += words) {
        const char *bits = page;
        best[t] = INT32_MAX;
        for (int64_t first = 0; first < count; first += LANES, bits += (int64_t)words * LANES * 8)
            for (int lane = 0; lane < LANES; lane++) {
                int32_t differing = 0;
                for (int word = 0; word < words; word++) {
                    uint64_t other;
                    memcpy(&other, bits + 8 * (word * LANES + lane), 8);
                    differing += __builtin_popcountll(token[word] ^ other);
                }
                best[t] = best[t] < differing ? best[t] : differing;
            }
    }
}

/* NEON: 16 vectors, 4 dimensions a register of 4, signed by signed. */

#define DOTPROD __attribute__((target("arch=armv8.2-a+dotprod")))

/* 4 rows → for each four dimensions a register, every fourth of `to` */
DOTPROD static void turn_neon(const int8_t *const *rows, int dim, int8x16_t *to)
{
    for (int at = 0; at < dim; at += 8, to += 8) {
        int32x2_t a = vreinterpret_s32_s8(vld1_s8(rows[0] + at)), b = vreinterpret_s32_s8(vld1_s8(rows[1] + at));
        int32x2_t c = vreinterpret_s32_s8(vld1_s8(rows[2] + at)), d = vreinterpret_s32_s8(vld1_s8(rows[3] + at));
        to[0] = vreinterpretq_s8_s32(vcombine_s32(vzip1_s32(a, b), vzip1_s32(c, d)));
        to[4] = vreinterpretq_s8_s32(vcombine_s32(vzip2_s32(a, b), vzip2_s32(c, d)));
    }
}

DOTPROD static void int8_neon(const Query *query, const void *page, int64_t count, void *scratch, int32_t *best)
{
    const int8_t *codes = page;
    int dim = query->dim, steps = dim / 4;
    int8x16_t *turned = scratch;
    for (int t = 0; t < query->tokens; t++)
        best[t] = INT32_MIN;
    for (int64_t first = 0; first < count; first += 16) {
        const int8_t *rows[16];
        find_rows(rows, 16, codes, first, count, dim);
        for (int part = 0; part < 4; part++)
            turn_neon(rows + 4 * part, dim, turned + part);
        const int32_t *packed = query->packed;
        for (int t = 0; t < query->tokens; t += query->group) {
            int tokens = (int)smaller(query->group, query->tokens - t);
            int32x4_t sums[4][4];
            for (int part = 0; part < 4; part++)
                for (int j = 0; j < 4; j++)
                    sums[part][j] = vdupq_n_s32(0);
            for (int step = 0; step < steps; step++) {
                int32_t next[4] = {0, 0, 0, 0};
                memcpy(next, packed, 4 * (size_t)tokens);
                packed += tokens;
                int8x16_t token = vreinterpretq_s8_s32(vld1q_s32(next));
                for (int part = 0; part < 4; part++) {
                    int8x16_t own = turned[4 * step + part];
                    sums[part][0] = vdotq_laneq_s32(sums[part][0], own, token, 0);
                    sums[part][1] = vdotq_laneq_s32(sums[part][1], own, token, 1);
                    sums[part][2] = vdotq_laneq_s32(sums[part][2], own, token, 2);
                    sums[part][3] = vdotq_laneq_s32(sums[part][3], own, token, 3);
                }
            }
            for (int j = 0; j < tokens; j++) {
                int32x4_t most = vmaxq_s32(vmaxq_s32(sums[0][j], sums[1][j]), vmaxq_s32(sums[2][j], sums[3][j]));
                int32_t found = vmaxvq_s32(most);
                best[t + j] = best[t + j] > found ? best[t + j] : found;
            }
        }
    }
}
#endif

/* The kernels */

typedef struct {
    const char *name;
    int step, group; /* dimensions side by side; tokens in a group, at most */
    Best *int8, *bits;
} Kernel;

static Kernel kernels[4];
static int known;

static void find_kernels(void)
{
#if defined(__x86_64__)
    __builtin_cpu_init();
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vnni"))
        kernels[known++] = (Kernel){"avx512", 4, GROUP, int8_vnni,
                                    __builtin_cpu_supports("avx512vpopcntdq") ? bits_vpopcnt : bits_avx2};
    if (__builtin_cpu_supports("avx2"))
        kernels[known++] = (Kernel){"avx2", 2, 4, int8_avx2, bits_avx2};
#elif defined(__aarch64__)
#if defined(__linux__)
    if (getauxval(AT_HWCAP) & HWCAP_ASIMDDP)
#endif
        kernels[known++] = (Kernel){"neon", 4, 4, int8_neon, bits_words};
#endif
}

/* A question's int8 codes (tokens, dim) in the order in which a kernel takes them. */
static int pack_query(Query *query, const Kernel *kernel, const int8_t *codes)
{
    int tokens = query->tokens, dim = query->dim, step = kernel->step;
    int groups = tokens ? (tokens + kernel->group - 1) / kernel->group : 1;
    query->group = tokens ? (tokens + groups - 1) / groups : 1;
    int32_t *to = malloc(sizeof(int32_t) * (size_t)(dim / step) * (size_t)(tokens ? tokens : 1));
    query->packed = to;
    query->correction = calloc((size_t)tokens + 1, sizeof(int32_t));
    if (to == NULL || query->correction == NULL)
        return -1;
    for (int first = 0; first < tokens; first += query->group)
        for (int at = 0; at < dim; at += step)
            for (int t = first; t < tokens && t < first + query->group; t++, to++) {
                if (step == 4) {
                    memcpy(to, codes + (int64_t)t * dim + at, 4);
                } else {
                    int16_t pair[2] = {codes[(int64_t)t * dim + at], codes[(int64_t)t * dim + at + 1]};
                    memcpy(to, pair, 4);
                }
            }
    for (int t = 0; t < tokens; t++)
        for (int at = 0; at < dim; at++)
            query->correction[t] -= 128 * codes[(int64_t)t * dim + at];
    return 0;
}

/* Bytes that a kernel works in: a block of turned rows, and of each token the best matches by lane. */
#define SCRATCH(dim, tokens) ((size_t)(dim) * 32 + 1024 + 64 * ((size_t)(tokens) + 1))
