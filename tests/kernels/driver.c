/* The kernel without Python, to be run on the processors that an emulator has: driver NAME < cases > matches
 *
 * A case: bits, dim, tokens, count as int32; the question; the page. Its matches: int32, one a token. Without a NAME: the
 * names of the kernels.
 */

#include "kernel.c"
#include <stdio.h>

static void *take_bytes(size_t length)
{
    void *found = malloc(length + 1); /* no longer, so that a sanitizer sees what reads on */
    if (found == NULL || fread(found, 1, length, stdin) != length)
        exit(3);
    return found;
}

int main(int count, char **arguments)
{
    find_kernels();
    for (int i = 0; i < known; i++) {
        if (count < 2) {
            puts(kernels[i].name);
        } else if (!strcmp(kernels[i].name, arguments[1])) {
            int32_t head[4];
            while (fread(head, 1, sizeof head, stdin) == sizeof head) {
                int bits = head[0], dim = head[1], tokens = head[2], words = (dim + 63) / 64;
                size_t width = bits ? (size_t)words * 8 : (size_t)dim;
                size_t rows = bits ? ((size_t)head[3] + LANES - 1) / LANES * LANES : (size_t)head[3];
                void *asked = take_bytes(width * (size_t)tokens), *page = take_bytes(width * rows), *scratch;
                int32_t *best = malloc(sizeof(int32_t) * ((size_t)tokens + 1));
                Query query = {.tokens = tokens, .dim = bits ? words : dim, .packed = asked};
                if (best == NULL || posix_memalign(&scratch, 64, SCRATCH(dim, tokens)) ||
                    (!bits && pack_query(&query, &kernels[i], asked) < 0))
                    return 4;
                (bits ? kernels[i].bits : kernels[i].int8)(&query, page, head[3], scratch, best);
                fwrite(best, sizeof(int32_t), (size_t)tokens, stdout);
                if (!bits)
                    free((void *)query.packed);
                free(query.correction), free(asked), free(page), free(scratch), free(best);
            }
            return 0;
        }
    }
    return count > 1;
}
