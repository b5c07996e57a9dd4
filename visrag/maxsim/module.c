/* The kernels as a module of Python: visrag.maxsim._kernel, by the stable interface of 3.11. */

#define PY_SSIZE_T_CLEAN
#define Py_LIMITED_API 0x030B0000
#include <Python.h>

#include <math.h>
#include <pthread.h>

#include "kernel.c"

#define CHUNK 8 /* pages that a thread takes at a time */
#define MOST_THREADS 256

static const Kernel *kernel_of(const char *name)
{
    for (int i = 0; i < known; i++)
        if (!strcmp(kernels[i].name, name))
            return &kernels[i];
    PyErr_Format(PyExc_ValueError, "this machine has no kernel %s", name);
    return NULL;
}

typedef struct {
    Py_buffer *pages; /* the segments */
    Py_ssize_t segments;
    Py_buffer segment, offsets, counts, scales, mask, query, factors, scores, best;
} Given;

static int take(PyObject *object, Py_buffer *to, Py_ssize_t item, Py_ssize_t items, int writable, const char *name)
{
    if (PyObject_GetBuffer(object, to, writable ? PyBUF_CONTIG : PyBUF_CONTIG_RO) < 0)
        return -1;
    if (to->itemsize != item || (items >= 0 && to->len != item * items)) {
        PyErr_Format(PyExc_ValueError, "%s: %zd bytes of items of %zd, not %zd items of %zd", name, to->len,
                     to->itemsize, items, item);
        return -1;
    }
    return 0;
}

static void let_go(Given *given)
{
    for (Py_ssize_t i = 0; i < given->segments; i++)
        PyBuffer_Release(&given->pages[i]);
    free(given->pages);
    Py_buffer *others[] = {&given->segment, &given->offsets, &given->counts, &given->scales, &given->mask,
                           &given->query, &given->factors, &given->scores, &given->best};
    for (size_t i = 0; i < sizeof others / sizeof *others; i++)
        PyBuffer_Release(others[i]);
}

typedef struct {
    const Given *given;
    Best *function;
    const Query *query;
    int64_t pages, width; /* bytes of a vector */
    int lanes;
    double whole;          /* of bits: dimensions, from which those that differ are taken off twice */
    char *scratch; /* a part for each thread: what the function works in, then from `sums` on a page's best matches */
    size_t part, sums;
    int64_t begun, next; /* threads; the first page that is left */
    int64_t outside;     /* a page that lies outside of its segment, or -1 */
} Job;

/* Score pages until there are no more. */
static void *work(void *argument)
{
    Job *job = argument;
    char *scratch = job->scratch + job->part * (size_t)__atomic_fetch_add(&job->begun, 1, __ATOMIC_RELAXED);
    const Given *given = job->given;
    const int64_t *segment = given->segment.buf, *offsets = given->offsets.buf, *counts = given->counts.buf;
    const float *scales = given->scales.buf;
    const uint8_t *mask = given->mask.buf;
    const double *factors = given->factors.buf;
    float *scores = given->scores.buf;
    int32_t *best = given->best.buf, *sums = (int32_t *)(scratch + job->sums);
    int64_t pages = job->pages, lanes = job->lanes;
    int tokens = job->query->tokens;
    for (;;) {
        int64_t first = __atomic_fetch_add(&job->next, CHUNK, __ATOMIC_RELAXED);
        if (first >= pages)
            return NULL;
        for (int64_t page = first; page < smaller(first + CHUNK, pages); page++) {
            int64_t count = counts[page], at = offsets[page];
            scores[page] = NAN;
            if (count == 0 || (mask != NULL && !mask[page]))
                continue;
            const Py_buffer *in = NULL;
            if (segment[page] >= 0 && segment[page] < given->segments)
                in = &given->pages[segment[page]];
            if (in == NULL || at < 0 || at > in->len || count < 0 || count > in->len ||
                (count + lanes - 1) / lanes * lanes * job->width > in->len - at) {
                __atomic_store_n(&job->outside, page, __ATOMIC_RELAXED);
                continue;
            }
            job->function(job->query, (const char *)in->buf + at, count, scratch, sums);
            double score = 0;
            for (int t = 0; t < tokens; t++)
                score += factors[t] * (job->whole ? job->whole - 2.0 * sums[t] : sums[t]);
            scores[page] = (float)(score * scales[page]);
            if (best != NULL)
                memcpy(best + page * tokens, sums, sizeof(int32_t) * (size_t)tokens);
        }
    }
}

/* Do a job on this thread and others, which are made for it: the system puts a new thread on the processor that has the
 * least to do, and would wake one that waited on this one's. */
static void share(Job *job, int threads)
{
    pthread_t others[MOST_THREADS];
    int begun = 0;
    while (begun < threads - 1 && !pthread_create(&others[begun], NULL, work, job))
        begun++;
    work(job);
    while (begun > 0)
        pthread_join(others[--begun], NULL);
}

static const char SCORE[] =
    "score(kernel, threads, bits, dim, segments, segment, offsets, counts, scales, mask, query, factors, scores, best)\n\n"
    "MaxSim of pages. See visrag/maxsim/native.py.";

static PyObject *score(PyObject *module, PyObject *arguments)
{
    (void)module;
    const char *name;
    int threads, bits, dim;
    PyObject *list, *segment, *offsets, *counts, *scales, *mask, *tokens, *factors, *scores, *best;
    if (!PyArg_ParseTuple(arguments, "sipiO!OOOOOOOOO", &name, &threads, &bits, &dim, &PyTuple_Type, &list, &segment,
                          &offsets, &counts, &scales, &mask, &tokens, &factors, &scores, &best))
        return NULL;
    const Kernel *kernel = kernel_of(name);
    if (kernel == NULL)
        return NULL;
    if (dim < 8 || dim > WIDEST || dim % 8) {
        PyErr_Format(PyExc_ValueError, "%d dimensions: must be a multiple of 8, and at most %d", dim, WIDEST);
        return NULL;
    }
    Given given = {0};
    Query query = {0};
    PyObject *result = NULL;
    void *scratch = NULL;
    int words = (dim + 63) / 64;
    Py_ssize_t width = bits ? words * 8 : dim, segments = PyTuple_Size(list);
    given.pages = calloc((size_t)segments + 1, sizeof(Py_buffer));
    if (given.pages == NULL) {
        PyErr_NoMemory();
        goto end;
    }
    for (; given.segments < segments; given.segments++)
        if (PyObject_GetBuffer(PyTuple_GetItem(list, given.segments), &given.pages[given.segments], PyBUF_CONTIG_RO) < 0)
            goto end;
    if (take(scores, &given.scores, 4, -1, 1, "scores") < 0)
        goto end;
    Py_ssize_t pages = given.scores.len / 4;
    if (take(factors, &given.factors, 8, -1, 0, "factors") < 0)
        goto end;
    query.tokens = (int)(given.factors.len / 8);
    query.dim = bits ? words : dim;
    if (take(segment, &given.segment, 8, pages, 0, "segment") < 0 ||
        take(offsets, &given.offsets, 8, pages, 0, "offsets") < 0 ||
        take(counts, &given.counts, 8, pages, 0, "counts") < 0 ||
        take(scales, &given.scales, 4, pages, 0, "scales") < 0 ||
        (mask != Py_None && take(mask, &given.mask, 1, pages, 0, "mask") < 0) ||
        take(tokens, &given.query, bits ? 8 : 1, (Py_ssize_t)query.tokens * query.dim, 0, "query") < 0 ||
        (best != Py_None && take(best, &given.best, 4, pages * query.tokens, 1, "best") < 0))
        goto end;
    threads = threads < 1 ? 1 : threads > MOST_THREADS ? MOST_THREADS : threads;
    size_t room = SCRATCH(dim, query.tokens);
    size_t part = (room + sizeof(int32_t) * ((size_t)query.tokens + 1) + 63) / 64 * 64;
    if (posix_memalign(&scratch, 64, part * (size_t)threads)) {
        scratch = NULL;
        PyErr_NoMemory();
        goto end;
    }
    if (bits) {
        query.packed = given.query.buf;
    } else if (pack_query(&query, kernel, given.query.buf) < 0) {
        PyErr_NoMemory();
        goto end;
    }
    Job job = {
        .given = &given, .function = bits ? kernel->bits : kernel->int8, .query = &query,
        .pages = pages, .width = width, .lanes = bits ? LANES : 1, .whole = bits ? dim : 0,
        .scratch = scratch, .part = part, .sums = room, .outside = -1,
    };
    Py_BEGIN_ALLOW_THREADS
    share(&job, threads);
    Py_END_ALLOW_THREADS
    if (job.outside >= 0)
        PyErr_Format(PyExc_IndexError, "page %lld lies outside of its segment", (long long)job.outside);
    else
        result = Py_NewRef(Py_None);
end:
    if (!bits)
        free((void *)query.packed);
    free(query.correction);
    free(scratch);
    let_go(&given);
    return result;
}

static PyObject *names(PyObject *module, PyObject *nothing)
{
    (void)module, (void)nothing;
    PyObject *found = PyList_New(0);
    for (int i = 0; found != NULL && i < known; i++) {
        PyObject *name = PyUnicode_FromString(kernels[i].name);
        if (name == NULL || PyList_Append(found, name) < 0)
            Py_CLEAR(found);
        Py_XDECREF(name);
    }
    return found;
}

static PyMethodDef methods[] = {
    {"score", score, METH_VARARGS, SCORE},
    {"names", names, METH_NOARGS, "The kernels that this machine has, the fastest first."},
    {NULL, NULL, 0, NULL},
};

static PyModuleDef definition = {PyModuleDef_HEAD_INIT, "_kernel", NULL, -1, methods, NULL, NULL, NULL, NULL};

PyMODINIT_FUNC PyInit__kernel(void)
{
    if (known == 0)
        find_kernels();
    return PyModule_Create(&definition);
}
